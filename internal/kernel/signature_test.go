package kernel

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestUnsign(t *testing.T) {
	const module, signature = "the module", "its signature"
	header := func(length byte) string { return strings.Repeat("\x00", 11) + string(rune(length)) }
	for _, c := range []struct{ name, in, want string }{
		{"signed", module + signature + header(byte(len(signature))) + signatureText, module},
		{"unsigned", module, module},
		{"unsigned, large", strings.Repeat(module, 100), strings.Repeat(module, 100)},
		{"empty", "", ""},
		{"nothing but a signature", signature + header(byte(len(signature))) + signatureText, ""},
		{"too long", module + header(100) + signatureText, "error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "m.ko")
			if err := os.WriteFile(path, []byte(c.in), 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := unsign(f, int64(len(c.in))); err != nil {
				if c.want != "error" {
					t.Fatal(err)
				}
				return
			}
			got, err := os.ReadFile(path)
			if err != nil || string(got) != c.want {
				t.Errorf("%q, %v: want %q", got, err, c.want)
			}
		})
	}
}
