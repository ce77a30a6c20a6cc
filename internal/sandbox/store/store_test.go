package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/lockfile"
)

func store(t *testing.T) *Store {
	t.Helper()
	s, err := OpenAt(filepath.Join(t.TempDir(), "bawn"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func spec(name, dir string) *sandbox.Spec {
	return &sandbox.Spec{ID: sandbox.NewID(), Name: name, Dir: dir, Project: sandbox.Source{Host: dir, Guest: dir}, CPUs: 1, Memory: sandbox.MinMemory, Disk: sandbox.MinDisk, Created: time.Now()}
}

func TestFindFromSubdirectoryPrefersNearest(t *testing.T) {
	s := store(t)
	for _, sp := range []*sandbox.Spec{spec("outer", "/p"), spec("inner", "/p/q"), spec("other", "/pq")} {
		if _, err := s.Create(sp); err != nil {
			t.Fatal(err)
		}
	}
	for dir, want := range map[string]string{"/p": "outer", "/p/x/y": "outer", "/p/q/r": "inner", "/pq": "other"} {
		got, err := s.Find(dir)
		if err != nil || got.Name != want {
			t.Errorf("Find(%s) = %v, %v; want %s", dir, got, err, want)
		}
	}
	if _, err := s.Find("/elsewhere"); !IsNotFound(err) {
		t.Errorf("Find(/elsewhere) = %v, want not found", err)
	}
}

func TestStateTellsDeadFromRunning(t *testing.T) {
	s := store(t)
	d, err := s.Create(spec("a", "/p"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := d.Lock()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.WriteState(sandbox.State{Phase: sandbox.Running, PID: 7}); err != nil {
		t.Fatal(err)
	}
	if st, _ := d.State(); st.Phase != sandbox.Running {
		t.Errorf("with the lock held: %s", st.Phase)
	}
	if _, err := d.Lock(); err == nil {
		t.Error("a second supervisor got the lock")
	}
	l.Close()
	if st, _ := d.State(); st.Phase != sandbox.Dead || st.PID != 0 {
		t.Errorf("after the supervisor's death: %+v", st)
	}
}

func TestLockStartWaitsAndGivesUp(t *testing.T) {
	s := store(t)
	d, _ := s.Create(spec("a", "/p"))
	l, err := d.LockStart(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := d.LockStart(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v while another holds it", err)
	}
	l.Close()
	if _, err := d.LockStart(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestLongSocketPaths(t *testing.T) {
	s, err := OpenAt(filepath.Join(t.TempDir(), strings.Repeat("long/", 40), "bawn"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.Create(spec("a", "/p"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second finds the socket of the first
		l, err := d.Listen(ControlSocket)
		if err != nil {
			t.Fatal(err)
		}
		c, err := d.Dial(context.Background(), ControlSocket)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		l.Close()
	}
	fi, err := os.Stat(d.File(ControlSocket))
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("socket mode %v, %v", fi.Mode(), err)
	}
}

func TestOthersAreShutOut(t *testing.T) {
	s := store(t)
	d, _ := s.Create(spec("a", "/p"))
	_ = os.Chmod(s.Root(), 0o755) // somebody opened it
	if _, err := OpenAt(s.Root()); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{s.Root(), d.Path, d.File(specFile)} {
		if fi, _ := os.Stat(p); fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is open to others: %v", p, fi.Mode())
		}
	}
}

// TestAttackBawnItselfInAShare: a supervisor starts bawn by its path, long after the guest could have replaced it.
func TestAttackBawnItselfInAShare(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", filepath.Join(home, "home"))
	s, err := OpenAt(filepath.Join(home, "state"))
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{self, filepath.Dir(self)} {
		var refused *ShareError
		if err := s.CheckShare(path, false); !errors.As(err, &refused) || refused.Reason != OwnShare || !strings.Contains(err.Error(), "bawn itself") {
			t.Errorf("%s: %v", path, err)
		}
		if err := s.CheckShare(path, true); err != nil {
			t.Errorf("%s read-only: %v", path, err)
		}
	}
}

func TestCheckShareKeepsBawnsOwnStateOut(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_STATE_HOME", "")
	t.Setenv("XDG_CACHE_HOME", "")
	t.Setenv("XDG_CONFIG_HOME", "")
	dotfiles := filepath.Join(home, "dotfiles") // where people keep what ~/.config leads to; nothing of bawn's in it yet
	if err := errors.Join(os.Mkdir(dotfiles, 0o755), os.Symlink("dotfiles", filepath.Join(home, ".config"))); err != nil {
		t.Fatal(err)
	}
	s, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	project := filepath.Join(home, "project")
	_ = os.MkdirAll(project, 0o755)
	if err := s.CheckShare(project, false); err != nil {
		t.Errorf("a project is refused: %v", err)
	}
	if err := s.CheckShare("/etc", true); err != nil {
		t.Errorf("/etc is refused though it is read-only: %v", err)
	}
	if err := s.CheckShare("/etc/passwd", true); err != nil {
		t.Errorf("/etc/passwd is refused though it is read-only: %v", err)
	}
	for _, bad := range []string{home, "/", filepath.Dir(home), s.Root(), filepath.Join(s.Root(), "sandboxes"), filepath.Join(home, ".local"), dotfiles, "/proc", "/dev", "/run", "/etc", "/usr", "/var", "/boot", "/tmp", "/var/tmp", "/etc/passwd", filepath.Join(home, "absent")} {
		if err := s.CheckShare(bad, false); err == nil {
			t.Errorf("%s may be shared", bad)
		}
	}
}

func TestRemoveLeavesNothing(t *testing.T) {
	s := store(t)
	d, _ := s.Create(spec("a", "/p"))
	if err := d.Remove(); err != nil {
		t.Fatal(err)
	}
	if names, _ := s.Names(); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
	if _, err := s.Create(spec("a", "/p")); err != nil {
		t.Errorf("the name is not free again: %v", err)
	}
}

// TestThrowaways: one whose owner is gone goes with the next that is made, unless it
// runs or somebody is at work on it.
func TestThrowaways(t *testing.T) {
	s, err := OpenAt(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	throwaway := func(name string) *lockfile.Lock {
		t.Helper()
		l, err := s.CreateOwned(&sandbox.Spec{Name: name, Throwaway: true})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	if _, err := s.Create(&sandbox.Spec{Name: "kept"}); err != nil {
		t.Fatal(err)
	}
	owned := throwaway("owned")
	throwaway("gone").Close()
	throwaway("running").Close()
	run, err1 := s.Dir("running").Lock()
	throwaway("starting").Close()
	start, err2 := s.Dir("starting").LockStart(t.Context())
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	throwaway("next").Close()
	if got, err := s.Names(); err != nil || strings.Join(got, " ") != "kept next owned running starting" {
		t.Errorf("%v, %v", got, err)
	}
	owned.Close()
	run.Close()
	start.Close()
	throwaway("last").Close()
	if got, err := s.Names(); err != nil || strings.Join(got, " ") != "kept last" {
		t.Errorf("%v, %v", got, err)
	}
	d := s.Dir("last") // its supervisor ends
	l, err := d.Lock()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.RemoveUnowned(), l.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Spec(); !IsNotFound(err) {
		t.Errorf("a supervisor leaves its throwaway: %v", err)
	}
}
