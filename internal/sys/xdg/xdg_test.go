package xdg

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestFolders(t *testing.T) {
	folders := []struct {
		name, variable string
		of             func() (string, error)
		byDefault      string
	}{
		{"State", "XDG_STATE_HOME", State, "/home/me/.local/state/bawn"},
		{"Cache", "XDG_CACHE_HOME", Cache, "/home/me/.cache/bawn"},
		{"Config", "XDG_CONFIG_HOME", Config, "/home/me/.config/bawn"},
	}
	for _, f := range folders {
		for value, want := range map[string]string{"": f.byDefault, "/elsewhere": "/elsewhere/bawn"} {
			t.Setenv("HOME", "/home/me")
			t.Setenv(f.variable, value)
			if got, err := f.of(); got != want || err != nil {
				t.Errorf("%s with %s=%q: %q, %v", f.name, f.variable, value, got, err)
			}
		}
		t.Setenv(f.variable, "")
		t.Setenv("HOME", "")
		if got, err := f.of(); err == nil {
			t.Errorf("%s without a home: %q", f.name, got)
		}
	}
}

// TestRootUsesNoFolderThatAnotherUserChose: with the HOME or an XDG variable of another
// user, root's bawn would change modes and write files wherever that user's links lead.
func TestRootUsesNoFolderThatAnotherUserChose(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root is asked to")
	}
	root := t.TempDir()
	at := func(p string) string { return filepath.Join(root, p) }
	for _, d := range []string{"theirs", "theirs/.local", "open/home", "links", "target"} {
		if err := os.MkdirAll(at(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(at("theirs"), 12345, 12345); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(at("open"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(at("theirs"), at("links/home")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(at("target"), at("links/bawn")); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(at("links/bawn"), 12345, 12345); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		os.Symlink(at("target"), at("links/middle")), os.Lchown(at("links/middle"), 12345, 12345), os.Symlink("middle", at("links/chain")),
	); err != nil {
		t.Fatal(err)
	}
	for name, home := range map[string]string{
		"a link to another's link":   at("links/chain"),
		"another user's home":        at("theirs"),
		"a link to another's home":   at("links/home"),
		"where everybody can write":  at("open/home"),
		"root's folder in another's": at("theirs/.local"),
	} {
		for _, v := range []string{"XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"} {
			t.Setenv(v, "")
		}
		t.Setenv("HOME", home)
		for _, of := range []func() (string, error){State, Cache, Config} {
			if dir, err := of(); err == nil {
				t.Errorf("%s: %s", name, dir)
			}
		}
	}
	t.Setenv("XDG_STATE_HOME", at("links"))
	if dir, err := State(); err == nil {
		t.Errorf("a link that another user made: %s", dir)
	}
	t.Setenv("XDG_STATE_HOME", at("target"))
	if _, err := State(); err != nil {
		t.Errorf("a folder of root's own: %v", err)
	}
}
