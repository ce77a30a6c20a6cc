package engine_test

import (
	"context"
	"os"
	"slices"
	"testing"

	"bawn.dev/bawn/internal/egress/audit"
	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sandbox/store"
)

// netLog opens the log of a sandbox for writing.
func netLog(t *testing.T, d store.Dir) *audit.Log {
	t.Helper()
	log, err := audit.Open(d.File(store.NetLogFile), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	return log
}

// TestProposeOnlyHosts: what is proposed was connected to, or its address was asked
// for; names of services never were.
func TestProposeOnlyHosts(t *testing.T) {
	e, _, shop := userPlace(t)
	log := netLog(t, shop)
	for _, entry := range []audit.Entry{
		{Proto: "dns", App: "A", Name: "four.example"},
		{Proto: "dns", App: "AAAA", Name: "six.example"},
		{Proto: "dns", App: "SRV", Name: "_http._tcp.deb.example"},
		{Proto: "dns", App: "A", Name: "_http._tcp.deb.example"},
		{Proto: "dns", App: "AAAA", Name: "mail._domainkey.example"},
		{Proto: "dns", App: "TXT", Name: "text.example"},
		{Proto: "dns", App: "HTTPS", Name: "https.example"},
		{Proto: "tcp", Name: "dialled.example", Port: 443},
		{Proto: "tcp", Name: "plain.example", Port: 80},
		{Proto: "tcp", Name: "my_host.example", Port: 443},
	} {
		entry.Verdict, entry.Suggest = audit.Denied, entry.Name
		log.Write(entry)
	}
	log.Write(audit.Entry{Verdict: audit.Allowed, Proto: "tcp", Name: "allowed.example", Port: 443, Suggest: "allowed.example"})
	log.Write(audit.Entry{Verdict: audit.Denied, Proto: "tcp", Name: "hopeless.example", Port: 443})
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	p, err := e.ProposeRules(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(p.Rules)
	if want := []string{"dialled.example:443", "four.example:443", "my_host.example:443", "plain.example:80", "six.example:443"}; !slices.Equal(p.Rules, want) {
		t.Errorf("%q, want %q", p.Rules, want)
	}
	if p.File != shop.File(store.PolicyFile) {
		t.Errorf("the file is %s", p.File)
	}
	change(t, e, shopRules, allow(p.Rules...))
	if p, err = e.ProposeRules(t.Context(), "shop"); err != nil || p.Rules != nil {
		t.Errorf("after they were added: %q, %v", p.Rules, err)
	}
}

// TestProposeNothing: a sandbox that never started has no log, and needs no rule.
func TestProposeNothing(t *testing.T) {
	e, _, _ := userPlace(t)
	if p, err := e.ProposeRules(t.Context(), "shop"); err != nil || p.Rules != nil {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := e.ProposeRules(t.Context(), "nope"); engine.ReasonOf(err) != engine.NotFound {
		t.Errorf("%v", err)
	}
}

// TestDenials: each missing rule is reported once, not if a rule decides by now, and not
// what was denied before.
func TestDenials(t *testing.T) {
	e, _, shop := userPlace(t)
	log := netLog(t, shop)
	deny := func(name string) {
		log.Write(audit.Entry{Verdict: audit.Denied, Proto: "tcp", Name: name, Port: 443, Suggest: name})
	}
	deny("past.test")
	denials := e.Denials(t.Context(), "shop")
	deny("one.test")
	deny("one.test")
	change(t, e, shopRules, allow("allowed.test"))
	deny("allowed.test")
	log.Write(audit.Entry{Verdict: audit.Denied, Proto: "dns", App: "SRV", Name: "_x._tcp.test", Suggest: "_x._tcp.test"})
	log.Write(audit.Entry{Verdict: audit.Allowed, Proto: "tcp", Name: "good.test", Port: 443})
	deny("two.test")
	var got []string
	for d, err := range denials {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, d.Rule); d.Entry.Name != d.Rule {
			t.Errorf("%+v", d)
		}
		if len(got) == 1 { // the caller allows while it reads
			change(t, e, shopRules, allow("later.test"))
			deny("later.test")
			deny("three.test")
		}
		if d.Rule == "three.test" {
			break
		}
	}
	if want := []string{"one.test", "two.test", "three.test"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestDenialsEnd with the context, without an error, and with the sandbox, with one.
func TestDenialsEnd(t *testing.T) {
	e, _, shop := userPlace(t)
	log := netLog(t, shop)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	denials := e.Denials(ctx, "shop")
	log.Write(audit.Entry{Verdict: audit.Denied, Proto: "tcp", Name: "a.test", Port: 443, Suggest: "a.test"})
	for _, err := range denials {
		if err != nil {
			t.Errorf("%v", err)
		}
		cancel()
	}
	denials = e.Denials(t.Context(), "shop")
	log.Write(audit.Entry{Verdict: audit.Denied, Proto: "tcp", Name: "b.test", Port: 443, Suggest: "b.test"})
	var last error
	for _, err := range denials {
		if last = err; err == nil {
			if err := os.RemoveAll(shop.Path); err != nil {
				t.Fatal(err)
			}
		}
	}
	if engine.ReasonOf(last) != engine.NotFound {
		t.Errorf("%v", last)
	}
}

// TestProposeDeniedRequests: requests on inspected connections bring rules about requests, which
// are found missing until one is added.
func TestProposeDeniedRequests(t *testing.T) {
	e, _, shop := userPlace(t)
	change(t, e, shopRules, allow("GET https://api.example/v1/**"))
	log := netLog(t, shop)
	for _, method := range []string{"GET", "POST", "PUT"} {
		log.Write(audit.Entry{
			Verdict: audit.Denied, Proto: "tcp", Name: "api.example", Port: 443, Method: method, Path: "/v1/items", Status: 403,
			Suggest: method + " https://api.example/v1/items",
		})
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	p, err := e.ProposeRules(t.Context(), "shop")
	if want := []string{"POST,PUT https://api.example/v1/items"}; err != nil || !slices.Equal(p.Rules, want) || p.Alone != nil {
		t.Errorf("%+v, %v", p, err)
	}
	change(t, e, shopRules, allow(p.Rules...))
	if p, err = e.ProposeRules(t.Context(), "shop"); err != nil || p.Rules != nil {
		t.Errorf("after they were added: %q, %v", p.Rules, err)
	}
	if removed := change(t, e, shopRules, engine.RuleChange{Action: policy.Allow, Rules: []string{"put,POST https://API.example/v1/items/"}, Remove: true}); removed != nil {
		t.Errorf("%+v", removed)
	}
}

// TestDeniedRepositories: denials about a repository of git are asked about and proposed, until a rule
// allows them.
func TestDeniedRepositories(t *testing.T) {
	e, _, shop := userPlace(t)
	change(t, e, shopRules, allow("git:code.test/own/app:push=main"))
	log := netLog(t, shop)
	denials := e.Denials(t.Context(), "shop")
	suggested := []string{"git:code.test/own/app:push=main", "git:code.test/own/app:push=feature/a", "git:code.test/own/lib"}
	for _, rule := range suggested {
		log.Write(audit.Entry{Verdict: audit.Denied, Proto: "tcp", Name: "code.test", Port: 443, Method: "POST", Path: "/own", Status: 403, Suggest: rule})
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	want := suggested[1:]
	var got []string
	for d, err := range denials {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, d.Rule); len(got) == len(want) {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	p, err := e.ProposeRules(t.Context(), "shop")
	if err != nil || !slices.Equal(p.Rules, want) || p.Alone != nil {
		t.Errorf("%+v, %v", p, err)
	}
	change(t, e, shopRules, allow(p.Rules...))
	if p, err = e.ProposeRules(t.Context(), "shop"); err != nil || p.Rules != nil {
		t.Errorf("after they were added: %q, %v", p.Rules, err)
	}
}
