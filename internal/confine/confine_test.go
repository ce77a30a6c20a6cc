package confine

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sys/proc"
)

// The test program plays three parts: the tests, the hidden verb, and the
// confined program, which tries one thing and prints how it ended.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case Verb:
			err := Main(os.Args[2:])
			fmt.Fprintln(os.Stderr, err)
			os.Exit(125)
		case "server": // confines itself, as a share server does
			var p Profile
			err := json.Unmarshal([]byte(os.Args[2]), &p)
			if err == nil {
				_, err = Apply(p)
			}
			if err != nil {
				fmt.Println(err)
				os.Exit(125)
			}
			fmt.Println(describe(try(os.Args[3], os.Args[4:])))
			syscall.Exit(0)
		case "files": // has Landlock, and no filter
			fmt.Println(describe(errors.Join(onlyFiles(), try(os.Args[2], os.Args[3:]))))
			syscall.Exit(0)
		case "try":
			fmt.Println(describe(try(os.Args[2], os.Args[3:])))
			syscall.Exit(0) // os.Exit would sleep a second under the race detector
		case "parent":
			parent()
		}
	}
	os.Exit(m.Run())
}

// describe names an error by its errno, so that tests can tell a refusal from
// another failure.
func describe(err error) string {
	if err == nil {
		return "ok"
	}
	var no syscall.Errno
	if errors.As(err, &no) {
		return unix.ErrnoName(no)
	}
	return err.Error()
}

// attempts are the things that a confined program tries, by name.
var attempts = map[string]func(a []string) error{
	"read":       tryRead,
	"list":       tryList,
	"write":      tryWrite,
	"create":     tryCreate,
	"truncate":   func(a []string) error { return os.Truncate(a[0], 0) },
	"mkdir":      func(a []string) error { return os.Mkdir(a[0], 0o700) },
	"fifo":       func(a []string) error { return unix.Mkfifo(a[0], 0o600) },
	"device":     func(a []string) error { return unix.Mknod(a[0], unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))) },
	"remove":     func(a []string) error { return os.Remove(a[0]) },
	"rename":     func(a []string) error { return os.Rename(a[0], a[1]) },
	"link":       func(a []string) error { return os.Link(a[0], a[1]) },
	"chmod":      func(a []string) error { return os.Chmod(a[0], 0o777) },
	"chown":      func(a []string) error { return os.Chown(a[0], os.Getuid(), os.Getgid()) },
	"utimes":     func(a []string) error { return os.Chtimes(a[0], time.Unix(1, 0), time.Unix(1, 0)) },
	"setxattr":   func(a []string) error { return unix.Setxattr(a[0], "user.bawn", []byte("x"), 0) },
	"exec":       func(a []string) error { return unix.Exec(a[0], a, nil) },
	"fork":       tryFork,
	"call":       tryCall,
	"dial":       tryDial,
	"socket":     trySocket,
	"socketpair": trySocketpair,
	"signal":     trySignal,
	"ptrace":     tryPtrace,
	"unshare":    func([]string) error { return unix.Unshare(unix.CLONE_NEWUSER) },
	"clone":      tryClone,
	"io_uring":   tryIOURing,
	"reflink":    func([]string) error { return unix.IoctlFileClone(-1, -1) },
	"map code": func([]string) error {
		_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
		return err
	},
	"turn memory into code": func([]string) error {
		m, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return err
		}
		return unix.Mprotect(m, unix.PROT_READ|unix.PROT_EXEC)
	},
	"fdread":  tryReadInherited,
	"selffd":  tryReopenInherited,
	"threads": tryThreads,
	"status":  tryStatus,
}

// try makes one attempt and returns how it ended.
func try(what string, a []string) error {
	attempt, ok := attempts[what]
	if !ok {
		return errors.New("unknown " + what)
	}
	return attempt(a)
}

func tryRead(a []string) error {
	_, err := os.ReadFile(a[0])
	return err
}

func tryList(a []string) error {
	_, err := os.ReadDir(a[0])
	return err
}

func tryWrite(a []string) error {
	f, err := os.OpenFile(a[0], os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString("x")
	}
	return err
}

func tryCreate(a []string) error {
	_, err := os.Create(a[0])
	return err
}

func tryDial(a []string) error {
	c, err := net.Dial(a[0], a[1])
	if err == nil && a[0] == "udp" {
		_, err = c.Write([]byte("x"))
	}
	return err
}

func trySocket(a []string) error {
	family, _ := strconv.Atoi(a[0])
	kind, _ := strconv.Atoi(a[1])
	_, err := unix.Socket(family, kind, 0)
	return err
}

func trySocketpair(a []string) error {
	kind, _ := strconv.Atoi(a[0])
	p, err := unix.Socketpair(unix.AF_UNIX, kind, 0)
	if err == nil {
		_, err = unix.Write(p[0], []byte("x"))
	}
	return err
}

func trySignal(a []string) error {
	pid, _ := strconv.Atoi(a[0])
	return unix.Kill(pid, 0)
}

func tryPtrace(a []string) error {
	pid, _ := strconv.Atoi(a[0])
	return unix.PtraceAttach(pid)
}

func tryClone(_ []string) error {
	// Given its own descriptors, os/exec need not open /dev/null.
	return (&exec.Cmd{Path: "/proc/self/exe", Stdin: os.Stdin, Stdout: os.Stdin, Stderr: os.Stdin, SysProcAttr: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}}).Run()
}

// tryFork starts a process. Given its own descriptors, os/exec need not open /dev/null.
func tryFork(a []string) error {
	return (&exec.Cmd{Path: a[0], Stdin: os.Stdin, Stdout: os.Stdin, Stderr: os.Stdin}).Run()
}

// tryCall makes the system call of a name in the table of denied calls.
func tryCall(a []string) error {
	parent, _ := strconv.Atoi(a[1])
	for _, d := range deniedCalls(uint64(parent)) {
		if d.name == a[0] {
			var args [6]uintptr
			for i, v := range d.args {
				args[i] = uintptr(v)
			}
			_, _, e := unix.Syscall6(uintptr(d.nr), args[0], args[1], args[2], args[3], args[4], args[5])
			if e != 0 {
				return e
			}
			return nil
		}
	}
	return errors.New("no such call: " + a[0])
}

func tryIOURing(_ []string) error {
	var params [120]byte
	_, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
	if e != 0 {
		return e
	}
	return nil
}

// tryReadInherited reads an inherited descriptor.
func tryReadInherited(a []string) error {
	fd, _ := strconv.Atoi(a[0])
	_, err := io.ReadAll(os.NewFile(uintptr(fd), "inherited"))
	return err
}

// tryReopenInherited opens an inherited descriptor again, as QEMU does with its memory.
func tryReopenInherited(a []string) error {
	f, err := os.OpenFile("/proc/self/fd/"+a[0], os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteString("x")
	}
	return err
}

// tryThreads reads from many threads: each must be restricted, old and new ones.
func tryThreads(a []string) error {
	errs := make(chan error)
	for range 20 {
		go func() {
			runtime.LockOSThread()
			_, err := os.ReadFile(a[0])
			errs <- err
		}()
	}
	for range 20 {
		if err := <-errs; describe(err) != "EACCES" {
			return fmt.Errorf("a thread could read: %w", err)
		}
	}
	return nil
}

func tryStatus(_ []string) error {
	var core unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &core); err != nil {
		return err
	}
	nnp, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err != nil {
		return err
	}
	wd, _ := os.Getwd()
	var caps [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &caps[0]); err != nil {
		return err
	}
	bounding := 0
	for c := range uintptr(unix.CAP_LAST_CAP + 1) {
		if has, _ := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0); has == 1 {
			bounding++
		}
	}
	if os.Geteuid() != 0 {
		bounding = 0 // there is nothing to be had by it
	}
	return fmt.Errorf("core %d/%d nnp %d caps %v %d wd %s env %v", core.Cur, core.Max, nnp, caps, bounding, wd, os.Environ())
}

// onlyFiles applies Landlock as a Profile without any path does, and no filter.
func onlyFiles() error {
	rules, err := Profile{}.rules(Probe(Profile{}).ABI)
	if err != nil {
		return err
	}
	return restrictFiles(rules)
}

// itself lets the test program run under a profile (with -race it is dynamic).
func itself(t *testing.T, p Profile) Profile {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p.ReadExec = append(p.ReadExec, exe, "/lib", "/lib64", "/usr/lib", "/etc/ld.so.cache")
	return p
}

// confined runs one attempt under p and returns how it ended.
func confined(t *testing.T, p Profile, files []*os.File, attempt ...string) string {
	t.Helper()
	exe, _ := os.Executable()
	cmd, err := Command(exe, itself(t, p), append([]string{exe, "try"}, attempt...), files...)
	if p.Role == FileServer {
		var text []byte
		text, err = json.Marshal(p)
		cmd = exec.Command(exe, append([]string{"server", string(text)}, attempt...)...)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", attempt, err)
	}
	return strings.TrimSpace(string(out))
}

func needLandlock(t *testing.T, abi int) {
	t.Helper()
	if l := Probe(Profile{}); l.ABI < abi {
		t.Skipf("this kernel has %v, the case needs ABI %d", l, abi)
	}
}

func TestFiles(t *testing.T) {
	needLandlock(t, 3)
	root := t.TempDir()
	path := func(names ...string) string { return filepath.Join(append([]string{root}, names...)...) }
	for _, d := range []string{"ro", "rw", "rw/a", "rw/b", "out"} {
		if err := os.Mkdir(path(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"ro/f", "rw/f", "rw/a/f", "out/f", "one"} {
		if err := os.WriteFile(path(f), []byte("hello"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(path("out/f"), path("rw/link")); err != nil {
		t.Fatal(err)
	}
	p := Profile{
		Role:  FileServer,
		Read:  []string{path("ro"), path("absent")},
		Write: []string{path("rw"), path("one")},
		Refer: true,
	}
	emulator := p
	emulator.Role = Emulator
	norefer := p
	norefer.Refer = false
	for _, c := range []struct {
		p    Profile
		try  []string
		want string
	}{
		{p, []string{"read", path("ro/f")}, "ok"},
		{p, []string{"list", path("ro")}, "ok"},
		{p, []string{"write", path("ro/f")}, "EACCES"},
		{p, []string{"truncate", path("ro/f")}, "EACCES"},
		{p, []string{"create", path("ro/new")}, "EACCES"},
		{p, []string{"exec", path("ro/f")}, "EPERM"},
		{p, []string{"read", path("out/f")}, "EACCES"},
		{p, []string{"list", path("out")}, "EACCES"},
		{p, []string{"list", root}, "EACCES"},
		{p, []string{"write", path("out/f")}, "EACCES"},
		{p, []string{"remove", path("out/f")}, "EACCES"},
		{p, []string{"mkdir", path("out/d")}, "EACCES"},
		{p, []string{"read", path("rw/link")}, "EACCES"},
		{p, []string{"read", path("rw/../out/f")}, "EACCES"},
		{p, []string{"read", "/etc/passwd"}, "EACCES"},
		{p, []string{"read", "/proc/self/environ"}, "EACCES"},
		{p, []string{"exec", "/bin/true"}, "EPERM"},
		{emulator, []string{"exec", "/bin/true"}, "EACCES"}, // by Landlock alone
		{emulator, []string{"read", path("ro/f")}, "ok"},
		{emulator, []string{"read", path("out/f")}, "EACCES"},
		{emulator, []string{"mkdir", path("rw/d2")}, "EPERM"}, // it makes no files
		{p, []string{"fork", "/bin/true"}, "EPERM"},
		{emulator, []string{"fork", "/bin/true"}, "EPERM"},
		{p, []string{"threads", path("out/f")}, "ok"},
		{p, []string{"write", path("one")}, "ok"},
		{p, []string{"truncate", path("one")}, "ok"},
		{p, []string{"write", path("rw/f")}, "ok"},
		{p, []string{"create", path("rw/new")}, "ok"},
		{p, []string{"mkdir", path("rw/d")}, "ok"},
		{p, []string{"fifo", path("rw/fifo")}, "ok"},
		{p, []string{"device", path("rw/null")}, "EACCES|EPERM"}, // EPERM where not root
		{p, []string{"chmod", path("rw/f")}, "ok"},
		{norefer, []string{"rename", path("rw/a/f"), path("rw/b/f")}, "EXDEV"},
		{p, []string{"rename", path("rw/a/f"), path("out/stolen")}, "EACCES|EXDEV"},
		{p, []string{"rename", path("out/f"), path("rw/stolen")}, "EACCES|EXDEV"},
		{p, []string{"link", path("out/f"), path("rw/stolen")}, "EACCES|EXDEV"},
		{p, []string{"rename", path("rw/a/f"), path("rw/b/f")}, "ok"},
		{p, []string{"remove", path("rw/b/f")}, "ok"},
	} {
		got := confined(t, c.p, nil, c.try...)
		if !strings.Contains("|"+c.want+"|", "|"+got+"|") {
			t.Errorf("%v: %s, want %s", c.try, got, c.want)
		}
	}
}

// counter is a listener that counts who reached it.
func counter(t *testing.T, network, addr string) (net.Listener, chan struct{}) {
	t.Helper()
	// MPTCP off: it is a protocol of its own, and Go's default for listeners.
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(t.Context(), network, addr)
	if err != nil {
		t.Fatal(err)
	}
	hit := make(chan struct{}, 10)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			hit <- struct{}{}
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close() })
	return l, hit
}

func TestNetwork(t *testing.T) {
	dir := t.TempDir()
	_, hitUnix := counter(t, "unix", filepath.Join(dir, "s"))
	_, hitAbstract := counter(t, "unix", "@bawn-confine-"+strconv.Itoa(os.Getpid()))
	tcp, hitTCP := counter(t, "tcp", "127.0.0.1:0")
	abstract := "@bawn-confine-" + strconv.Itoa(os.Getpid())

	p := Profile{Role: Emulator, Write: []string{dir}}
	num := strconv.Itoa
	for _, c := range []struct {
		try  []string
		want string
	}{
		{[]string{"dial", "unix", filepath.Join(dir, "s")}, "EPERM"},
		{[]string{"dial", "unix", abstract}, "EPERM"},
		{[]string{"dial", "tcp", tcp.Addr().String()}, "EPERM"},
		{[]string{"dial", "udp", "127.0.0.1:9"}, "EPERM"},
		{[]string{"socket", num(unix.AF_UNIX), num(unix.SOCK_DGRAM)}, "EPERM"},
		{[]string{"socket", num(unix.AF_NETLINK), num(unix.SOCK_RAW)}, "EPERM"},
		{[]string{"socket", num(unix.AF_VSOCK), num(unix.SOCK_STREAM)}, "EPERM"},
		{[]string{"socketpair", num(unix.SOCK_DGRAM)}, "EPERM"},
		{[]string{"socketpair", num(unix.SOCK_STREAM | unix.SOCK_CLOEXEC)}, "EPERM"},
		{[]string{"io_uring"}, "ENOSYS"},
	} {
		if got := confined(t, p, nil, c.try...); got != c.want {
			t.Errorf("%v: %s, want %s", c.try, got, c.want)
		}
	}
	for name, hit := range map[string]chan struct{}{"unix": hitUnix, "abstract": hitAbstract, "tcp": hitTCP} {
		if len(hit) != 0 {
			t.Errorf("the %s listener was reached", name)
		}
	}

	// The counters count: unconfined, the same attempts arrive. And without the filter,
	// Landlock alone still refuses what it knows.
	if err := try("dial", []string{"unix", filepath.Join(dir, "s")}); err != nil {
		t.Fatal(err)
	}
	<-hitUnix
	needLandlock(t, 6)
	for _, c := range [][]string{
		{"dial", "unix", abstract},
		{"dial", "tcp", tcp.Addr().String()},
	} {
		exe, _ := os.Executable()
		out, err := exec.Command(exe, append([]string{"files"}, c...)...).Output()
		if got := strings.TrimSpace(string(out)); err != nil || got != "EPERM" && got != "EACCES" {
			t.Errorf("by Landlock alone, %v: %s, %v", c, got, err)
		}
	}
}

func TestAttributes(t *testing.T) {
	f := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(f, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := Profile{Role: FileServer, NoAttributes: true, Write: []string{f}}
	for _, what := range []string{"chmod", "chown", "utimes", "setxattr"} {
		if got := confined(t, p, nil, what, f); got != "EPERM" {
			t.Errorf("%s: %s, want EPERM", what, got)
		}
		q := p
		q.Role, q.NoAttributes = Emulator, false
		if got := confined(t, q, nil, what, f); got != "EPERM" {
			t.Errorf("an emulator, %s: %s, want EPERM", what, got)
		}
		q.Role = FileServer
		if got := confined(t, q, nil, what, f); got == "EPERM" {
			t.Errorf("a server of a share that can be written to, %s: %s", what, got)
		}
	}
}

func TestProcesses(t *testing.T) {
	me := strconv.Itoa(os.Getpid())
	p := Profile{Role: Emulator}
	for what, want := range map[string]string{"ptrace": "EPERM", "unshare": "EPERM", "clone": "EPERM"} {
		if got := confined(t, p, nil, what, me); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	want := "core 1/1 nnp 1 caps [{0 0 0} {0 0 0}] 0 wd / env [PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8]"
	if got := confined(t, p, nil, "status"); got != want {
		t.Errorf("status %q, want %q", got, want)
	}
	if got := confined(t, p, nil, "signal", me); got != "EPERM" {
		t.Errorf("signal to the parent: %s, want EPERM", got)
	}
}

// What was passed on purpose works, also opened anew through /proc (a memfd is
// on no file system that Landlock governs); what leaked is closed.
func TestDescriptors(t *testing.T) {
	fd, err := unix.MemfdCreate("ram", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	ram := os.NewFile(uintptr(fd), "ram")
	defer ram.Close()
	leak, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0) // no O_CLOEXEC, on purpose
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)

	files := []*os.File{ram}
	if got := confined(t, Profile{Role: Emulator}, files, "selffd", "3"); got != "ok" {
		t.Errorf("open RAM anew: %s", got)
	}
	if b := make([]byte, 1); true {
		if n, err := ram.ReadAt(b, 0); n != 1 || b[0] != 'x' {
			t.Errorf("RAM is not shared: %q, %v", b[:n], err)
		}
	}
	if got := confined(t, Profile{Role: Emulator}, files, "fdread", "3"); got != "ok" {
		t.Errorf("inherited descriptor: %s", got)
	}
	if got := confined(t, Profile{Role: Emulator}, nil, "fdread", strconv.Itoa(leak)); got != "EBADF" {
		t.Errorf("leaked descriptor %d: %s, want EBADF", leak, got)
	}
}

// parent starts a child under a proc.Spawner, prints its pid, and is killed by the
// test. Goroutines that lock and leave make the runtime drop threads meanwhile.
func parent() {
	s := proc.NewSpawner()
	cmd := exec.Command("sleep", "1000")
	if err := s.Start(cmd); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for range 10 {
		done := make(chan bool)
		go func() { runtime.LockOSThread(); close(done) }()
		<-done
	}
	fmt.Println(cmd.Process.Pid)
	select {}
}

func TestChildDiesWithParent(t *testing.T) {
	exe, _ := os.Executable()
	cmd := exec.Command(exe, "parent")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatalf("parent said %q", line)
	}
	child, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(child)
	if sid, err := unix.Getsid(pid); err != nil || sid != pid {
		t.Errorf("session of the child: %d, %v; want its own, %d", sid, err, pid)
	}
	poll := []unix.PollFd{{Fd: int32(child), Events: unix.POLLIN}}
	if n, err := unix.Poll(poll, 0); n != 0 || err != nil {
		t.Fatalf("the child ended before its parent: %d, %v", n, err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	for { // until the child has ended; the test's own limit is the guard
		n, err := unix.Poll(poll, -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n != 1 || err != nil {
			t.Fatalf("wait for the child: %d, %v", n, err)
		}
		return
	}
}

func TestLevel(t *testing.T) {
	for _, c := range []struct {
		abi  int
		p    Profile
		want string
	}{
		{7, Profile{}, "Landlock ABI 7"},
		{0, Profile{Refer: true}, "no Landlock: files are not restricted: boot a kernel with Landlock (5.13 or later, lsm=landlock,...)"},
		{5, Profile{}, "Landlock ABI 5: signals to the user's other processes are not restricted"},
		{1, Profile{Refer: true}, "Landlock ABI 1: renaming from one directory to another is refused; truncating a file that may be opened is not restricted; ioctl on devices that may be opened is not restricted; signals to the user's other processes are not restricted"},
	} {
		l := levelFor(c.abi, c.p)
		if l.String() != c.want || l.Full() != (c.abi >= 6) {
			t.Errorf("ABI %d: %q (full %v), want %q", c.abi, l, l.Full(), c.want)
		}
	}
}

func TestMainRefuses(t *testing.T) {
	for _, args := range [][]string{
		nil,
		{"{}"},
		{"{}", "--"},
		{"{}", "/bin/true", "--"},
		{"not json", "--", "/bin/true"},
		{`{"keep":-1}`, "--", "/bin/true"},
	} {
		if err := Main(args); err == nil {
			t.Errorf("Main(%q) took it", args)
		}
	}
	if _, err := Command("/bawn", Profile{}, nil); err == nil {
		t.Error("Command took an empty program")
	}
	if _, err := (Profile{Read: []string{"relative"}}).rules(7); err == nil {
		t.Error("a relative path was taken")
	}
}
