package xdg

import "testing"

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
