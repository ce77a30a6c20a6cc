package undo

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func (g *guest) reading() (*Store, *os.File) {
	g.t.Helper()
	s, err := OpenToRead(g.store)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(s.Close)
	root, err := os.Open(g.dir)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { root.Close() })
	return s, root
}

func (g *guest) changes() map[string]string {
	g.t.Helper()
	s, root := g.reading()
	c, err := s.Changes(root, 1)
	if err != nil {
		g.t.Fatal(err)
	}
	list := map[string]string{}
	for _, c := range c.List {
		what := fmt.Sprintf("%s>%s", c.Was.Kind, c.Now.Kind)
		if c.From != "" {
			what = "from " + c.From
		}
		if c.Accepted {
			what += " accepted"
		}
		list[c.Path] = what
	}
	return list
}

func (g *guest) differs(want map[string]string) {
	g.t.Helper()
	got := g.changes()
	for path, what := range want {
		if got[path] != what {
			g.t.Errorf("%s: %q, want %q", path, got[path], what)
		}
	}
	for path, what := range got {
		if want[path] == "" {
			g.t.Errorf("%s: %q is no change", path, what)
		}
	}
}

// TestChanges: what was made, changed, removed and moved is there, with the contents from before;
// what holds again what it did is not.
func TestChanges(t *testing.T) {
	g := newGuest(t)
	for _, name := range []string{"same", "was", "gone", "mode", "touched"} {
		if err := os.WriteFile(g.path(name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(g.path("dir/sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	g.write("new", "x")
	g.write("same", "other")
	g.write("same", "same")
	g.write("was", "is now")
	g.remove("gone")
	g.change(func() error { return os.Chmod(g.path("mode"), 0o755) }, "mode")
	g.change(func() error { return os.Chtimes(g.path("touched"), time.Unix(1, 0), time.Unix(1, 0)) }, "touched")
	g.change(func() error { return os.Symlink("/etc", g.path("link")) }, "link")
	g.differs(map[string]string{"new": "absent>file", "was": "file>file", "gone": "file>absent", "mode": "file>file", "link": "absent>link"})

	s, root := g.reading()
	c, err := s.Changes(root, 1)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(c.List, func(c Change) bool { return c.Path == "was" })
	f, err := s.Contents(&c.List[i])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := io.ReadAll(f); err != nil || string(b) != "was" {
		t.Errorf("contents from before: %q, %v", b, err)
	}
}

// TestTimesPutBack: a guest that writes as many bytes and puts the times back hides nothing, from
// a review or from an undo.
func TestTimesPutBack(t *testing.T) {
	g := newGuest(t)
	if err := os.WriteFile(g.path("f"), []byte("good"), 0o644); err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1_700_000_000, 0)
	if err := os.Chtimes(g.path("f"), at, at); err != nil {
		t.Fatal(err)
	}
	g.change(func() error {
		return errors.Join(os.WriteFile(g.path("f"), []byte("evil"), 0o644), os.Chtimes(g.path("f"), at, at))
	}, "f")
	g.differs(map[string]string{"f": "file>file"})
	s, root := g.reading()
	p, err := s.Plan(root, Request{To: 1})
	if err != nil || len(p.Steps) != 1 || p.Steps[0].Path != "f" {
		t.Errorf("the undo: %+v, %v", p, err)
	}
}

// TestChangesHost: a path that the host changed after the guest is shown too: a guest may have
// made it look so.
func TestChangesHost(t *testing.T) {
	g := newGuest(t)
	g.write("f", "guest")
	if err := os.WriteFile(g.path("f"), []byte("host's"), 0o644); err != nil {
		t.Fatal(err)
	}
	g.differs(map[string]string{"f": "absent>file"})
}

// TestTouched: paths of points that began since a time, each once and up to a number.
func TestTouched(t *testing.T) {
	g := newGuest(t)
	g.write("old", "x")
	g.rec.Mark(WhySession)
	began := time.Now()
	g.rec.Mark(WhySession)
	g.write("a", "x")
	g.write("a", "y")
	g.write("b", "x")
	s, root := g.reading()
	for _, test := range []struct {
		most int
		want string
		more bool
	}{{10, "a b", false}, {2, "a b", false}, {1, "a", true}} {
		list, more, err := s.Touched(root, began, test.most)
		var got []string
		for _, c := range list {
			got = append(got, c.Path)
		}
		if err != nil || strings.Join(got, " ") != test.want || more != test.more {
			t.Errorf("%d: %v, %v, %v", test.most, got, more, err)
		}
	}
}

// put puts a file in the place of what a path holds now.
func (g *guest) put(at, text string, change func(Seen) Seen) (point int, err error) {
	g.t.Helper()
	s, err := Open(g.store)
	if err != nil {
		g.t.Fatal(err)
	}
	defer s.Close()
	root, err := os.Open(g.dir)
	if err != nil {
		g.t.Fatal(err)
	}
	defer root.Close()
	seen, _, err := Look(root, at, 1<<20)
	if err != nil {
		return 0, err
	}
	if change != nil {
		seen = change(seen)
	}
	p, err := NewPutter(root, s, true, 1<<20)
	if err != nil {
		return 0, err
	}
	err = p.Put(at, seen, Replacement{Kind: File, Mode: 0o755, Data: []byte(text)})
	return p.Close(), err
}

// TestPut: a file is replaced and made, with the directories on its way; the old one is kept for
// an undo; and it counts as accepted, not as the guest's.
func TestPut(t *testing.T) {
	g := newGuest(t)
	if err := os.WriteFile(g.path("f"), []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	g.write("other", "x")
	for _, at := range []string{"f", "a/b/g"} {
		point, err := g.put(at, "new", nil)
		if err != nil || point < 2 {
			t.Fatalf("%s: point %d, %v", at, point, err)
		}
		b, err := os.ReadFile(g.path(at))
		fi, serr := os.Stat(g.path(at))
		if err != nil || serr != nil || string(b) != "new" || fi.Mode().Perm() != 0o755 {
			t.Errorf("%s: %q, %v, %v", at, b, fi.Mode(), err)
		}
	}
	g.differs(map[string]string{"other": "absent>file", "f": "file>file accepted", "a": "absent>dir accepted", "a/b": "absent>dir accepted", "a/b/g": "absent>file accepted"})
	noTemp(t, g.dir)

	s, err := Open(g.store)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, root := g.reading()
	points, err := s.Points()
	if err != nil || LastSession(points) != 1 {
		t.Errorf("last session: %d, %v", LastSession(points), err)
	}
	q := Request{To: 2} // each Putter made a point of its own
	p, err := s.Plan(root, q)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply(root, q, p); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(g.path("f")); err != nil || string(b) != "old" {
		t.Errorf("after the undo: %q, %v", b, err)
	}
	if _, err := os.Lstat(g.path("a")); err == nil {
		t.Error("a is still there")
	}
}

// TestAttackAChangeOfWhatWasAccepted: the guest changes a path after the person has taken its version over. That is not
// what the person has seen.
func TestAttackAChangeOfWhatWasAccepted(t *testing.T) {
	g := newGuest(t)
	g.host("f", "old")
	g.write("other", "x")
	if _, err := g.put("f", "seen", nil); err != nil {
		t.Fatal(err)
	}
	g.rec.Mark(WhySession)
	g.write("f", "evil")
	g.differs(map[string]string{"other": "absent>file", "f": "file>file"})
}

// noTemp fails if a temporary file is left.
func noTemp(t *testing.T, dir string) {
	t.Helper()
	_ = filepath.WalkDir(dir, func(path string, _ os.DirEntry, _ error) error {
		if strings.HasPrefix(filepath.Base(path), TempPrefix) {
			t.Errorf("%s is left", path)
		}
		return nil
	})
}

// TestPutNotAsSeen: what was changed since it was shown stays, whatever it is now.
func TestPutNotAsSeen(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("outside"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		before string // contents; none: it is not there
		change func(path string) error
	}{
		{"contents", "old", func(p string) error { return os.WriteFile(p, []byte("odd"), 0o644) }},
		{"mode", "old", func(p string) error { return os.Chmod(p, 0o755) }},
		{"gone", "old", os.Remove},
		{"link", "old", func(p string) error { return errors.Join(os.Remove(p), os.Symlink(outside, p)) }},
		{"directory", "old", func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o755)) }},
		{"fifo", "old", func(p string) error { return errors.Join(os.Remove(p), unix.Mkfifo(p, 0o644)) }},
		{"made", "", func(p string) error { return os.WriteFile(p, []byte("odd"), 0o644) }},
		{"parent is a link", "", func(p string) error {
			return errors.Join(os.Remove(filepath.Dir(p)), os.Symlink(filepath.Dir(outside), filepath.Dir(p)))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newGuest(t)
			if err := os.Mkdir(g.path("d"), 0o755); err != nil {
				t.Fatal(err)
			}
			path := g.path("d/f")
			if test.before != "" {
				if err := os.WriteFile(path, []byte(test.before), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			_, err := g.put("d/f", "new", func(s Seen) Seen {
				if err := test.change(path); err != nil {
					t.Fatal(err)
				}
				return s
			})
			if err == nil {
				t.Error("it was replaced")
			}
			if b, _ := os.ReadFile(outside); string(b) != "outside" {
				t.Errorf("a link was followed: %q", b)
			}
			if fi, err := os.Lstat(path); err == nil && fi.Mode().IsRegular() {
				if b, _ := os.ReadFile(path); string(b) == "new" {
					t.Error("it holds the new contents")
				}
			}
			noTemp(t, g.dir)
			if _, err := os.Lstat(filepath.Join(filepath.Dir(outside), "f")); err == nil {
				t.Error("a file was made behind a link")
			}
		})
	}
}
