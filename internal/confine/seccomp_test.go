package confine

import (
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// denied is a system call that no confined process may make.
type denied struct {
	name string
	nr   uint64
	args []uint64
	want string // the answer; EPERM where it is empty
}

// deniedCalls has one attempt for each kind of call that could reach outside the process.
// victim is another process of the user.
func deniedCalls(victim uint64) []denied {
	const self = 0
	nowhere := uint64(0) // an address; the filter answers before the kernel looks
	return []denied{
		{"System V shared memory", unix.SYS_SHMGET, []uint64{1, 4096, 0o1600}, ""},
		{"attach shared memory", unix.SYS_SHMAT, []uint64{1, 0, 0}, ""},
		{"System V semaphores", unix.SYS_SEMGET, []uint64{1, 1, 0o1600}, ""},
		{"System V messages", unix.SYS_MSGGET, []uint64{1, 0o1600}, ""},
		{"POSIX messages", unix.SYS_MQ_OPEN, []uint64{nowhere, 0, 0, 0}, ""},
		{"limits of another process", unix.SYS_PRLIMIT64, []uint64{victim, unix.RLIMIT_NOFILE, 0, nowhere}, ""},
		{"priority of another process", unix.SYS_SETPRIORITY, []uint64{0, victim, 19}, ""},
		{"scheduling of another process", unix.SYS_SCHED_SETSCHEDULER, []uint64{victim, 0, nowhere}, ""},
		{"scheduling attributes", unix.SYS_SCHED_SETATTR, []uint64{victim, nowhere, 0}, ""},
		{"processors of another process", unix.SYS_SCHED_SETAFFINITY, []uint64{victim, 8, nowhere}, ""},
		{"I/O priority of another process", unix.SYS_IOPRIO_SET, []uint64{1, victim, 0}, ""},
		{"pages of another process", unix.SYS_MIGRATE_PAGES, []uint64{victim, 0, nowhere, nowhere}, ""},
		{"move another's pages", unix.SYS_MOVE_PAGES, []uint64{victim, 0, nowhere, nowhere, nowhere, 0}, ""},
		{"robust list of another process", unix.SYS_GET_ROBUST_LIST, []uint64{victim, nowhere, nowhere}, ""},
		{"signal to another process", unix.SYS_KILL, []uint64{victim, 0}, ""},
		{"signal to all", unix.SYS_KILL, []uint64{^uint64(0), 0}, ""},
		{"signal to its group", unix.SYS_KILL, []uint64{self, 0}, ""},
		{"signal to another's thread", unix.SYS_TGKILL, []uint64{victim, victim, 0}, ""},
		{"signal by thread alone", unix.SYS_TKILL, []uint64{victim, 0}, ""},
		{"queue a signal", unix.SYS_RT_SIGQUEUEINFO, []uint64{victim, 0, nowhere}, ""},
		{"pidfd", unix.SYS_PIDFD_OPEN, []uint64{victim, 0}, ""},
		{"pidfd signal", unix.SYS_PIDFD_SEND_SIGNAL, []uint64{0, 0, nowhere, 0}, ""},
		{"another's descriptor", unix.SYS_PIDFD_GETFD, []uint64{0, 0, 0}, ""},
		{"ptrace", unix.SYS_PTRACE, []uint64{unix.PTRACE_ATTACH, victim, 0, 0}, ""},
		{"read another's memory", unix.SYS_PROCESS_VM_READV, []uint64{victim, 0, 0, 0, 0, 0}, ""},
		{"write another's memory", unix.SYS_PROCESS_VM_WRITEV, []uint64{victim, 0, 0, 0, 0, 0}, ""},
		{"compare processes", unix.SYS_KCMP, []uint64{victim, victim, 0, 0, 0}, ""},
		{"fanotify", unix.SYS_FANOTIFY_INIT, []uint64{0, 0}, ""},
		{"dnotify", unix.SYS_FCNTL, []uint64{0, unix.F_NOTIFY, 1}, ""},
		{"inotify", unix.SYS_INOTIFY_INIT1, []uint64{0}, ""},
		{"signals about a file to others", unix.SYS_FCNTL, []uint64{0, unix.F_SETOWN, victim}, ""},
		{"a file by handle", unix.SYS_OPEN_BY_HANDLE_AT, []uint64{0, nowhere, 0}, ""},
		{"a handle", unix.SYS_NAME_TO_HANDLE_AT, []uint64{0, nowhere, nowhere, nowhere, 0}, ""},
		{"keys", unix.SYS_KEYCTL, []uint64{0, 0, 0, 0, 0}, ""},
		{"add a key", unix.SYS_ADD_KEY, []uint64{nowhere, nowhere, 0, 0, 0}, ""},
		{"bpf", unix.SYS_BPF, []uint64{0, nowhere, 0}, ""},
		{"perf", unix.SYS_PERF_EVENT_OPEN, []uint64{nowhere, 0, 0, 0, 0}, ""},
		{"userfaultfd", unix.SYS_USERFAULTFD, []uint64{0}, ""},
		{"a socket", unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_STREAM, 0}, ""},
		{"a Unix socket", unix.SYS_SOCKET, []uint64{unix.AF_UNIX, unix.SOCK_STREAM, 0}, ""},
		{"a netlink socket", unix.SYS_SOCKET, []uint64{unix.AF_NETLINK, unix.SOCK_RAW, 0}, ""},
		{"a vsock socket", unix.SYS_SOCKET, []uint64{unix.AF_VSOCK, unix.SOCK_STREAM, 0}, ""},
		{"a pair of sockets", unix.SYS_SOCKETPAIR, []uint64{unix.AF_UNIX, unix.SOCK_DGRAM, 0, nowhere}, ""},
		{"connect", unix.SYS_CONNECT, []uint64{0, nowhere, 0}, ""},
		{"bind", unix.SYS_BIND, []uint64{0, nowhere, 0}, ""},
		{"listen", unix.SYS_LISTEN, []uint64{0, 0}, ""},
		{"io_uring", unix.SYS_IO_URING_SETUP, []uint64{1, nowhere}, "ENOSYS"},
		{"asynchronous I/O", unix.SYS_IO_SETUP, []uint64{1, nowhere}, ""},
		{"namespaces", unix.SYS_UNSHARE, []uint64{unix.CLONE_NEWUSER}, ""},
		{"enter a namespace", unix.SYS_SETNS, []uint64{0, 0}, ""},
		{"a process", unix.SYS_CLONE, []uint64{uint64(unix.SIGCHLD), 0, 0, 0, 0}, ""},
		{"a process in a namespace", unix.SYS_CLONE, []uint64{unix.CLONE_NEWUSER | unix.CLONE_THREAD, 0, 0, 0, 0}, ""},
		{"clone3", unix.SYS_CLONE3, []uint64{nowhere, 0}, "ENOSYS"},
		{"execveat", unix.SYS_EXECVEAT, []uint64{0, nowhere, nowhere, nowhere, 0}, ""},
		{"mount", unix.SYS_MOUNT, []uint64{nowhere, nowhere, nowhere, 0, nowhere}, ""},
		{"a new mount", unix.SYS_FSOPEN, []uint64{nowhere, 0}, ""},
		{"chroot", unix.SYS_CHROOT, []uint64{nowhere}, ""},
		{"user", unix.SYS_SETUID, []uint64{0}, ""},
		{"group", unix.SYS_SETGID, []uint64{0}, ""},
		{"capabilities", unix.SYS_CAPSET, []uint64{nowhere, nowhere}, ""},
		{"executable memory by personality", unix.SYS_PERSONALITY, []uint64{0x0400000}, ""},
		{"dumps", unix.SYS_PRCTL, []uint64{unix.PR_SET_DUMPABLE, 1}, ""},
		{"securebits", unix.SYS_PRCTL, []uint64{unix.PR_SET_SECUREBITS, 0}, ""},
		{"let others trace it", unix.SYS_PRCTL, []uint64{unix.PR_SET_PTRACER, victim}, ""},
		{"the kernel's log", unix.SYS_SYSLOG, []uint64{10, 0, 0}, ""},
		{"modules", unix.SYS_FINIT_MODULE, []uint64{0, nowhere, 0}, ""},
		{"the clock", unix.SYS_CLOCK_SETTIME, []uint64{0, nowhere}, ""},
		{"reboot", unix.SYS_REBOOT, []uint64{0, 0, 0, 0}, ""},
		{"terminal input", unix.SYS_IOCTL, []uint64{0, unix.TIOCSTI, nowhere}, "EPERM ENOTTY"},
		{"terminal selection", unix.SYS_IOCTL, []uint64{0, unix.TIOCLINUX, nowhere}, "EPERM ENOTTY"},
		{"a call newer than the lists", newest + 1, nil, "ENOSYS"},
		{"a call of the x32 ABI", 0x40000000 | unix.SYS_READ, nil, "ENOSYS"},
	}
}

// TestDeniedCalls makes each call, in a confined process of each role.
func TestDeniedCalls(t *testing.T) {
	me := uint64(os.Getpid())
	for _, role := range []Role{Emulator, FileServer} {
		for _, d := range deniedCalls(me) {
			got := confined(t, Profile{Role: role}, nil, "call", d.name, strconv.FormatUint(me, 10))
			if want := d.want; got != want && (want != "" || got != "EPERM") && (want != "EPERM ENOTTY" || got != "EPERM" && got != "ENOTTY") {
				t.Errorf("%s, %s: %s", role, d.name, got)
			}
		}
	}
}

// TestTheFilterAnswersForEveryNumber runs the filter's program, as the kernel does, for each
// system call and compares the answer with the lists.
func TestTheFilterAnswersForEveryNumber(t *testing.T) {
	for _, p := range []Profile{{Role: Emulator}, {Role: FileServer}, {Role: FileServer, NoAttributes: true}} {
		calls, err := p.calls(1234)
		if err != nil {
			t.Fatal(err)
		}
		prog, err := program(calls)
		if err != nil {
			t.Fatal(err)
		}
		for nr := range uint32(1000) {
			want := errno(unix.EPERM)
			a, ok := calls[nr]
			switch {
			case ok && a.check == nil:
				want = a.action
			case ok:
				want = run(t, append([]unix.SockFilter{}, a.check...), nr, auditArch)
			case nr > newest:
				want = errno(unix.ENOSYS)
			}
			if got := run(t, prog, nr, auditArch); got != want {
				t.Errorf("%+v, call %d: %#x, want %#x", p, nr, got, want)
			}
			if got := run(t, prog, nr, auditArch+1); got != errno(unix.ENOSYS) {
				t.Errorf("%+v, call %d of another architecture: %#x", p, nr, got)
			}
		}
	}
}

// run interprets a filter (bpf(4)) for a call whose arguments are all zero.
func run(t *testing.T, prog []unix.SockFilter, nr, arch uint32) uint32 {
	t.Helper()
	data := map[uint32]uint32{dataNr: nr, dataArch: arch}
	var a uint32
	for pc, steps := 0, 0; steps < 64; steps++ {
		i := prog[pc]
		pc++
		yes := false
		switch i.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			a = data[i.K]
			continue
		case unix.BPF_RET | unix.BPF_K:
			return i.K
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			a &= i.K
			continue
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(i.K)
			continue
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			yes = a == i.K
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			yes = a >= i.K
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			yes = a&i.K != 0
		default:
			t.Fatalf("instruction %+v", i)
		}
		if yes {
			pc += int(i.Jt)
		} else {
			pc += int(i.Jf)
		}
	}
	t.Fatalf("call %d: the filter takes more than 64 instructions", nr)
	return 0
}

// TestAProfileWithoutARoleIsRefused: nothing runs with less than a filter.
func TestAProfileWithoutARoleIsRefused(t *testing.T) {
	for _, role := range []Role{"", "other"} {
		if _, err := (Profile{Role: role}).calls(1); err == nil {
			t.Errorf("role %q was taken", role)
		}
	}
}

// TestAFileServerMapsNoCode: not even what it could write.
func TestAFileServerMapsNoCode(t *testing.T) {
	for _, what := range []string{"map code", "turn memory into code"} {
		if got := confined(t, Profile{Role: FileServer}, nil, what); got != "EPERM" {
			t.Errorf("%s: %s", what, got)
		}
		if got := confined(t, Profile{Role: Emulator}, nil, what); got != "ok" { // it translates the guest's code
			t.Errorf("an emulator, %s: %s", what, got)
		}
	}
}

// TestAFileServerMayClone: FICLONE is not refused by the filter, as other requests are.
func TestAFileServerMayClone(t *testing.T) {
	got := confined(t, Profile{Role: FileServer}, nil, "reflink")
	if got != "EBADF" {
		t.Errorf("FICLONE of no file: %s, not EBADF", got)
	}
}
