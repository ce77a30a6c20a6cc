package cache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"bawn.dev/bawn/internal/progress"
)

// waits is a progress.Reporter that reports the first task to a channel.
type waits struct {
	progress.Reporter
	begun chan string
}

func (w waits) Start(label string, total int64, unit progress.Unit) progress.Task {
	w.begun <- label
	return w.Reporter.Start(label, total, unit)
}

func TestLockWaits(t *testing.T) {
	d := Open(t.TempDir())
	l, err := d.Lock(t.Context(), "a", progress.Silent)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.TryLock("a"); !errors.Is(err, ErrBusy) {
		t.Errorf("TryLock: %v", err)
	}
	if other, err := d.TryLock("b"); err != nil {
		t.Errorf("another lock: %v", err)
	} else {
		other.Unlock()
	}
	w := waits{progress.Silent, make(chan string, 1)}
	got := make(chan error, 1)
	go func() {
		second, err := d.Lock(context.Background(), "a", w)
		if err == nil {
			second.Unlock()
		}
		got <- err
	}()
	<-w.begun
	l.Unlock()
	if err := <-got; err != nil {
		t.Error(err)
	}
	if _, err := d.TryLock("../a"); err == nil {
		t.Error("a lock outside the folder")
	}
}

func TestLockEndsWithTheContext(t *testing.T) {
	d, stop := Open(t.TempDir()), errors.New("stop")
	l, err := d.TryLock("a")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Unlock()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	if _, err := d.Lock(ctx, "a", progress.Silent); !errors.Is(err, stop) {
		t.Error(err)
	}
}

// TestScratch: what a killed holder left is removed by the next holder of the same
// lock, and only by that one.
func TestScratch(t *testing.T) {
	d := Open(t.TempDir())
	scratch := func(name string) string {
		t.Helper()
		l, err := d.TryLock(name)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Unlock()
		dir, err := l.Scratch()
		if err != nil {
			t.Fatal(err)
		}
		return dir
	}
	left, other := scratch("a"), scratch("b")
	if err := errors.Join(os.Mkdir(filepath.Join(left, "sub"), 0o500), os.Mkdir(left+oldSuffix, 0o700)); err != nil {
		t.Fatal(err)
	}
	scratch("a")
	for path, stays := range map[string]bool{left: false, left + oldSuffix: false, other: true} {
		if _, err := os.Stat(path); (err == nil) != stays {
			t.Errorf("%s: %v", filepath.Base(path), err)
		}
	}
}

// TestEnsureBuildsOnce: of several callers one builds, and all get the same.
func TestEnsureBuildsOnce(t *testing.T) {
	d := Open(t.TempDir())
	var built atomic.Int32
	got := make(chan error)
	for range 5 {
		go func() {
			_, err := d.Ensure(context.Background(), "thing", "key", progress.Silent, func(_ context.Context, dir string) (any, error) {
				built.Add(1)
				return nil, os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600)
			})
			got <- err
		}()
	}
	for range 5 {
		if err := <-got; err != nil {
			t.Error(err)
		}
	}
	if n := built.Load(); n != 1 {
		t.Errorf("built %d times", n)
	}
	if des, err := os.ReadDir(filepath.Join(d.Path(), tmpFolder)); err != nil || len(des) != 0 {
		t.Errorf("left in tmp: %v, %v", des, err)
	}
}

// TestEnsureKeepsNothingOfAFailure: an entry whose builder failed is not there.
func TestEnsureKeepsNothingOfAFailure(t *testing.T) {
	d, broken := Open(t.TempDir()), errors.New("broken")
	_, err := d.Ensure(t.Context(), "thing", "key", progress.Silent, func(_ context.Context, dir string) (any, error) {
		return nil, errors.Join(os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600), broken)
	})
	if !errors.Is(err, broken) {
		t.Error(err)
	}
	if _, err := d.Lookup("thing", "key"); !errors.Is(err, ErrAbsent) {
		t.Error(err)
	}
}

// TestDamageIsRepaired: an entry that changed is built again.
func TestDamageIsRepaired(t *testing.T) {
	d := Open(t.TempDir())
	build := func(_ context.Context, dir string) (any, error) {
		return nil, os.WriteFile(filepath.Join(dir, "file"), []byte("right"), 0o600)
	}
	for _, damage := range []func(e *Entry) error{
		func(e *Entry) error { // the same size
			return errors.Join(os.Chmod(e.File("file"), 0o600), os.WriteFile(e.File("file"), []byte("wrong"), 0o600))
		},
		func(e *Entry) error { return os.Remove(e.File("file")) },
		func(e *Entry) error { return os.Remove(e.File(manifestFile)) },
		func(e *Entry) error {
			return errors.Join(os.Chmod(e.File(manifestFile), 0o600), os.WriteFile(e.File(manifestFile), []byte("x\n{}"), 0o600))
		},
	} {
		e, err := d.Ensure(t.Context(), "thing", "key", progress.Silent, build)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(e.File("file")); string(b) != "right" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
		if err := damage(e); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Lookup("thing", "key"); !errors.Is(err, ErrDamaged) {
			t.Errorf("damaged: %v", err)
		}
	}
}
