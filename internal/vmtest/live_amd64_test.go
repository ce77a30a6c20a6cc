//go:build vm

package vmtest

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// The worst that a hostile guest can reach is to run code of its own in QEMU or in a share
// server. The test does that: it stops the live process by ptrace(2), makes it call the
// kernel, and looks at the result. Then the process goes on where it was.

// TestLiveConfinement: QEMU and the share server can do to the host only what they need.
func TestLiveConfinement(t *testing.T) {
	dir := shared(t)
	victims := map[string]struct {
		pid  int
		path string // that it may open: what it opens after its start
	}{
		"qemu":  {inspect(t, dir).Status.MachinePID, "/dev/null"},
		"share": {0, dir},
	}
	for pid := range shares(dir) {
		v := victims["share"]
		v.pid = pid
		victims["share"] = v
	}
	for name, v := range victims {
		t.Run(name, func(t *testing.T) {
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", v.pid))
			if err != nil {
				t.Fatal(err)
			}
			for field, want := range map[string]string{"NoNewPrivs": "1", "Seccomp": "2"} {
				if m := regexp.MustCompile(field + `:\s+(\d+)`).FindSubmatch(status); m == nil || string(m[1]) != want {
					t.Errorf("%s: %q, want %s", field, m, want)
				}
			}
			p := seize(t, v.pid)
			defer p.release()
			if fd := p.open(v.path); fd < 0 {
				t.Fatalf("the way in does not work: open %s: %v", v.path, unix.Errno(-fd))
			} else if r := p.call(unix.SYS_CLOSE, uint64(fd)); r != 0 {
				t.Fatalf("close: %d", r)
			}
			secret := base + "/secret"
			writeFile(t, secret, "of the host's")
			if hasLandlock() {
				for _, path := range []string{secret, "/etc/passwd", "/etc"} {
					if got := unix.Errno(-p.open(path)); got != unix.EACCES {
						t.Errorf("open %s: %v", path, got)
					}
				}
				at := p.write(base + "/new")
				if got := unix.Errno(-p.call(unix.SYS_MKDIRAT, atCWD, at, 0o700)); got != unix.EACCES {
					t.Errorf("mkdir: %v", got)
				}
			} else {
				t.Log("this kernel has no Landlock: the files are not tried")
			}
			for what, c := range map[string][]uint64{
				"a socket":       {unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 0},
				"a unix socket":  {unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM, 0},
				"ptrace":         {unix.SYS_PTRACE, unix.PTRACE_ATTACH, uint64(os.Getpid()), 0, 0},
				"other's memory": {unix.SYS_PROCESS_VM_READV, uint64(os.Getpid()), 0, 0, 0, 0, 0},
			} {
				if got := unix.Errno(-p.call(c[0], c[1:]...)); got != unix.EPERM {
					t.Errorf("%s: %v", what, got)
				}
			}
		})
	}
	if got := sh(t, dir, "echo alive"); got != "alive\n" { // none of it did harm
		t.Errorf("%q", got)
	}
}

// hasLandlock asks the kernel (landlock_create_ruleset(2)).
func hasLandlock() bool {
	const version = 1 // LANDLOCK_CREATE_RULESET_VERSION
	_, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, version)
	return errno == 0
}

// atCWD is AT_FDCWD as a register holds it.
const atCWD = ^uint64(99)

// seized is a live process from which a test calls the kernel.
type seized struct {
	t    *testing.T
	pid  int
	regs unix.PtraceRegs // where it was
	text []byte          // of its stack, that was overwritten
	at   uintptr
}

// seize stops a process's main thread in a system call. All of ptrace(2) must come
// from one thread.
func seize(t *testing.T, pid int) *seized {
	t.Helper()
	runtime.LockOSThread()
	p := &seized{t: t, pid: pid}
	found := poll(waitLimit, func() bool {
		err := unix.PtraceAttach(pid)
		if errors.Is(err, unix.EPERM) {
			runtime.UnlockOSThread()
			t.Skip("this user may not debug its own processes here (/proc/sys/kernel/yama/ptrace_scope)")
		}
		if err != nil {
			t.Fatal(err)
		}
		p.wait()
		if err := unix.PtraceGetRegs(pid, &p.regs); err != nil {
			t.Fatal(err)
		}
		op := make([]byte, 2)
		if _, err := unix.PtracePeekText(pid, uintptr(p.regs.Rip-2), op); err == nil && op[0] == 0x0f && op[1] == 0x05 { // SYSCALL
			p.at = uintptr(p.regs.Rsp-8192) &^ 63 // well below the red zone
			p.text = make([]byte, 4096)
			if _, err := unix.PtracePeekData(pid, p.at, p.text); err != nil {
				t.Fatal(err)
			}
			return true
		}
		_ = unix.PtraceDetach(pid) // it was at work
		return false
	})
	if !found {
		t.Fatal("the process never waits")
	}
	return p
}

// wait waits until a signal stops it.
func (p *seized) wait() unix.Signal {
	var s unix.WaitStatus
	if _, err := unix.Wait4(p.pid, &s, unix.WALL, nil); err != nil || !s.Stopped() {
		p.t.Fatalf("process %d: %v, %x", p.pid, err, s)
	}
	return s.StopSignal()
}

// release lets it go on where it was: the kernel restarts the call that it was in.
func (p *seized) release() {
	defer runtime.UnlockOSThread()
	_, err := unix.PtracePokeData(p.pid, p.at, p.text)
	if err = errors.Join(err, unix.PtraceSetRegs(p.pid, &p.regs), unix.PtraceDetach(p.pid)); err != nil {
		p.t.Error(err)
	}
}

// write puts a string into its memory.
func (p *seized) write(s string) (addr uint64) {
	if _, err := unix.PtracePokeData(p.pid, p.at, append([]byte(s), 0)); err != nil {
		p.t.Fatal(err)
	}
	return uint64(p.at)
}

func (p *seized) open(path string) int64 {
	return p.call(unix.SYS_OPENAT, atCWD, p.write(path), unix.O_RDONLY|unix.O_CLOEXEC)
}

// call makes one system call; the answer is below zero when it failed.
func (p *seized) call(nr uint64, args ...uint64) int64 {
	r := p.regs
	r.Rip -= 2 // SYSCALL again
	r.Rax, r.Orig_rax = nr, ^uint64(0)
	for i, to := range []*uint64{&r.Rdi, &r.Rsi, &r.Rdx, &r.R10, &r.R8, &r.R9} {
		*to = 0
		if i < len(args) {
			*to = args[i]
		}
	}
	if err := unix.PtraceSetRegs(p.pid, &r); err != nil {
		p.t.Fatal(err)
	}
	if err := unix.PtraceSingleStep(p.pid); err != nil {
		p.t.Fatal(err)
	}
	for p.wait() != unix.SIGTRAP { // a signal came first, and may be lost
		if err := unix.PtraceSingleStep(p.pid); err != nil {
			p.t.Fatal(err)
		}
	}
	if err := unix.PtraceGetRegs(p.pid, &r); err != nil {
		p.t.Fatal(err)
	}
	return int64(r.Rax)
}
