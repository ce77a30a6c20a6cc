package sandbox

import (
	"strings"
	"testing"
)

func TestParseLocalDir(t *testing.T) {
	for text, want := range map[string]string{
		"node_modules": "node_modules", "./target/": "target", "a//b/../c": "a/c", ".venv": ".venv", ".gitx": ".gitx", "ü/with space": "ü/with space",
	} {
		if dir, err := ParseLocalDir(text); err != nil || dir != want {
			t.Errorf("%q: %q, %v", text, dir, err)
		}
	}
	for _, text := range []string{"", ".", "./", "/", "/abs", "..", "../x", "a/../..", "a/../../b", ".git", ".git/objects", "a\nb", "a\xff", "a\x00"} {
		if dir, err := ParseLocalDir(text); err == nil {
			t.Errorf("%q: %q", text, dir)
		}
	}
}

// TestLocalDirsOfSpec: no local directory lies in another one, since what is on the disk of the one
// would hide the other.
func TestLocalDirsOfSpec(t *testing.T) {
	for _, good := range [][]string{nil, {"a", "b"}, {"a/x", "a/y"}, {"a", "a-b"}} {
		if err := checkLocalDirs(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range [][]string{{"a", "a"}, {"a", "a/b"}, {"a/b", "a"}, {"/a"}, {"../a"}, {"a/"}, strings.Split(strings.Repeat("a ", MaxLocalDirs+1), " ")} {
		if err := checkLocalDirs(bad); err == nil {
			t.Errorf("%q", bad)
		}
	}
}
