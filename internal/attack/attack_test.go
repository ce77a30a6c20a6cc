package attack

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == Verb { // the probe
		if err := Probe(os.Args[2:], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// run attacks a sandbox with this test's program as the probe.
func run(t *testing.T, adapter string) map[string]Result {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	r, err := Run(t.Context(), Config{Adapter: adapter, Program: program, Home: home, loopbackOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(home)
	if err != nil || len(left) != 0 {
		t.Errorf("left in the home directory: %v %v", left, err)
	}
	got := map[string]Result{}
	for _, v := range r.Results {
		got[v.ID] = v
	}
	return got
}

// TestNothingHoldsWithoutASandbox: each attack succeeds where nothing stops it, so the suite
// can tell. (No names are looked up in this test, and an ordinary user makes no devices.)
func TestNothingHoldsWithoutASandbox(t *testing.T) {
	stopped := []string{"name", "loop", "redirect", "metadata", "ipv6", "nested", "device"}
	for id, v := range run(t, "env") {
		if v.Outcome != NotHeld && !slices.Contains(stopped, id) {
			t.Errorf("%s: %s: %s", id, v.Outcome, v.Why)
		}
	}
}

// TestTheWordOfTheProbeHoldsNothing: a sandbox whose programs lie, or that run nothing, is not
// one in which attacks are held.
func TestTheWordOfTheProbeHoldsNothing(t *testing.T) {
	got := run(t, `echo '{"id":"sni","tried":true}'; true`)
	for id, v := range got {
		want := NotMeasured
		switch id {
		case "sni":
			want = Held
		case "name", "loop", "redirect": // they need a name that the adapter does not mention
			want = NotApplicable
		}
		if v.Outcome != want {
			t.Errorf("%s: %s, want %s", id, v.Outcome, want)
		}
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	_, err = Run(t.Context(), Config{Adapter: "echo away >&2; false", Program: program, Home: t.TempDir(), loopbackOnly: true})
	if err == nil || !strings.Contains(err.Error(), "away") {
		t.Errorf("an adapter that fails: %v", err)
	}
}

// TestBubblewrap: a sandbox that shares the project and nothing else holds what is outside
// of the project, and not what is in it.
func TestBubblewrap(t *testing.T) {
	adapter := `bwrap --unshare-all --as-pid-1 --clearenv --ro-bind /usr /usr --ro-bind-try /lib /lib --ro-bind-try /lib64 /lib64 --proc /proc --dev /dev --bind "$ATTACK_DIR" "$ATTACK_DIR" --chdir "$ATTACK_DIR" --`
	if err := exec.CommandContext(t.Context(), "bwrap", "--unshare-all", "--ro-bind", "/", "/", "true").Run(); err != nil {
		t.Skip("no sandbox of bubblewrap can be made here:", err)
	}
	// Without --as-pid-1 bubblewrap's own process 1 shows the caller's whole environment.
	inProject := []string{"git-hook", "git-config", "envrc", "tasks", "dotenv", "setuid"}
	for id, v := range run(t, adapter) {
		if (v.Outcome == NotHeld) != slices.Contains(inProject, id) || v.Outcome == NotMeasured {
			t.Errorf("%s: %s: %s", id, v.Outcome, v.Why)
		}
	}
}
