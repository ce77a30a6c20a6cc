package engine

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"bawn.dev/bawn/internal/wire"
)

func TestLinksOnTheWay(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"/data/projects/app", "/home"} {
		if err := os.MkdirAll(root+d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"/home/via": "../data/all", "/data/all": root + "/data/projects", "/home/loop": "loop"} {
		if err := os.Symlink(target, root+link); err != nil {
			t.Fatal(err)
		}
	}
	via, all := wire.Link{Path: root + "/home/via", Target: "../data/all"}, wire.Link{Path: root + "/data/all", Target: root + "/data/projects"}
	for _, c := range []struct {
		path string
		want []wire.Link
	}{
		{"/home/via/app", []wire.Link{via, all}},
		{"/data/all", []wire.Link{all}},
		{"/data/projects/app", nil},
		{"/home/none/x", nil},
	} {
		if got := Links(root + c.path); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v", c.path, got)
		}
	}
	if got := Links(root + "/home/loop"); len(got) != maxLinks {
		t.Errorf("a loop has %d links", len(got))
	}
	t.Chdir(root + "/data/projects/app")
	for _, c := range []struct {
		pwd string
		ok  bool
	}{
		{root + "/home/via/app", true}, {root + "/data/projects/app", true}, {root + "/home", false}, {"", false}, {".", false},
		{root + "/home/via/../via/app", false}, {root + "/none", false},
	} {
		t.Setenv("PWD", c.pwd)
		if dir, ok := LogicalDir(); ok != c.ok || ok && dir != c.pwd {
			t.Errorf("PWD=%s: %s, %v", c.pwd, dir, ok)
		}
	}
}
