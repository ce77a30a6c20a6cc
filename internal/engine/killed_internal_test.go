package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/share/versions"
	"bawn.dev/bawn/internal/undo"
)

// The tests in this file kill a process (SIGKILL) that accepts or undoes, before each of its
// system calls that change something. A child process is this test's binary, which runs
// TestKilledChild; it is stopped at its system calls by ptrace(2).

// killedState names the state directory that a child works on.
const killedState = "BAWN_TEST_KILLED_STATE"

// killedAs says what the child does: "accept" or "undo".
const killedAs = "BAWN_TEST_KILLED_AS"

// TestKilledChild is the child of TestKilledAnywhere.
func TestKilledChild(t *testing.T) {
	state, as := os.Getenv(killedState), os.Getenv(killedAs)
	if state == "" {
		t.Skip("it is the child of TestKilledAnywhere")
	}
	r := openReviewed(t, state)
	if err := map[string]func(*reviewed) error{"accept": acceptAll, "undo": undoAll}[as](r); err != nil {
		t.Fatal(err)
	}
}

// openReviewed opens the sandbox of a state directory that prepareAccept or prepareUndo has filled.
func openReviewed(t *testing.T, state string) *reviewed {
	t.Helper()
	sandboxes, err := store.OpenAt(state)
	if err != nil {
		t.Fatal(err)
	}
	r := &reviewed{t: t, e: &Engine{sandboxes: sandboxes, events: func(Event) {}}}
	spec, err := r.e.Named("shop")
	if err != nil {
		t.Fatal(err)
	}
	r.dir, r.d = spec.Dir, sandboxes.Dir("shop")
	r.private = r.d.Private(r.dir)
	return r
}

// state returns the state directory.
func (r *reviewed) state() string { return filepath.Dir(filepath.Dir(r.d.Path)) }

// acceptAll takes all private versions over.
func acceptAll(r *reviewed) error {
	a, err := r.e.Accept("shop", []string{r.dir})
	if ReasonOf(err) == NothingToAccept {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = a.Apply(r.t.Context())
	return err
}

// undoAll takes everything back to the first restore point, or finishes an undo.
func undoAll(r *reviewed) error {
	u, err := r.e.OpenUndo("shop")
	if err != nil {
		return err
	}
	defer u.Close()
	q := UndoRequest{To: 1, Paths: []string{"."}}
	if u.Unfinished != nil {
		q = *u.Unfinished
	}
	p, err := u.Plan(q)
	if err != nil {
		return err
	}
	res, err := u.Apply(r.t.Context(), q, p)
	if err == nil && len(res.Kept) > 0 {
		err = fmt.Errorf("kept: %v", res.Kept)
	}
	return err
}

// prepareAccept makes a project whose guest has versions to take over: changed, made, removed, and
// a directory of them.
func prepareAccept(r *reviewed) {
	r.file(r.dir, ".envrc", "old\n", 0o644)
	r.file(r.dir, ".mcp.json", "old\n", 0o644)
	r.file(r.dir, ".git/hooks/kept", "old\n", 0o755)
	r.file(r.dir, ".git/hooks/removed", "old\n", 0o755)
	r.file(r.private, "p:.envrc", "new\n", 0o644)
	r.file(r.private, "d:deep/d:er/p:.envrc", "new\n", 0o644)
	r.file(r.private, "d:.git/p:hooks/kept", "new\n", 0o755)
	if err := errors.Join(unix.Mkfifo(filepath.Join(r.private, "p:.mcp.json"), 0o600), os.Symlink("kept", filepath.Join(r.private, "d:.git/p:hooks/link"))); err != nil {
		r.t.Fatal(err)
	}
}

// prepareUndo makes a project that a guest has changed in each way.
func prepareUndo(r *reviewed) {
	for _, at := range []string{"a", "d/b", "d/c", "old/e"} {
		r.file(r.dir, at, "old "+at, 0o640)
	}
	if err := os.Symlink("a", filepath.Join(r.dir, "link")); err != nil {
		r.t.Fatal(err)
	}
	r.begins(filepath.Join(r.dir, "a"), "old")
	r.writes("a", "new", 0o644)
	r.writes("d/b", "new", 0o644)
	r.writes("made", "new", 0o755)
	for _, at := range []string{"link", "d/c", "old/e", "old"} {
		r.guest(at, os.Remove)
	}
	r.guest("link", func(path string) error { return os.Symlink("/etc/passwd", path) })
	r.rec.Sync()
}

// begins fails the test unless a file begins with a text.
func (r *reviewed) begins(path, begin string) {
	r.t.Helper()
	if b, err := os.ReadFile(path); err != nil || !strings.HasPrefix(string(b), begin) {
		r.t.Fatalf("%s: %q, %v", path, b, err)
	}
}

// TestKilledAnywhere kills accept and undo before each of their system calls that change
// something. After each kill, every path of the project is as it was or as it was asked for. The next
// run finishes the work, and leaves nothing else.
func TestKilledAnywhere(t *testing.T) {
	for _, test := range []struct {
		as      string
		prepare func(*reviewed)
		run     func(*reviewed) error
	}{{"accept", prepareAccept, acceptAll}, {"undo", prepareUndo, undoAll}} {
		t.Run(test.as, func(t *testing.T) {
			r := newReviewed(t)
			test.prepare(r)
			before := paths(t, r.dir)
			if err := test.run(r); err != nil {
				t.Fatal(err)
			}
			asked := paths(t, r.dir)
			killed, step := true, 1
			if testing.Short() {
				step = 7
			}
			n := 0
			for ; killed; n += step {
				r := newReviewed(t)
				test.prepare(r)
				killed = killAt(t, n, test.as, r)
				for at, now := range paths(t, r.dir) {
					if temp := strings.HasPrefix(filepath.Base(at), undo.TempPrefix); !temp && now != before[at] && now != asked[at] && !strings.HasPrefix(now, "d") {
						t.Errorf("killed at %d: %s is %q, and was %q, and should be %q", n, at, now, before[at], asked[at])
					}
				}
				for at := range before {
					if _, err := os.Lstat(filepath.Join(r.dir, at)); err != nil && asked[at] != "" {
						t.Errorf("killed at %d: %s is missing", n, at)
					}
				}
				if err := test.run(openReviewed(t, r.state())); err != nil {
					t.Errorf("after a kill at %d: %v", n, err)
				}
				if got := paths(t, r.dir); fmt.Sprint(got) != fmt.Sprint(asked) {
					t.Errorf("after a kill at %d and another run there is\n%v\nand not\n%v", n, got, asked)
				}
				if list, err := versions.List(r.private, 1); len(list) > 0 || err != nil {
					t.Errorf("after a kill at %d and another run the guest has versions: %v, %v", n, list, err)
				}
				if _, err := os.Lstat(filepath.Join(r.private, "d:.git/p:hooks")); err == nil {
					t.Errorf("after a kill at %d and another run the guest has hooks of its own", n)
				}
			}
			if n < 20 {
				t.Errorf("it was killed at %d places only", n)
			}
			t.Logf("killed at %d places", n)
		})
	}
}

// paths describes a directory: by path the mode and the contents of each file.
func paths(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		text := ""
		switch {
		case fi.Mode().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			text = string(b)
		case fi.Mode()&fs.ModeSymlink != 0:
			if text, err = os.Readlink(p); err != nil {
				return err
			}
		}
		if rel, _ := filepath.Rel(dir, p); rel != "." {
			all[rel] = fi.Mode().String() + " " + text
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// changing reports whether a system call may change a file.
func changing(nr uint64, args [6]uint64) bool {
	switch nr {
	case unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_UNLINKAT, unix.SYS_MKDIRAT, unix.SYS_SYMLINKAT, unix.SYS_LINKAT, unix.SYS_MKNODAT,
		unix.SYS_FTRUNCATE, unix.SYS_PWRITE64, unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_FCHOWN, unix.SYS_FCHOWNAT, unix.SYS_FSETXATTR,
		unix.SYS_UTIMENSAT, unix.SYS_COPY_FILE_RANGE:
		return true
	case unix.SYS_OPENAT:
		return args[2]&unix.O_CREAT != 0
	case unix.SYS_WRITE:
		return args[0] > 2
	}
	return false
}

// syscallInfo is struct ptrace_syscall_info up to the arguments (ptrace(2), PTRACE_GET_SYSCALL_INFO).
type syscallInfo struct {
	op   uint8
	_    [3]uint8
	arch uint32
	ip   uint64
	sp   uint64
	nr   uint64
	args [6]uint64
}

// killAt runs a child and kills it before its n-th system call that may change a file. It reports
// whether the child was killed; else it has ended without an error.
func killAt(t *testing.T, n int, as string, r *reviewed) (killed bool) {
	t.Helper()
	runtime.LockOSThread() // only the thread that began may trace
	defer runtime.UnlockOSThread()
	out, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	env := append(os.Environ(), killedState+"="+r.state(), killedAs+"="+as)
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"child", "-test.run=^TestKilledChild$"}, &syscall.ProcAttr{
		Env: env, Files: []uintptr{out.Fd(), out.Fd(), out.Fd()}, Sys: &syscall.SysProcAttr{Ptrace: true, Setpgid: true},
	})
	if errors.Is(err, unix.EPERM) {
		t.Skip("ptrace(2) is not permitted here")
	}
	if err != nil {
		t.Fatal(err)
	}
	status, err := trace(pid, n)
	if err != nil {
		_ = unix.Kill(pid, unix.SIGKILL)
		t.Fatal(err)
	}
	if status.Signaled() && status.Signal() == unix.SIGKILL {
		return true
	}
	if status.ExitStatus() != 0 {
		text, _ := os.ReadFile(out.Name())
		t.Fatalf("the child: %v\n%s", status, text)
	}
	return false
}

// trace lets a process run that waits for its tracer, kills it before its n-th change, and returns
// how it ended.
func trace(pid, n int) (unix.WaitStatus, error) {
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, unix.WALL, nil); err != nil || !status.Stopped() {
		return status, fmt.Errorf("wait for the child: %v, %w", status, err)
	}
	const exitKill = 1 << 20 // PTRACE_O_EXITKILL
	if err := unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_TRACECLONE|exitKill); err != nil {
		return status, err
	}
	if err := unix.PtraceSyscall(pid, 0); err != nil {
		return status, err
	}
	for {
		tid, err := unix.Wait4(-pid, &status, unix.WALL, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return status, err
		}
		if tid == pid && (status.Exited() || status.Signaled()) {
			return status, nil
		}
		if !status.Stopped() {
			continue // a thread has ended
		}
		pass := status.StopSignal()
		switch pass {
		case unix.SIGTRAP | 0x80: // PTRACE_O_TRACESYSGOOD
			if enters(tid) {
				if n--; n < 0 {
					_ = unix.Kill(pid, unix.SIGKILL)
					continue
				}
			}
			pass = 0
		case unix.SIGTRAP, unix.SIGSTOP: // a new thread
			pass = 0
		}
		if err := unix.PtraceSyscall(tid, int(pass)); err != nil && !errors.Is(err, unix.ESRCH) {
			return status, err
		}
	}
}

// enters reports whether a stopped thread is about to make a system call that may change a file.
func enters(tid int) bool {
	const getSyscallInfo, entry = 0x420e, 1 // linux/ptrace.h
	var i syscallInfo
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, getSyscallInfo, uintptr(tid), unsafe.Sizeof(i), uintptr(unsafe.Pointer(&i)), 0, 0)
	return e == 0 && i.op == entry && changing(i.nr, i.args)
}
