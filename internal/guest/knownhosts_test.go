package guest

import (
	"os"
	"path/filepath"
	"testing"
)

// TestKnownHosts: the authority's line takes the place of an older one; the administrator's stay.
func TestKnownHosts(t *testing.T) {
	const line = "@cert-authority * ecdsa-sha2-nistp256 AAAA # written by bawn\n"
	for _, c := range []struct{ old, key, want string }{
		{"", "ecdsa-sha2-nistp256 AAAA\n", line},
		{"a.test ssh-ed25519 BBBB", "ecdsa-sha2-nistp256 AAAA", "a.test ssh-ed25519 BBBB\n" + line},
		{"@cert-authority * ssh-ed25519 OLD # written by bawn\na.test ssh-ed25519 BBBB\n", "ecdsa-sha2-nistp256 AAAA", "a.test ssh-ed25519 BBBB\n" + line},
		{"a.test ssh-ed25519 BBBB\n" + line, "", "a.test ssh-ed25519 BBBB\n"},
		{"", "", ""},
	} {
		file := filepath.Join(t.TempDir(), "ssh/known")
		if c.old != "" {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(c.old), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if err := knowHosts(file, []byte(c.key)); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(file); string(got) != c.want || err != nil && c.want != "" {
				t.Errorf("%q: %q, %v", c.old, got, err)
			}
		}
	}
}
