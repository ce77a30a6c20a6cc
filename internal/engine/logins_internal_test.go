package engine

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/agents"
	"bawn.dev/bawn/internal/login"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/proc"
)

// loggedIn is a user with a login of claude, and the placeholder of its access token.
func loggedIn(t *testing.T) (placeholder string) {
	t.Helper()
	dir := t.TempDir()
	proc.Distrust(nil) // whose engine another test made is gone
	for _, v := range []string{"HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"} {
		t.Setenv(v, filepath.Join(dir, v))
	}
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "")
	t.Setenv("XDG_RUNTIME_DIR", "")
	if err := defineLogin(&agents.Builtin()[0]); err != nil {
		t.Fatal(err)
	}
	all, err := login.Open()
	if err != nil {
		t.Fatal(err)
	}
	b := all.Sandbox("1", "box")
	b.SetAgents([]string{"claude"})
	x, err := b.Begin(t.Context(), []login.Endpoint{{Agent: "claude"}}, login.Request{Grant: "authorization_code"})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	a, err := x.Done(http.StatusOK, []byte(`{"access_token":"sk-ant-oat01-the-real-token-0123456789"}`))
	if err != nil {
		t.Fatal(err)
	}
	return a.Pairs[0].Shown
}

// TestHomesGetTheLogin: the file that the agent wrote in one home, with placeholders, is in the next one.
func TestHomesGetTheLogin(t *testing.T) {
	placeholder := loggedIn(t)
	one, two := t.TempDir(), t.TempDir()
	text := `{"claudeAiOauth":{"accessToken":"` + placeholder + `"}}`
	if err := os.WriteFile(filepath.Join(one, ".credentials.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, home := range []string{one, two} {
		if err := fillHome(&sandbox.Agent{Name: "claude", Home: home}); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(home, ".credentials.json")); err != nil || string(b) != text {
			t.Errorf("%s, %v", b, err)
		}
	}
	if err := fillHome(&sandbox.Agent{Name: "unknown", Home: one}); err != nil {
		t.Error(err)
	}
}

// TestAttackLoginFileInAHome: a guest put links, a folder and much text where the file belongs.
func TestAttackLoginFileInAHome(t *testing.T) {
	placeholder := loggedIn(t)
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte(`{"a":"`+placeholder+` and the person's own"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, attack := range map[string]func(file string) error{
		"link":     func(file string) error { return os.Symlink(outside, file) },
		"dangling": func(file string) error { return os.Symlink(outside+"2", file) },
		"folder":   func(file string) error { return os.MkdirAll(filepath.Join(file, "x"), 0o700) },
		"large": func(file string) error {
			return os.WriteFile(file, []byte(placeholder+strings.Repeat("a", 2<<20)), 0o600)
		},
	} {
		home := t.TempDir()
		if err := attack(filepath.Join(home, ".credentials.json")); err != nil {
			t.Fatal(err)
		}
		if err := fillHome(&sandbox.Agent{Name: "claude", Home: home}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	all, err := login.Open()
	if err != nil {
		t.Fatal(err)
	}
	if l, err := all.Get("claude"); err != nil || len(l.File) > 0 {
		t.Errorf("a file was taken over: %s, %v", l.File, err)
	}
	if _, err := os.Lstat(outside + "2"); err == nil {
		t.Error("a file was written outside")
	}
	if b, _ := os.ReadFile(outside); !strings.Contains(string(b), "person's own") {
		t.Error("a file outside was changed")
	}
}
