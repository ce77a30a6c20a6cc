package pathlink

import (
	"os"
	"slices"
	"testing"

	"bawn.dev/bawn/internal/wire"
)

func TestMake(t *testing.T) {
	root := t.TempDir()
	me := wire.User{Home: "/home/me", UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
	for _, dir := range []string{"/home/me", "/data/app", "/etc"} {
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(root+"/etc/passwd", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/shm", root+"/shm"); err != nil { // another file system
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, target string
		made         bool
		err          bool
	}{
		{"/home/me/via", "../../data", true, false},
		{"/home/me/deep/er/link", "/data", true, false},
		{"/home/me/via", "/etc", false, false}, // stays
		{"/etc/passwd", "/data", false, false},
		{"/etc/passwd/x", "/data", false, true},
		{"/shm/bawn-test-link", "/data", false, true},
		{"/data/../etc/x", "/data", false, true},
		{"relative", "/data", false, true},
		{"/data/none", "", false, true},
	} {
		err := Make(root, []wire.Link{{Path: c.path, Target: c.target}}, me)
		if (err != nil) != c.err {
			t.Errorf("%s: %v", c.path, err)
		}
		if got, err := os.Readlink(root + c.path); c.made && (err != nil || got != c.target) || !c.made && err == nil && got == c.target {
			t.Errorf("%s is a link to %q, %v", c.path, got, err)
		}
	}
	if !SameDirectory(root+"/home/me/via/app", root+"/data/app") || SameDirectory(root+"/data", root+"/etc") || SameDirectory(root+"/etc/passwd", root+"/etc/passwd") {
		t.Error("the same directory is not told from another")
	}
	many := slices.Repeat([]wire.Link{{Path: "relative", Target: "x"}}, MaxLinks)
	if err := Make(root, append(many, wire.Link{Path: "/data/beyond", Target: "x"}), me); err == nil {
		t.Error("no error")
	}
	if _, err := os.Lstat(root + "/data/beyond"); err == nil {
		t.Error("more links than the bound")
	}
}
