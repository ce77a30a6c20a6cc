package undo

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// guest changes a project as the server of a share does: it records first.
type guest struct {
	t     *testing.T
	dir   string
	store string
	rec   *Recorder
}

func newGuest(t *testing.T) *guest {
	t.Helper()
	g := &guest{t: t, dir: t.TempDir(), store: t.TempDir()}
	fd, err := unix.Open(g.store, dirFlags, 0)
	if err != nil {
		t.Fatal(err)
	}
	g.rec = NewRecorder(fd, WhySession)
	t.Cleanup(func() { g.rec.Close(); unix.Close(fd) })
	return g
}

func (g *guest) path(name string) string { return filepath.Join(g.dir, name) }

// change records paths, changes them, and notes how they are left.
func (g *guest) change(do func() error, paths ...string) {
	g.t.Helper()
	var entries []*Entry
	for _, p := range paths {
		entries = append(entries, g.before(p))
	}
	if err := do(); err != nil {
		g.t.Fatal(err)
	}
	for i, p := range paths {
		var st unix.Statx_t
		if unix.Statx(unix.AT_FDCWD, g.path(p), unix.AT_SYMLINK_NOFOLLOW, statMask, &st) != nil {
			g.rec.After(entries[i], nil)
		} else {
			g.rec.After(entries[i], &st)
		}
	}
}

func (g *guest) before(path string) *Entry {
	g.t.Helper()
	d, name := filepath.Split(g.path(path))
	fd, err := unix.Open(d, dirFlags, 0)
	if err != nil {
		g.t.Fatal(err)
	}
	defer unix.Close(fd)
	g.rec.Names.RLock()
	defer g.rec.Names.RUnlock()
	return g.rec.Before(Source{FD: fd, Name: name}, path)[0]
}

func (g *guest) write(name, text string) {
	g.t.Helper()
	g.change(func() error { return os.WriteFile(g.path(name), []byte(text), 0o644) }, name)
}

func (g *guest) remove(name string) {
	g.t.Helper()
	g.change(func() error { return os.Remove(g.path(name)) }, name)
}

func (g *guest) mkdir(name string) {
	g.t.Helper()
	g.change(func() error { return os.Mkdir(g.path(name), 0o755) }, name)
}

func (g *guest) rename(from, to string) {
	g.t.Helper()
	fi, err := os.Lstat(g.path(from))
	if err != nil {
		g.t.Fatal(err)
	}
	if !fi.IsDir() {
		g.change(func() error { return os.Rename(g.path(from), g.path(to)) }, from, to)
		return
	}
	entry := g.before(to)
	g.rec.Names.Lock()
	defer g.rec.Names.Unlock()
	if err := os.Rename(g.path(from), g.path(to)); err != nil {
		g.t.Fatal(err)
	}
	g.rec.Moved(from, to, fi.Sys().(*syscall.Stat_t).Ino)
	g.rec.After(entry, nil)
}

func (g *guest) open() (*Store, *os.File) {
	g.t.Helper()
	s, err := Open(g.store)
	if err != nil {
		g.t.Fatal(err)
	}
	root, err := os.Open(g.dir)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { root.Close() })
	return s, root
}

// undo goes back to the last restore point, and then begins another one as a session does.
func (g *guest) undo(paths ...string) *Result {
	g.t.Helper()
	s, root := g.open()
	defer s.Close()
	points, err := s.Points()
	if err != nil {
		g.t.Fatal(err)
	}
	q := Request{To: Last(points), Paths: paths}
	plan, err := s.Plan(root, q)
	if err != nil {
		g.t.Fatal(err)
	}
	res, err := s.Apply(root, q, plan)
	if err != nil {
		g.t.Fatal(err)
	}
	g.rec.Mark(WhySession)
	return res
}

// tree describes a project: each path with type, mode, contents and, of files, time.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		line := fmt.Sprintf("%s %v", strings.TrimPrefix(p, dir), fi.Mode())
		switch {
		case fi.Mode().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %q %d", b, fi.ModTime().UnixNano())
		case fi.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			line += " " + to
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

func (g *guest) want(what, tree1 string) {
	g.t.Helper()
	if now := tree(g.t, g.dir); now != tree1 {
		g.t.Errorf("%s: there is\n%s\nand not\n%s", what, now, tree1)
	}
}

func (g *guest) host(name, text string) {
	g.t.Helper()
	if err := os.MkdirAll(filepath.Dir(g.path(name)), 0o755); err != nil {
		g.t.Fatal(err)
	}
	if err := os.WriteFile(g.path(name), []byte(text), 0o644); err != nil {
		g.t.Fatal(err)
	}
}

func TestUndo(t *testing.T) {
	for name, change := range map[string]func(g *guest){
		"a file is written": func(g *guest) { g.write("a", "new"); g.write("a", "newer") },
		"a file is removed": func(g *guest) { g.remove("d/b") },
		"a file is made":    func(g *guest) { g.write("n", "x") },
		"a file is renamed": func(g *guest) { g.rename("a", "n") },
		"a file replaces another": func(g *guest) {
			g.write("a.tmp", "new")
			g.rename("a.tmp", "a")
		},
		"a mode": func(g *guest) { g.change(func() error { return os.Chmod(g.path("a"), 0o755) }, "a") },
		"a directory is made": func(g *guest) {
			g.mkdir("n")
			g.write("n/x", "x")
			g.mkdir("n/m")
			g.write("n/m/y", "y")
		},
		"a directory is removed": func(g *guest) { g.remove("d/b"); g.remove("d/link"); g.remove("d/e/c"); g.remove("d/e"); g.remove("d") },
		"a directory is renamed": func(g *guest) { g.rename("d", "n"); g.write("n/b", "new"); g.write("n/new", "x") },
		"a directory is renamed and made again": func(g *guest) {
			g.write("d/b", "before")
			g.rename("d", "n")
			g.mkdir("d")
			g.write("d/b", "other")
			g.write("n/e/c", "after")
		},
		"two renames": func(g *guest) { g.rename("d/e", "e"); g.rename("d", "n"); g.rename("n", "e/n"); g.write("e/n/b", "x") },
		"directories change places": func(g *guest) {
			g.rename("d", "tmp")
			g.rename("f", "d")
			g.rename("tmp", "f")
			g.write("f/b", "x")
		},
		"a directory that was made is renamed": func(g *guest) { g.mkdir("n"); g.write("n/x", "x"); g.rename("n", "m"); g.write("m/y", "y") },
		"a file becomes a directory":           func(g *guest) { g.remove("a"); g.mkdir("a"); g.write("a/x", "x") },
		"a directory becomes a file":           func(g *guest) { g.remove("f/g"); g.remove("f"); g.write("f", "x") },
		"a link is changed": func(g *guest) {
			g.remove("d/link")
			g.change(func() error { return os.Symlink("/etc/passwd", g.path("d/link")) }, "d/link")
		},
		"a directory becomes a link": func(g *guest) {
			g.remove("f/g")
			g.remove("f")
			g.change(func() error { return os.Symlink("d", g.path("f")) }, "f")
		},
		"an odd name": func(g *guest) { g.write("\xff\n\"", "x"); g.rename("d", "\xfe") },
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t)
			g.host("a", "a")
			g.host("d/b", "b")
			g.host("d/e/c", "c")
			g.host("f/g", "g")
			if err := os.Symlink("../a", g.path("d/link")); err != nil {
				t.Fatal(err)
			}
			before := tree(t, g.dir)
			change(g)
			changed := tree(t, g.dir)
			if res := g.undo(); len(res.Kept) > 0 {
				t.Errorf("kept: %v", res.Kept)
			}
			g.want("after undo", before)
			if res := g.undo(); len(res.Kept) > 0 {
				t.Errorf("kept by the second undo: %v", res.Kept)
			}
			g.want("after the undo of the undo", changed)
		})
	}
}

// TestUndoOfManyChanges makes changes at random, in several sessions, and goes back over
// all.
func TestUndoOfManyChanges(t *testing.T) {
	for seed := range uint64(40) {
		g := newGuest(t)
		rnd := rand.New(rand.NewPCG(seed, 1))
		for i := range 6 {
			g.host(fmt.Sprintf("d%d/e%d/f%d", i%2, i%3, i), fmt.Sprint(i))
		}
		before := tree(t, g.dir)
		for i := range 60 {
			g.random(rnd, i)
			if rnd.IntN(20) == 0 {
				g.rec.Mark(WhyStart)
			}
		}
		if res := g.undo(); len(res.Kept) > 0 {
			t.Fatalf("seed %d: kept %v", seed, res.Kept)
		}
		g.want(fmt.Sprintf("seed %d", seed), before)
		if t.Failed() {
			return
		}
	}
}

// random makes one change.
func (g *guest) random(rnd *rand.Rand, i int) {
	g.t.Helper()
	var files, dirs []string
	_ = filepath.WalkDir(g.dir, func(p string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(g.dir, p)
		switch {
		case err != nil || rel == ".":
		case d.IsDir():
			dirs = append(dirs, rel)
		default:
			files = append(files, rel)
		}
		return nil
	})
	pick := func(list []string) string {
		if len(list) == 0 {
			return ""
		}
		return list[rnd.IntN(len(list))]
	}
	dir, file := pick(append(dirs, "")), pick(files)
	// Few names, so that they are used again.
	fresh := join(dir, fmt.Sprintf("n%d", rnd.IntN(4)))
	_, err := os.Lstat(g.path(fresh))
	free := err != nil
	switch rnd.IntN(7) {
	case 0:
		if file != "" {
			g.write(file, fmt.Sprint("changed ", i))
		}
	case 1:
		if free {
			g.write(fresh, fmt.Sprint(i))
		}
	case 2:
		if free {
			g.mkdir(fresh)
		}
	case 3:
		if file != "" {
			g.remove(file)
		}
	case 4:
		if from := pick(dirs); from != "" && free && !within(from, fresh) {
			g.rename(from, fresh)
		} else if from != "" {
			if list, err := os.ReadDir(g.path(from)); err == nil && len(list) == 0 {
				g.remove(from)
			}
		}
	case 5:
		if file != "" && (free || slices.Contains(files, fresh)) && file != fresh {
			g.rename(file, fresh)
		}
	case 6:
		if a, b := pick(dirs), pick(append(dirs, files...)); a != "" && !within(a, b) {
			g.exchange(a, b)
		}
	}
}

// exchange exchanges two paths, of which one at least is a directory.
func (g *guest) exchange(a, b string) {
	g.t.Helper()
	x, y := g.inode(a), g.inode(b)
	g.rec.Names.Lock()
	defer g.rec.Names.Unlock()
	g.must(unix.Renameat2(unix.AT_FDCWD, g.path(a), unix.AT_FDCWD, g.path(b), unix.RENAME_EXCHANGE))
	g.rec.Swapped(a, b, x, y)
}

func TestWhatTheHostChangedStays(t *testing.T) {
	g := newGuest(t)
	g.host("a", "a")
	g.host("b", "b")
	g.write("a", "guest")
	g.write("b", "guest")
	g.write("new", "guest")
	g.mkdir("dir")
	g.write("dir/x", "guest")
	g.rec.Sync()
	g.host("a", "the person's own work")
	g.host("new", "the person's own work")
	g.host("dir/mine", "mine")
	res := g.undo()
	for name, want := range map[string]string{"a": "the person's own work", "new": "the person's own work", "dir/mine": "mine", "b": "b"} {
		if b, err := os.ReadFile(g.path(name)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if _, err := os.Lstat(g.path("dir/x")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("dir/x is still there")
	}
	var kept []string
	for _, k := range res.Kept {
		kept = append(kept, k.Path)
	}
	slices.Sort(kept)
	if want := []string{"a", "dir", "new"}; !slices.Equal(kept, want) {
		t.Errorf("kept %v, not %v", res.Kept, want)
	}
}

func TestWhatIsNamedIsUndone(t *testing.T) {
	g := newGuest(t)
	g.host("a", "a")
	g.host("b", "b")
	g.write("a", "guest")
	g.write("b", "guest")
	g.host("a", "the host's")
	if res := g.undo("a"); len(res.Done) != 1 || len(res.Kept) != 0 {
		t.Errorf("%+v", res)
	}
	for name, want := range map[string]string{"a": "a", "b": "guest"} {
		if b, err := os.ReadFile(g.path(name)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
}

// TestAKilledUndoGoesOn stops an undo after each of its steps.
func TestAKilledUndoGoesOn(t *testing.T) {
	for stop := range 8 {
		g := newGuest(t)
		g.host("a", "a")
		g.host("d/b", "b")
		g.host("d/c", "c")
		before := tree(t, g.dir)
		g.write("a", "x")
		g.rename("d", "n")
		g.write("n/b", "x")
		g.write("n/new", "x")
		g.remove("n/c")
		s, root := g.open()
		q := Request{To: 1}
		plan, err := s.Plan(root, q)
		if err != nil {
			t.Fatal(err)
		}
		cut := *plan
		cut.Steps = plan.Steps[:min(stop, len(plan.Steps))]
		if err := s.begin(&underWay{To: 1, Before: 2, Token: newToken()}); err != nil {
			t.Fatal(err)
		}
		m, err := openMarks(s.fd)
		if err != nil {
			t.Fatal(err)
		}
		a := &applier{store: s, root: root, temp: ".bawn-undo-0", rec: NewRecorder(s.fd, WhyUndo), marks: m, linked: map[uint64]name{}, res: &Result{}, under: &underWay{To: 1, Before: 2, Token: newToken()}}
		if err := a.steps(&cut); err != nil {
			t.Fatal(err)
		}
		s.Close() // killed here

		s, root = g.open()
		again, err := s.Unfinished()
		if err != nil || again == nil {
			t.Fatal(again, err)
		}
		if plan, err = s.Plan(root, *again); err != nil {
			t.Fatal(err)
		}
		res, err := s.Apply(root, *again, plan)
		if err != nil || len(res.Kept) > 0 {
			t.Errorf("stopped after %d: %+v, %v", stop, res, err)
		}
		g.want(fmt.Sprint("stopped after ", stop), before)
		if len(plan.Steps) > 0 {
			if again, err = s.Unfinished(); again != nil || err != nil {
				t.Errorf("the undo is still unfinished: %v, %v", again, err)
			}
		}
		s.Close()
	}
}

// TestAnInterruptedRestoreLeavesNoFile: what a killed undo left under its temporary name goes.
func TestAnInterruptedRestoreLeavesNoFile(t *testing.T) {
	g := newGuest(t)
	g.host("a", "a")
	before := tree(t, g.dir)
	g.write("a", "x")
	s, root := g.open()
	defer s.Close()
	token := newToken()
	if err := s.begin(&underWay{To: 1, Before: 2, Token: token}); err != nil {
		t.Fatal(err)
	}
	g.host(".bawn-undo-"+token, "half of")
	q, err := s.Unfinished()
	if err != nil {
		t.Fatal(err)
	}
	plan, err := s.Plan(root, *q)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply(root, *q, plan); err != nil {
		t.Fatal(err)
	}
	g.want("after the second undo", before)
}

func TestUndoGoesThroughNoLink(t *testing.T) {
	g := newGuest(t)
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "b"), []byte("outside"), 0o600); err != nil {
		t.Fatal(err)
	}
	g.host("d/b", "inside")
	g.write("d/b", "guest")
	g.write("d/new", "guest")
	if err := os.RemoveAll(g.path("d")); err != nil { // and the guest puts a link there, unrecorded
		t.Fatal(err)
	}
	if err := os.Symlink(outside, g.path("d")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(outside, "new"), []byte("outside"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, root := g.open()
	defer s.Close()
	q := Request{To: 1, Paths: []string{"d"}} // named, so nothing protects it but the walk
	plan, err := s.Plan(root, q)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply(root, q, plan); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"b", "new"} {
		if b, err := os.ReadFile(filepath.Join(outside, name)); err != nil || string(b) != "outside" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
}

func TestTornAndDamagedRecords(t *testing.T) {
	for name, tail := range map[string]string{"torn": `{"o":"was","n":7,"p":"YQ=`, "damaged": "\x00\x00\x00\n", "forged": `{"o":"was","n":1,"p":"Li4vYQ==","s":{"k":"absent"}}` + "\n"} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t)
			g.host("a", "a")
			before := tree(t, g.dir)
			g.write("a", "x")
			f, err := os.OpenFile(filepath.Join(g.store, folderName(1), journalName), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteString(tail); err != nil {
				t.Fatal(err)
			}
			f.Close()
			g.undo()
			g.want("after undo", before)
		})
	}
}

func TestSetUserIDIsNotRestored(t *testing.T) {
	g := newGuest(t)
	g.host("a", "a")
	if err := os.Chmod(g.path("a"), 0o755|fs.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	g.remove("a")
	g.undo()
	fi, err := os.Lstat(g.path("a"))
	if err != nil || fi.Mode() != 0o755 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
}

func TestPointsAreBounded(t *testing.T) {
	g := newGuest(t)
	for i := range MaxPoints + 3 {
		g.write("a", fmt.Sprint(i))
		g.rec.Mark(WhySession)
		g.rec.Mark(WhySession) // nothing changed: it takes no room
	}
	s, _ := g.open()
	points, err := s.Points()
	s.Close()
	if err != nil || len(points) != MaxPoints || points[0].Number != 4 {
		t.Errorf("%d points, %v", len(points), err)
	}
	journal := filepath.Join(g.store, folderName(4), journalName)
	b, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "\n")
	old, err := (&record{Op: opPoint, At: time.Now().Add(-MaxAge - time.Hour).UnixNano()}).line()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(journal, append(old, rest...), 0o600); err != nil {
		t.Fatal(err)
	}
	g.write("a", "x")
	if _, err := os.Lstat(filepath.Dir(journal)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a point of %v is kept: %v", MaxAge, err)
	}
}

func TestWhatIsTooMuchIsSaid(t *testing.T) {
	g := newGuest(t)
	f, err := os.Create(g.path("large"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(MaxFile + 1); err != nil {
		t.Fatal(err)
	}
	probe, err := os.Create(filepath.Join(g.store, "probe"))
	if err != nil {
		t.Fatal(err)
	}
	defer probe.Close()
	if unix.IoctlFileClone(int(probe.Fd()), int(f.Fd())) == nil {
		t.Skip("this file system clones")
	}
	g.write("large", "x")
	res := g.undo()
	if len(res.Kept) != 1 || !strings.Contains(res.Kept[0].Why, "not kept") {
		t.Errorf("%+v", res.Kept)
	}
}

// FuzzJournal reads any bytes as a journal and plans an undo by it.
func FuzzJournal(f *testing.F) {
	f.Add([]byte(`{"o":"point","at":1}` + "\n" + `{"o":"was","p":"YQ==","s":{"k":"file","z":1,"b":"f1"}}` + "\n" + `{"o":"moved","p":"YQ==","to":"Yg=="}` + "\n"))
	f.Add([]byte(`{"o":"point"}` + "\n" + `{"o":"was","p":"Li4vLi4=","s":{"k":"absent"}}` + "\n"))
	f.Fuzz(func(t *testing.T, journal []byte) {
		store, dir := t.TempDir(), t.TempDir()
		folder := filepath.Join(store, folderName(1))
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, b := range map[string][]byte{journalName: journal, afterName: nil} {
			if err := os.WriteFile(filepath.Join(folder, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s, err := Open(store)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		root, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		plan, err := s.Plan(root, Request{To: 1})
		if err != nil {
			return
		}
		for _, step := range plan.Steps {
			if checkPath(step.Path) != nil {
				t.Errorf("a step at %q", step.Path)
			}
		}
	})
}
