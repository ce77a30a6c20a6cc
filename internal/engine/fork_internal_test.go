package engine

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/engine/enginetest"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/snapshot"
)

// forkable is a sandbox "shop" with a snapshot, which is not started.
func forkable(t *testing.T) (*Engine, *sandbox.Spec, *snapshot.Snapshot) {
	t.Helper()
	e, _ := newEngine(t)
	dir := filepath.Join(t.TempDir(), "shop")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d, err := e.sandboxes.Create(&sandbox.Spec{ID: "1", Name: "shop", Dir: dir, Project: sandbox.Source{Host: dir, Guest: dir}})
	if err != nil {
		t.Fatal(err)
	}
	s := enginetest.Keep(t, d, "one", "disk")
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	return e, s.Meta.Spec, s
}

// TestForkDefaultName: also of the longest name it is a name.
func TestForkDefaultName(t *testing.T) {
	e, spec, _ := forkable(t)
	for of, want := range map[string]string{
		"shop":                          "shop-fork",
		strings.Repeat("a", 63):         strings.Repeat("a", 53) + "-fork",
		strings.Repeat("a", 52) + "-bc": strings.Repeat("a", 52) + "-fork",
	} {
		named := *spec
		named.Name = of
		if names, err := e.forkNames(&ForkRequest{CopyProject: true}, &named); err != nil || !slices.Equal(names, []string{want}) {
			t.Errorf("%s: %q, %v", of, names, err)
		}
	}
}

// TestForkFailure: a fork that fails removes what it made and nothing else.
func TestForkFailure(t *testing.T) {
	e, spec, s := forkable(t)
	r := &ForkRequest{Sandbox: "shop", CopyProject: true}
	other, err := e.sandboxes.Create(&sandbox.Spec{ID: "2", Name: "other", Dir: spec.Dir, Project: sandbox.Source{Host: spec.Dir, Guest: spec.Dir}}) // since the names were checked
	if err != nil {
		t.Fatal(err)
	}
	if err := e.makeFork(t.Context(), r, s, "other"); err == nil || !strings.Contains(err.Error(), "exists already") {
		t.Errorf("a taken name: %v", err)
	}
	if spec, err := other.Spec(); err != nil || spec.ID != "2" {
		t.Errorf("the sandbox of that name: %v, %v", spec, err)
	}
	gone := func(paths ...string) {
		t.Helper()
		for _, p := range paths {
			if _, err := os.Lstat(p); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left: %v", p, err)
			}
		}
	}
	gone(spec.Dir + "-other")

	theirs := spec.Dir + "-x"
	if err := os.Mkdir(theirs, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := e.makeFork(t.Context(), r, s, "x"); err == nil {
		t.Error("a project was copied into what was there")
	}
	if _, err := os.Lstat(theirs); err != nil {
		t.Errorf("what was there: %v", err)
	}
	gone(e.sandboxes.Dir("x").Path)

	if err := os.Remove(s.Disk()); err != nil {
		t.Fatal(err)
	}
	if err := e.makeFork(t.Context(), r, s, "y"); err == nil {
		t.Error("a fork without a disk")
	}
	gone(e.sandboxes.Dir("y").Path, spec.Dir+"-y")
}

// TestForkOfSeveral: when one cannot be made or started, the others are, and the error
// says which.
func TestForkOfSeveral(t *testing.T) {
	e, spec, s := forkable(t)
	r := &ForkRequest{Sandbox: "shop", CopyProject: true}
	if err := os.Mkdir(spec.Dir+"-c", 0o700); err != nil { // since the names were checked
		t.Fatal(err)
	}
	var started []string
	made, err := e.forkAll(t.Context(), r, s, []string{"a", "b", "c", "d"}, func(name string) error {
		if started = append(started, name); name == "a" {
			return failf(Exists, name, "too many run")
		}
		return nil
	})
	if want := []string{"a", "b"}; !slices.Equal(made, want) || !slices.Equal(started, want) {
		t.Errorf("made %q, started %q", made, started)
	}
	for _, want := range []string{"fork c:", "fork a was made, but did not start: too many run", "(forks made: a, b)"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("not said: %q in %s", want, err)
		}
	}
	if ReasonOf(err) != Exists {
		t.Errorf("the reason of the start is %q", ReasonOf(err))
	}
	for _, name := range made {
		if d := e.sandboxes.Dir(name); !suspended(d) {
			t.Errorf("%s cannot go on", name)
		}
		if b, err := os.ReadFile(filepath.Join(spec.Dir+"-"+name, "file")); err != nil || string(b) != "text" {
			t.Errorf("%s has %q, %v", name, b, err)
		}
	}
	if names, err := e.sandboxes.Names(); err != nil || !slices.Equal(names, []string{"a", "b", "shop"}) {
		t.Errorf("%q, %v", names, err)
	}
}

// TestRestorePutsAllBack: disk, spec and memory.
func TestRestorePutsAllBack(t *testing.T) {
	e, _ := newEngine(t)
	dir := t.TempDir()
	d, err := e.sandboxes.Create(&sandbox.Spec{Name: "shop", Dir: dir, Project: sandbox.Source{Host: dir, Guest: dir}, CPUs: 3})
	if err != nil {
		t.Fatal(err)
	}
	enginetest.Keep(t, d, "one", "then")
	if err := errors.Join(d.WriteSpec(&sandbox.Spec{Name: "shop", Dir: dir, Project: sandbox.Source{Host: dir, Guest: dir}, CPUs: 4}), os.WriteFile(d.File(store.DiskFile), []byte("now"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := e.restore(t.Context(), d, "one", false); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(d.File(store.DiskFile))
	spec, err2 := d.Spec()
	if err != nil || string(b) != "then" || err2 != nil || spec.CPUs != 3 || !suspended(d) {
		t.Errorf("disk %q, %v; spec %+v, %v; suspended %v", b, err, spec, err2, suspended(d))
	}
	if left, _ := filepath.Glob(d.File("*.restored")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestGuestMessages: what a program in the guest prints is reported by lines, of bounded
// number and length.
func TestGuestMessages(t *testing.T) {
	e, events := newEngine(t)
	w := e.newLineNotices("shop")
	long := strings.Repeat("x", maxGuestLine)
	for _, part := range []string{"tar: ", "one\ntwo\n\n", long, long, "\n", "end"} {
		if n, err := w.Write([]byte(part)); n != len(part) || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	w.flush()
	var got []string
	for _, ev := range events() {
		n := ev.(Notice)
		if n.Reason != GuestMessage || n.Sandbox != "shop" {
			t.Errorf("%+v", n)
		}
		got = append(got, n.Text)
	}
	if want := []string{"tar: one", "two", long, "end"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for range 10 * maxGuestLines {
		_, _ = w.Write([]byte("flood\n"))
	}
	if n := len(events()); n != maxGuestLines-1 { // an empty line counts
		t.Errorf("%d notices", n)
	}
}
