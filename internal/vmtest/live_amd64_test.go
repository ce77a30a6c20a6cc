//go:build vm

package vmtest

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strconv"
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
			checkCapabilities(t, status, name)
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
				want := map[string]unix.Errno{"qemu": unix.EPERM, "share": unix.EACCES}[name] // QEMU makes no files at all
				if got := unix.Errno(-p.call(unix.SYS_MKDIRAT, atCWD, at, 0o700)); got != want {
					t.Errorf("mkdir: %v, want %v", got, want)
				}
			} else {
				t.Log("this kernel has no Landlock: the files are not tried")
			}
			for what, c := range forbidden(uint64(os.Getpid()), name) {
				if got := unix.Errno(-p.call(c[0], c[1:]...)); got != unix.EPERM && (c[0] != unix.SYS_IOCTL || got != unix.ENOTTY) {
					t.Errorf("%s: %v", what, got)
				}
			}
			for _, nr := range []uint64{unix.SYS_CLONE3, unix.SYS_IO_URING_SETUP, 1000} {
				if got := unix.Errno(-p.call(nr)); got != unix.ENOSYS {
					t.Errorf("call %d: %v", nr, got)
				}
			}
		})
	}
	if got := sh(t, dir, "echo alive"); got != "alive\n" { // none of it did harm
		t.Errorf("%q", got)
	}
}

// checkCapabilities: as root, QEMU has none and can get none, and the share server has those
// of a file's owner.
func checkCapabilities(t *testing.T, status []byte, name string) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	kept := map[string]uint64{"share": 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH | 1<<unix.CAP_FOWNER}[name]
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		m := regexp.MustCompile(set + `:\s+([0-9a-f]+)`).FindSubmatch(status)
		if m == nil {
			t.Errorf("no %s", set)
			continue
		}
		if has, err := strconv.ParseUint(string(m[1]), 16, 64); err != nil || has&^kept != 0 {
			t.Errorf("%s: %s, %v", set, m[1], err)
		}
	}
}

// forbidden are the calls that would reach outside the process, each with its arguments.
// other is another process of this user. QEMU's own filter kills it for some calls, so these
// are for the share server alone.
func forbidden(other uint64, victim string) map[string][]uint64 {
	all := map[string][]uint64{
		"a socket":                   {unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 0},
		"a unix socket":              {unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM, 0},
		"a pair of sockets":          {unix.SYS_SOCKETPAIR, unix.AF_UNIX, unix.SOCK_DGRAM, 0, 0},
		"connect":                    {unix.SYS_CONNECT, 0, 0, 0},
		"listen":                     {unix.SYS_LISTEN, 0, 0},
		"ptrace":                     {unix.SYS_PTRACE, unix.PTRACE_ATTACH, other, 0, 0},
		"other's memory":             {unix.SYS_PROCESS_VM_READV, other, 0, 0, 0, 0, 0},
		"System V shared memory":     {unix.SYS_SHMGET, 1, 4096, 0o1600},
		"attach shared memory":       {unix.SYS_SHMAT, 1, 0, 0},
		"System V semaphores":        {unix.SYS_SEMGET, 1, 1, 0o1600},
		"System V messages":          {unix.SYS_MSGGET, 1, 0o1600},
		"POSIX messages":             {unix.SYS_MQ_OPEN, 0, 0, 0, 0},
		"limits of another process":  {unix.SYS_PRLIMIT64, other, unix.RLIMIT_NOFILE, 0, 0},
		"I/O priority of another":    {unix.SYS_IOPRIO_SET, 1, other, 0},
		"scheduling of another":      {unix.SYS_SCHED_SETATTR, other, 0, 0},
		"pages of another":           {unix.SYS_MIGRATE_PAGES, other, 0, 0, 0},
		"signal another":             {unix.SYS_KILL, other, 0},
		"signal a thread of another": {unix.SYS_TGKILL, other, other, 0},
		"signal by thread alone":     {unix.SYS_TKILL, other, 0},
		"queue a signal":             {unix.SYS_RT_SIGQUEUEINFO, other, 0, 0},
		"pidfd":                      {unix.SYS_PIDFD_OPEN, other, 0},
		"compare processes":          {unix.SYS_KCMP, other, other, 0, 0, 0},
		"inotify":                    {unix.SYS_INOTIFY_INIT1, 0},
		"fanotify":                   {unix.SYS_FANOTIFY_INIT, 0, 0},
		"dnotify":                    {unix.SYS_FCNTL, 0, unix.F_NOTIFY, 1},
		"a file by handle":           {unix.SYS_OPEN_BY_HANDLE_AT, 0, 0, 0},
		"keys":                       {unix.SYS_KEYCTL, 0, 0, 0, 0, 0},
		"bpf":                        {unix.SYS_BPF, 0, 0, 0},
		"perf":                       {unix.SYS_PERF_EVENT_OPEN, 0, 0, 0, 0, 0},
		"userfaultfd":                {unix.SYS_USERFAULTFD, 0},
		"asynchronous I/O":           {unix.SYS_IO_SETUP, 1, 0},
		"chroot":                     {unix.SYS_CHROOT, 0},
		"personality":                {unix.SYS_PERSONALITY, 0x0400000},
		"dumps":                      {unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1},
		"a tracer":                   {unix.SYS_PRCTL, unix.PR_SET_PTRACER, other},
		"terminal input":             {unix.SYS_IOCTL, 0, unix.TIOCSTI, 0},
		"modes of files":             {unix.SYS_FCHMOD, ^uint64(0), 0o777},
	}
	if victim == "qemu" {
		return all
	}
	delete(all, "modes of files") // it is for that
	for what, c := range map[string][]uint64{
		"namespaces":            {unix.SYS_UNSHARE, unix.CLONE_NEWUSER},
		"a program":             {unix.SYS_EXECVE, 0, 0, 0},
		"a process":             {unix.SYS_CLONE, uint64(unix.SIGCHLD), 0, 0, 0, 0},
		"priority of another":   {unix.SYS_SETPRIORITY, 0, other, 19},
		"processors of another": {unix.SYS_SCHED_SETAFFINITY, other, 8, 0},
		"scheduling of another": {unix.SYS_SCHED_SETSCHEDULER, other, 0, 0},
		"another user":          {unix.SYS_SETUID, 0},
		"mount":                 {unix.SYS_MOUNT, 0, 0, 0, 0, 0},
		"code":                  {unix.SYS_MMAP, 0, 4096, unix.PROT_READ | unix.PROT_EXEC, unix.MAP_PRIVATE | unix.MAP_ANON, ^uint64(0), 0},
		"memory turned to code": {unix.SYS_MPROTECT, 0, 4096, unix.PROT_EXEC},
	} {
		all[what] = c
	}
	return all
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
