package engine

import (
	"slices"
	"testing"

	"bawn.dev/bawn/internal/secret"
)

// TestMissingSecretsAreSaid: each secret that the approved bawn.yaml names and that is not set.
func TestMissingSecretsAreSaid(t *testing.T) {
	e, dir := newProject(t)
	s, err := e.newSpec("shop", dir, &SpecChange{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.sandboxes.Create(s); err != nil {
		t.Fatal(err)
	}
	var said []string
	e.events = func(ev Event) {
		if n, ok := ev.(Notice); ok && n.Reason == SecretMissing {
			said = append(said, n.Fields...)
		}
	}
	missing := func(want ...string) {
		t.Helper()
		said = nil
		e.sayMissingSecrets(s)
		if !slices.Equal(said, want) {
			t.Errorf("%q, want %q", said, want)
		}
	}
	propose(t, dir, "secrets: [A_KEY, B_KEY]\n")
	missing() // it is not approved
	approve(t, e, dir)
	missing("A_KEY", "B_KEY")
	host, err := secret.ParseHost("api.test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.SetSecret(t.Context(), secret.Secret{Name: "A_KEY", Dir: dir, For: []secret.Host{host}, Keeper: secret.File}, "the-value-of-a-secret"); err != nil {
		t.Fatal(err)
	}
	missing("B_KEY")
}
