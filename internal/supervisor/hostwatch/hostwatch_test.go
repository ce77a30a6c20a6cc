package hostwatch

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func newTest(t *testing.T, max int) *Watch {
	t.Helper()
	w, err := New(max, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// await returns the changes that are reported, one "dir/name event..." each, once all of want
// were.
func await(t *testing.T, w *Watch, want ...string) {
	t.Helper()
	got := map[string]uint32{} // a slow machine may see one change in several batches
	missing := func() bool {
		var all []string
		for name, mask := range got {
			name, from, _ := strings.Cut(name, " of ")
			if from != "" {
				from = " of " + from
			}
			all = append(all, name+masks(mask)+from)
		}
		return slices.ContainsFunc(want, func(s string) bool { return !slices.Contains(all, s) })
	}
	for missing() {
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, changes, err := w.Next()
			if err != nil {
				return
			}
			for _, c := range changes {
				s := filepath.Join(string(c.Dir), string(c.Name))
				if c.Renamed {
					s += " of " + filepath.Join(string(c.FromDir), string(c.FromName))
				}
				got[s] |= c.Mask
			}
		}()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Fatalf("want %q", want)
		}
	}
}

func masks(mask uint32) (s string) {
	for _, m := range []struct {
		bit  uint32
		name string
	}{
		{unix.IN_CREATE, "create"}, {unix.IN_DELETE, "delete"}, {unix.IN_MOVED_FROM, "from"}, {unix.IN_MOVED_TO, "to"},
		{unix.IN_MODIFY, "modify"}, {unix.IN_CLOSE_WRITE, "close"}, {unix.IN_ATTRIB, "attrib"}, {unix.IN_ISDIR, "dir"},
	} {
		if mask&m.bit != 0 {
			s += " " + m.name
		}
	}
	return s
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func set(t *testing.T, w *Watch, root string, since time.Time, dirs ...string) {
	t.Helper()
	var list [][]byte
	for _, d := range dirs {
		list = append(list, []byte(d))
	}
	must(t, w.Set(0, root, list, since))
}

func write(t *testing.T, path string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte("x"), 0o644))
}

func TestChangesOfWatchedDirectories(t *testing.T) {
	root := t.TempDir()
	at := func(p string) string { return filepath.Join(root, p) }
	must(t, os.MkdirAll(at("d/e"), 0o755), os.Mkdir(at("u"), 0o755))
	w := newTest(t, 100)
	set(t, w, root, time.Now().Add(time.Hour), "d", "d/e")
	write(t, at("d/f"))
	write(t, at("u/f")) // not watched
	await(t, w, "d/f create modify close")
	must(t, os.Chmod(at("d/f"), 0o600))
	await(t, w, "d/f attrib")
	must(t, os.Rename(at("d/f"), at("d/e/g")))
	await(t, w, "d/e/g to of d/f")
	write(t, at("d/t"))
	must(t, os.Rename(at("d/t"), at("d/e/g")))
	await(t, w, "d/e/g to of d/t")
	must(t, os.Rename(at("u/f"), at("d/f")))
	await(t, w, "d/f to")
	must(t, os.Rename(at("d/f"), at("u/f")))
	await(t, w, "d/f from")
	must(t, os.Remove(at("d/e/g")))
	await(t, w, "d/e/g delete")
	must(t, os.Rename(at("d/e"), at("d/h")))
	await(t, w, "d/h to dir of d/e")
	write(t, at("d/h/f"))
	await(t, w, "d/h/f create modify close")
	must(t, os.RemoveAll(at("d/h")))
	await(t, w, "d/h/f delete", "d/h delete dir")
	must(t, os.MkdirAll(at("d/n/m"), 0o755))
	write(t, at("d/n/m/f"))
	await(t, w, "d/n create dir", "d/n/m create dir", "d/n/m/f create modify close")
}

func TestWhatChangedBeforeTheWatch(t *testing.T) {
	root := t.TempDir()
	at := func(p string) string { return filepath.Join(root, p) }
	must(t, os.Mkdir(at("d"), 0o755))
	write(t, at("d/old"))
	old := time.Now().Add(-time.Hour)
	must(t, os.Chtimes(at("d/old"), old, old))
	w := newTest(t, 100)
	set(t, w, root, time.Now().Add(-time.Minute), "d")
	await(t, w, "d delete", "d/old create modify close")
}

func TestWatchesAreBounded(t *testing.T) {
	root := t.TempDir()
	var dirs []string
	for i := range 10 {
		dirs = append(dirs, fmt.Sprint(i))
		must(t, os.Mkdir(filepath.Join(root, dirs[i]), 0o755))
	}
	var log strings.Builder
	w, err := New(4, slog.New(slog.NewTextHandler(&log, nil)))
	must(t, err)
	defer w.Close()
	set(t, w, root, time.Now(), dirs...)
	if n := len(w.wds); n != 4 || strings.Count(log.String(), "limit=4") != 1 {
		t.Errorf("%d are watched; %s", n, log.String())
	}
	set(t, w, root, time.Now())
	if len(w.wds) != 0 || len(w.places) != 0 {
		t.Errorf("watched still: %v, %v", w.wds, w.places)
	}
}

// TestTheWayToAWatchedDirectory: a directory above it is renamed and removed.
func TestTheWayToAWatchedDirectory(t *testing.T) {
	root := t.TempDir()
	at := func(p string) string { return filepath.Join(root, p) }
	must(t, os.MkdirAll(at("a/b/d"), 0o755), os.MkdirAll(at("a/other"), 0o755))
	w := newTest(t, 100)
	set(t, w, root, time.Now().Add(time.Hour), "a/b/d")
	write(t, at("a/f")) // nobody watches it
	must(t, os.Rename(at("a/other"), at("a/another")))
	must(t, os.Rename(at("a/b"), at("a/c")))
	await(t, w, "a/c to dir of a/b")
	write(t, at("a/c/d/f"))
	await(t, w, "a/c/d/f create modify close")
	must(t, os.Rename(at("a"), at("z")))
	await(t, w, "z to dir of a")
	write(t, at("z/c/d/g"))
	await(t, w, "z/c/d/g create modify close")
	set(t, w, root, time.Now().Add(time.Hour), "z/c", "z/c/d")
	write(t, at("z/c/f"))
	await(t, w, "z/c/f create modify close")
	must(t, os.RemoveAll(at("z/c")))
	await(t, w, "z/c delete dir", "z/c/d delete dir")
	set(t, w, root, time.Now().Add(time.Hour))
	if len(w.wds) != 0 || len(w.ways) != 0 {
		t.Errorf("watched still: %v, %v", w.wds, w.ways)
	}
}

// TestNoChangeIsDropped lets the kernel drop events, and finds more changes than may be noted.
func TestNoChangeIsDropped(t *testing.T) {
	root := t.TempDir()
	at := func(p string) string { return filepath.Join(root, p) }
	var dirs, want []string
	for i := range 30 {
		d := fmt.Sprint(i)
		dirs = append(dirs, d)
		must(t, os.Mkdir(at(d), 0o755))
	}
	w := newTest(t, 100)
	w.maxFound = 3
	w.drained = time.Now().Add(-time.Minute)
	set(t, w, root, time.Now().Add(time.Hour), dirs...)
	for _, d := range dirs {
		for i := range 3 {
			f := fmt.Sprintf("%s/f%d", d, i)
			write(t, at(f))
			want = append(want, f+" create modify close")
		}
	}
	w.mu.Lock()
	for b := make([]byte, 64<<10); ; { // as the kernel does when its queue is full
		if n, err := w.read(b); err != nil || n == 0 {
			break
		}
	}
	overflow := make([]byte, unix.SizeofInotifyEvent)
	binary.NativeEndian.PutUint32(overflow[4:], unix.IN_Q_OVERFLOW)
	w.events(overflow)
	w.wakeNext()
	w.mu.Unlock()
	await(t, w, want...)
	if n := len(w.looks); n != 0 {
		t.Errorf("%d directories are still to be looked through", n)
	}
}

// TestLooksAtOneDirectoryAddUp: a later look takes nothing from one that is still to come.
func TestLooksAtOneDirectoryAddUp(t *testing.T) {
	w := newTest(t, 1)
	early, late := time.Unix(1, 0), time.Unix(2, 0)
	for _, list := range [][]look{{{early, true}, {late, false}}, {{late, false}, {early, true}}} {
		clear(w.looks)
		for _, l := range list {
			w.lookAt(place{}, l)
		}
		if got, want := w.looks[place{}], (look{early, true}); got != want {
			t.Errorf("%v: %v", list, got)
		}
	}
}

// TestDirectoriesBeyondTheLimitAreLookedThrough lets a change happen in each directory when only some
// may be watched.
func TestDirectoriesBeyondTheLimitAreLookedThrough(t *testing.T) {
	for _, max := range []int{0, 1, 3} {
		root := t.TempDir()
		at := func(p string) string { return filepath.Join(root, p) }
		dirs := []string{"a", "b", "b/c", "b/c/d"}
		for _, d := range dirs {
			must(t, os.Mkdir(at(d), 0o755))
		}
		w := newTest(t, max)
		w.poll = pollTimes{every: time.Millisecond, part: 1}
		set(t, w, root, time.Now(), dirs...)
		for i := range 3 {
			var want []string
			for _, d := range dirs {
				f := fmt.Sprintf("%s/f%d", d, i)
				write(t, at(f))
				want = append(want, f+" create modify close")
			}
			await(t, w, want...)
		}
		set(t, w, root, time.Now(), "a")
		if n := len(w.polled) + len(w.wds) - len(w.ways); n != 1 {
			t.Errorf("limit %d: %v are polled, %v watched", max, w.polled, w.wds)
		}
	}
}

// TestNoPathLeadsOutOfTheRoot puts symbolic links in the way, as a guest may.
func TestNoPathLeadsOutOfTheRoot(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	must(t, os.Mkdir(filepath.Join(outside, "d"), 0o755), os.Symlink(outside, filepath.Join(root, "l")), os.Symlink("d", filepath.Join(root, "in")), os.Mkdir(filepath.Join(root, "d"), 0o755))
	w := newTest(t, 100)
	set(t, w, root, time.Now(), "l", "l/d", "..", "../"+filepath.Base(outside), outside, "in", "f\x00", "/proc")
	delete(w.wds, place{}) // the root itself, on the way to all
	if len(w.wds) != 0 {
		t.Errorf("%v are watched", w.wds)
	}
}

func TestARootThatIsReplacedIsWatchedAnew(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	must(t, os.Mkdir(root, 0o755))
	w := newTest(t, 100)
	set(t, w, root, time.Now().Add(time.Hour), "")
	must(t, os.Rename(root, root+".old"), os.Mkdir(root, 0o755))
	set(t, w, root, time.Now().Add(time.Hour), "")
	write(t, root+".old/f")
	write(t, root+"/g")
	await(t, w, "g create modify close", " delete")
	if len(w.wds) != 1 {
		t.Errorf("%v", w.wds)
	}
}

func TestCloseEndsNext(t *testing.T) {
	w, err := New(1, slog.New(slog.DiscardHandler))
	must(t, err)
	ended := make(chan error)
	go func() {
		_, _, err := w.Next()
		ended <- err
	}()
	w.Close()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("no error")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it waits on")
	}
}
