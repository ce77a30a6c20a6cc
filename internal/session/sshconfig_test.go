package session

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/sandbox/store"
)

// TestSSHConfigIsRead by ssh itself, whatever the names of the folders are.
func TestSSHConfigIsRead(t *testing.T) {
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		t.Skip("no ssh here")
	}
	for _, folder := range []string{"plain", "two words", `a "quoted" one`, `back\slash`, `50%d`, `end\`, "it's", "#no comment"} {
		d := store.Dir{Path: filepath.Join(t.TempDir(), folder)}
		config := filepath.Join(t.TempDir(), "config")
		text, err := SSHConfig(d, "x", "me", "'"+strings.ReplaceAll(d.Path, "'", `'\''`)+"/bawn' proxy x")
		if err == nil {
			err = os.WriteFile(config, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), ssh, "-G", "-F", config, "bawn-x").CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v: %s", folder, err, out)
		}
		// ssh -G shows the tokens of the known hosts as they were written.
		for _, want := range []string{"identityfile " + d.File(store.ClientKeyFile), "userknownhostsfile " + d.File(store.KnownHostsFile)} {
			if !strings.Contains(strings.ReplaceAll(string(out), "%%", "%"), want+"\n") {
				t.Errorf("%s: no %q in\n%s", folder, want, out)
			}
		}
	}
}

// TestSSHConfigRefuses what ssh would read as something else.
func TestSSHConfigRefuses(t *testing.T) {
	for _, c := range [][2]string{{"/a\nb", "proxy"}, {"/a\rb", "proxy"}, {"/${HOME}", "proxy"}, {"/a", "/b\n/proxy"}} {
		if got, err := SSHConfig(store.Dir{Path: c[0]}, "x", "me", c[1]); !errors.Is(err, ErrUnquotable) {
			t.Errorf("%q: %v\n%s", c, err, got)
		}
	}
}
