package engine

import (
	"os"
	"path/filepath"
	"testing"
)

func TestInlineTerminfo(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("TERMINFO", "")
	t.Setenv("TERMINFO_DIRS", "")
	put := func(path string, b []byte) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	entry := append([]byte{0x1e, 0x02}, make([]byte, 10)...)
	put(home+"/.terminfo/b/bawn-test", entry)
	put(home+"/.terminfo/62/bawn-hex", entry)
	put(home+"/.terminfo/b/bawn-text", []byte("password = something"))
	put(home+"/.terminfo/b/bawn-long", append(entry, make([]byte, maxTerminfo)...))
	put(home+"/other/b/bawn-other", entry)
	for _, c := range []struct {
		name string
		want string
	}{
		{"bawn-test", "b64:HgIAAAAAAAAAAAAA"}, {"bawn-hex", "b64:HgIAAAAAAAAAAAAA"}, {"bawn-text", ""}, {"bawn-long", ""},
		{"bawn-none", ""}, {"", ""}, {"..", ""}, {"b/bawn-test", ""}, {"bawn-other", ""},
	} {
		if got := InlineTerminfo(c.name); got != c.want {
			t.Errorf("%q: %q", c.name, got)
		}
	}
	t.Setenv("TERMINFO", home+"/other")
	if got := InlineTerminfo("bawn-other"); got == "" {
		t.Error("the folder in TERMINFO is not searched")
	}
}
