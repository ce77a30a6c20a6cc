package undo

import (
	"errors"
	"os"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// beforeLink records one of the names of a file, as the share's server does when the name changes.
func (g *guest) beforeLink(path string, also ...string) *Entry {
	g.t.Helper()
	root, err := os.Open(g.dir)
	if err != nil {
		g.t.Fatal(err)
	}
	defer root.Close()
	g.rec.Names.RLock()
	defer g.rec.Names.RUnlock()
	return g.rec.Before(Source{FD: int(root.Fd()), Name: path, Also: func(*unix.Statx_t) []string { return also }}, path)[0]
}

// overwrite changes the file in place that has these names.
func (g *guest) overwrite(text string, names ...string) {
	g.t.Helper()
	f, err := os.OpenFile(g.path(names[0]), os.O_RDWR, 0)
	if err != nil {
		g.t.Fatal(err)
	}
	defer f.Close()
	g.rec.Names.RLock()
	entries := g.rec.Before(Source{FD: int(f.Fd())}, names...)
	g.rec.Names.RUnlock()
	var st unix.Statx_t
	_, werr := f.WriteAt([]byte(text), 0)
	if err := errors.Join(werr, unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, statMask, &st)); err != nil {
		g.t.Fatal(err)
	}
	for _, e := range entries {
		g.rec.After(e, &st)
	}
}

func (g *guest) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

// left notes how a path was left.
func (g *guest) left(e *Entry, name string) {
	g.t.Helper()
	var st unix.Statx_t
	g.must(unix.Statx(unix.AT_FDCWD, g.path(name), unix.AT_SYMLINK_NOFOLLOW, statMask, &st))
	g.rec.After(e, &st)
}

// names returns what is in the project's directory.
func (g *guest) names() (names []string) {
	g.t.Helper()
	entries, err := os.ReadDir(g.dir)
	g.must(err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func (g *guest) inode(name string) uint64 {
	g.t.Helper()
	fi, err := os.Lstat(g.path(name))
	if err != nil {
		g.t.Fatal(err)
	}
	return fi.Sys().(*syscall.Stat_t).Ino
}

// TestLinksComeBackAsLinks: names of one file are names of one file again after an undo, however
// the guest parted them.
func TestLinksComeBackAsLinks(t *testing.T) {
	for what, change := range map[string]func(*guest){
		"written in place": func(g *guest) { g.overwrite("new", "a", "b", "c") },
		"one name removed": func(g *guest) {
			e := g.beforeLink("b", "a", "b", "c")
			g.must(os.Remove(g.path("b")))
			g.rec.After(e, nil)
		},
		"one name replaced": func(g *guest) {
			g.write("b.new", "new")
			e := g.beforeLink("b", "a", "b", "c")
			g.must(os.Rename(g.path("b.new"), g.path("b")))
			g.left(e, "b")
		},
		"all names removed": func(g *guest) {
			for _, name := range []string{"a", "b", "c"} {
				e := g.beforeLink(name, "a", "b", "c")
				g.must(os.Remove(g.path(name)))
				g.rec.After(e, nil)
			}
		},
		"one removed, then the others written": func(g *guest) {
			e := g.beforeLink("b", "a", "b", "c")
			g.must(os.Remove(g.path("b")))
			g.rec.After(e, nil)
			g.overwrite("new", "a", "c")
		},
	} {
		t.Run(what, func(t *testing.T) {
			g := newGuest(t)
			g.must(os.WriteFile(g.path("a"), []byte("old"), 0o640))
			g.must(os.Link(g.path("a"), g.path("b")))
			g.must(os.Link(g.path("a"), g.path("c")))
			change(g)
			g.rec.Close()
			if res := g.undo(); len(res.Kept) > 0 {
				t.Errorf("kept: %v", res.Kept)
			}
			for _, name := range []string{"a", "b", "c"} {
				if b, err := os.ReadFile(g.path(name)); err != nil || string(b) != "old" {
					t.Errorf("%s: %q, %v", name, b, err)
				}
				if g.inode(name) != g.inode("a") {
					t.Errorf("%s is a file of its own", name)
				}
			}
			if names := g.names(); !slices.Equal(names, []string{"a", "b", "c"}) {
				t.Errorf("left: %q", names)
			}
		})
	}
}

// TestLinksOfTheHostStayApart: a name comes back as a file of its own where the host has changed
// the file under its other name since, or something else has that name.
func TestLinksOfTheHostStayApart(t *testing.T) {
	for what, change := range map[string]func(*guest){
		"written":   func(g *guest) { g.must(os.WriteFile(g.path("a"), []byte("host"), 0o644)) },
		"same size": func(g *guest) { g.must(os.WriteFile(g.path("a"), []byte("new"), 0o644)) },
		"replaced": func(g *guest) {
			g.must(errors.Join(os.Remove(g.path("a")), os.WriteFile(g.path("a"), []byte("old"), 0o644)))
		},
		"a link": func(g *guest) { g.must(errors.Join(os.Rename(g.path("a"), g.path("z")), os.Symlink("z", g.path("a")))) },
		"gone":   func(g *guest) { g.must(os.Remove(g.path("a"))) },
	} {
		t.Run(what, func(t *testing.T) {
			g := newGuest(t)
			g.must(os.WriteFile(g.path("a"), []byte("old"), 0o644))
			g.must(os.Link(g.path("a"), g.path("b")))
			e := g.beforeLink("b", "a", "b")
			g.must(os.Remove(g.path("b")))
			g.rec.After(e, nil)
			g.rec.Close()
			change(g)
			before, _ := os.ReadFile(g.path("a"))
			g.undo()
			if b, err := os.ReadFile(g.path("b")); err != nil || string(b) != "old" {
				t.Errorf("b: %q, %v", b, err)
			}
			if after, _ := os.ReadFile(g.path("a")); string(after) != string(before) {
				t.Errorf("a: %q, was %q", after, before)
			}
			if fi, err := os.Lstat(g.path("b")); err != nil || fi.Sys().(*syscall.Stat_t).Nlink != 1 {
				t.Errorf("b: %v, %v", fi, err)
			}
		})
	}
}
