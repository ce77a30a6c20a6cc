package lockfile

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test program is also the other process: it takes a lock, or inherits one as
// descriptor 3, says so, and holds it until its standard input ends.
const (
	holdEnv    = "BAWN_TEST_HOLD"    // the path to lock
	inheritEnv = "BAWN_TEST_INHERIT" // set: descriptor 3 holds the lock
)

func TestMain(m *testing.M) {
	var err error
	switch {
	case os.Getenv(holdEnv) != "":
		_, err = Acquire(context.Background(), os.Getenv(holdEnv))
	case os.Getenv(inheritEnv) != "":
		_, err = Inherit(3)
	default:
		os.Exit(m.Run())
	}
	fmt.Println("holding", err)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// holder starts the other process and returns once it holds the lock. release ends it
// in good order.
func holder(t *testing.T, env string, files ...*os.File) (cmd *exec.Cmd, release func()) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(self)
	cmd.Env, cmd.ExtraFiles, cmd.Stderr = append(os.Environ(), env), files, os.Stderr
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "holding <nil>\n" {
		t.Fatalf("the other process: %q, %v", line, err)
	}
	return cmd, func() { in.Close(); _ = cmd.Wait() }
}

func lockPath(t *testing.T) string { return filepath.Join(t.TempDir(), "lock") }

func checkHeld(t *testing.T, path string, want bool) {
	t.Helper()
	if got, err := Held(path); got != want || err != nil {
		t.Errorf("Held is %v, %v", got, err)
	}
}

func TestOneHolder(t *testing.T) {
	path := lockPath(t)
	checkHeld(t, path, false)
	l, err := Acquire(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	checkHeld(t, path, true)
	if _, err := TryAcquire(path); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("a second holder: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	checkHeld(t, path, false)
	if l, err = TryAcquire(path); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
}

func TestAcquireWaitsForAnotherProcess(t *testing.T) {
	path := lockPath(t)
	_, release := holder(t, holdEnv+"="+path)
	checkHeld(t, path, true)
	got := make(chan error, 1)
	go func() {
		l, err := Acquire(context.Background(), path)
		if err == nil {
			l.Close()
		}
		got <- err
	}()
	select {
	case err := <-got:
		t.Fatalf("Acquire did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	release()
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func TestCrashReleases(t *testing.T) {
	path := lockPath(t)
	cmd, _ := holder(t, holdEnv+"="+path)
	checkHeld(t, path, true)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	l, err := Acquire(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestAcquireEndsWithTheContext(t *testing.T) {
	path, stop := lockPath(t), errors.New("stop")
	first, err := TryAcquire(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	if _, err := Acquire(ctx, path); !errors.Is(err, stop) {
		t.Errorf("cancelled: %v", err)
	}
	first.Close()
	// The lock that the cancelled call is granted now is given back at once.
	l, err := Acquire(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestInherited(t *testing.T) {
	path := lockPath(t)
	l, err := Acquire(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	_, release := holder(t, inheritEnv+"=1", l.File())
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	checkHeld(t, path, true) // by the child alone
	if _, err := TryAcquire(path); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("beside the child: %v", err)
	}
	release()
	checkHeld(t, path, false)
}

func TestNotInheritedUnasked(t *testing.T) {
	path := lockPath(t)
	l, err := Acquire(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	holder(t, holdEnv+"="+lockPath(t)) // a child that gets no descriptor of it
	l.Close()
	checkHeld(t, path, false)
}

func TestErrors(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("target", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := TryAcquire(filepath.Join(dir, "link")); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a symbolic link: %v", err)
	}
	if _, err := Acquire(t.Context(), filepath.Join(dir, "none", "lock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	if _, err := Inherit(1 << 20); err == nil {
		t.Error("a descriptor that is not open")
	}
}
