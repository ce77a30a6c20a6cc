package engine

import (
	"slices"
	"testing"

	"bawn.dev/bawn/internal/policy"
)

func TestRulesOfTheProjectFileComeAndGo(t *testing.T) {
	e, dir := newProject(t)
	ctx := t.Context()
	s, err := e.newSpec("shop", dir, &SpecChange{})
	if err != nil {
		t.Fatal(err)
	}
	d, err := e.sandboxes.Create(s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.ChangeRules(ctx, Scope{Sandbox: "shop"}, RuleChange{Action: policy.Allow, Rules: []string{"own.test"}}); err != nil {
		t.Fatal(err)
	}
	want := func(texts ...string) {
		t.Helper()
		rules, err := d.Rules()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range rules {
			got = append(got, r.String())
		}
		if !slices.Equal(got, texts) {
			t.Errorf("%q, want %q", got, texts)
		}
	}
	propose(t, dir, "allow: [a.test]\ndeny: [b.test]\n")
	want("allow own.test")
	approve(t, e, dir)
	want("allow a.test", "deny b.test", "allow own.test")
	propose(t, dir, "allow: [evil.test]\n")
	if err := e.syncRules(ctx, d, s); err != nil {
		t.Fatal(err)
	}
	want("allow a.test", "deny b.test", "allow own.test")
	propose(t, dir, "allow: [c.test]\n")
	approve(t, e, dir)
	want("allow c.test", "allow own.test")
	if err := e.Forget(ctx, dir); err != nil {
		t.Fatal(err)
	}
	want("allow own.test")
}
