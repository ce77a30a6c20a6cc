package undo

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUndoOfManyFiles: what the guest unpacks in a session, a package manager's tree for
// example, is found and taken back as a whole.
func TestUndoOfManyFiles(t *testing.T) {
	const dirs, files = 5, 1000
	g := newGuest(t)
	g.host("kept", "kept")
	before := tree(t, g.dir)
	for d := range dirs {
		dir := fmt.Sprintf("node_modules/p%02d", d)
		if d == 0 {
			g.mkdir("node_modules")
		}
		g.mkdir(dir)
		fd, err := unix.Open(g.path(dir), dirFlags, 0)
		if err != nil {
			t.Fatal(err)
		}
		for f := range files {
			name := fmt.Sprintf("file-%04d.js", f)
			at := filepath.Join(dir, name)
			e := g.rec.beforeName(fd, name, at)
			out, err := openFile(fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
			if err != nil {
				t.Fatal(err)
			}
			out.Close()
			g.rec.afterName(e, fd, name)
		}
		unix.Close(fd)
	}
	s, root := g.open()
	c, err := s.Changes(root, 1)
	if err != nil || len(c.List) != dirs*files+dirs+1 || len(c.Notes) > 0 {
		t.Errorf("%d changes, %v, %v", len(c.List), c.Notes, err)
	}
	s.Close()
	res := g.undo()
	if len(res.Done) != dirs*files+dirs+1 || len(res.Kept) > 0 {
		t.Errorf("%d steps, and %d paths were kept", len(res.Done), len(res.Kept))
	}
	g.want("after the undo", before)
	if _, err := os.Lstat(g.path("node_modules")); err == nil {
		t.Error("the directory is left")
	}
}
