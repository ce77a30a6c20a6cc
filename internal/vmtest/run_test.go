//go:build vm

package vmtest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"time"

	"github.com/creack/pty"
)

func TestSessionStatus(t *testing.T) {
	dir := shared(t)
	for _, c := range []struct {
		args []string
		code int
	}{
		{[]string{"true"}, 0},
		{[]string{"sh", "-c", "exit 7"}, 7},
		{[]string{"sh", "-c", "exit 125"}, 125},
		{[]string{"sh", "-c", "kill -TERM $$"}, 128 + 15},
		{[]string{"sh", "-c", "kill -KILL $$"}, 128 + 9},
		{[]string{"sh", "-c", "kill -SEGV $$"}, 128 + 11},
		{[]string{"no-such-command"}, 127},
		{[]string{"./no-such-command"}, 127},
		{[]string{"/etc/passwd"}, 126},
		{[]string{"/etc"}, 126},
	} {
		if r := bawn(t, dir, append([]string{"run", "--"}, c.args...)...); r.code != c.code {
			t.Errorf("%q: exit status %d, want %d: %s", c.args, r.code, c.code, r.err)
		}
	}
}

func TestSessionArgumentsAreExact(t *testing.T) {
	dir := shared(t)
	args := []string{"run", "--", "printf", "<%s>", "", "a b", "$HOME", "'", `"\`, "-x", "ü\xff", "*", "new\nline"}
	if got, want := must(t, dir, args...), "<"+strings.Join(args[4:], "><")+">"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestSessionPlace(t *testing.T) {
	dir := shared(t)
	sub := temp(t)
	if got := must(t, sub, "run", "--", "pwd"); got != sub+"\n" {
		t.Errorf("from a subdirectory: %q", got)
	}
	if got := must(t, dir, "run", "--", "pwd"); got != dir+"\n" {
		t.Errorf("%q", got)
	}
	if got := must(t, "/", "exec", "shared", "--", "pwd"); got != dir+"\n" {
		t.Errorf("exec: %q", got)
	}
	if got := must(t, dir, "run", "--", "uname", "-r"); !strings.Contains(got, "deb13") {
		t.Errorf("kernel %q", got)
	}
}

func TestSessionUser(t *testing.T) {
	dir := shared(t)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := sh(t, dir, "id -u; id -g"), fmt.Sprintf("%d\n%d\n", os.Getuid(), os.Getgid()); got != want {
		t.Errorf("ids %q, want %q", got, want)
	}
	if got := sh(t, dir, "whoami; sudo -n id -u"); got != me.Username+"\n0\n" {
		t.Errorf("%q", got)
	}
	if got := sh(t, dir, `cd; test -w . && test -O . && pwd`); !strings.HasPrefix(got, "/") || got == "/\n" {
		t.Errorf("home %q", got)
	}
	if got := must(t, dir, "run", "--user", "root", "--", "id", "-u"); got != "0\n" {
		t.Errorf("--user root: %q", got)
	}
	fails(t, dir, 125, "no such user in the guest: nobody-here", "run", "--user", "nobody-here", "--", "true")
}

func TestSessionEnvironment(t *testing.T) {
	dir := shared(t)
	secret := []string{"AWS_SECRET_ACCESS_KEY=hunter2", "SSH_AUTH_SOCK=/run/agent", "GIVEN=value", "TZ=UTC", "COLORTERM=truecolor"}
	r := bawnAt(t.Context(), dir, nil, secret, "run", "-e", "GIVEN", "-e", "SET=x=y", "-e", "ABSENT_ON_HOST", "--", "env")
	if r.code != 0 {
		t.Fatal(r.err)
	}
	for _, want := range []string{"GIVEN=value", "SET=x=y", "TERM=xterm", "LANG=C.UTF-8", "COLORTERM=truecolor", "TZ=UTC"} {
		if !strings.Contains("\n"+r.out, "\n"+want+"\n") {
			t.Errorf("%s is missing:\n%s", want, r.out)
		}
	}
	for _, not := range []string{"hunter2", "SSH_AUTH_SOCK", "ABSENT_ON_HOST", "XDG_", base + "/state"} {
		if strings.Contains(r.out, not) {
			t.Errorf("%s went in:\n%s", not, r.out)
		}
	}
}

func TestSessionStreams(t *testing.T) {
	dir := shared(t)
	r := bawn(t, dir, "run", "--", "sh", "-c", "echo out; echo err >&2")
	if r.out != "out\n" || r.err != "err\n" {
		t.Errorf("out %q, err %q", r.out, r.err)
	}
	data := make([]byte, 5<<20)
	_, _ = rand.Read(data)
	r = bawnAt(t.Context(), dir, bytes.NewReader(data), nil, "run", "--", "cat")
	if r.code != 0 || r.out != string(data) {
		t.Errorf("5 MiB through cat: %d bytes, status %d, %s", len(r.out), r.code, r.err)
	}
	// The command's end of input comes while its output is still to come.
	r = bawnAt(t.Context(), dir, strings.NewReader("a\nb\n"), nil, "run", "--", "sh", "-c", "wc -l; echo after")
	if r.out != "2\nafter\n" {
		t.Errorf("half-close: %q", r.out)
	}
	// A reader that goes away ends the writer by SIGPIPE, not by a hang.
	c := command(t.Context(), dir, "run", "--", "yes")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.ReadFull(out, make([]byte, 1000))
	out.Close()
	_ = c.Wait()
	// Nor does one hang whose output has no room here.
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	c = command(t.Context(), dir, "run", "--", "yes")
	var said strings.Builder
	c.Stdout, c.Stderr = full, &said
	if _ = c.Run(); c.ProcessState.ExitCode() != 125 || !strings.Contains(said.String(), "bawn: write the command's output: ") || !strings.Contains(said.String(), "no space left") {
		t.Errorf("/dev/full: %v, %q", c.ProcessState, said.String())
	}
}

func TestSessionManyAtOnce(t *testing.T) {
	dir := shared(t)
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := bawnAt(t.Context(), dir, nil, nil, "run", "--", "sh", "-c", fmt.Sprintf("echo %d; exit %d", i, i))
			if r.code != i || r.out != fmt.Sprintf("%d\n", i) {
				t.Errorf("command %d: %+v", i, r)
			}
		}()
	}
	wg.Wait()
}

// terminal is a command under a terminal of ours.
type terminal struct {
	t    *testing.T
	f    *os.File
	pid  int // bawn's
	wait func() error
	mu   sync.Mutex
	seen bytes.Buffer
}

func openTerminal(t *testing.T, dir string, args ...string) *terminal {
	t.Helper()
	c := command(t.Context(), dir, args...)
	f, err := pty.StartWithSize(c, &pty.Winsize{Rows: 33, Cols: 77})
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, f: f, pid: c.Process.Pid, wait: c.Wait}
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := f.Read(b)
			term.mu.Lock()
			term.seen.Write(b[:n])
			term.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { f.Close() })
	return term
}

func (x *terminal) expect(s string) {
	x.t.Helper()
	wait(x.t, fmt.Sprintf("%q on the terminal", s), func() bool {
		x.mu.Lock()
		defer x.mu.Unlock()
		return strings.Contains(x.seen.String(), s)
	})
}

func TestSessionTerminal(t *testing.T) {
	dir := shared(t)
	x := openTerminal(t, dir, "run", "--", "bash", "--norc", "-i")
	fmt.Fprintln(x.f, "stty size; echo is-$(test -t 0 && echo tty)")
	x.expect("33 77")
	x.expect("is-tty")
	if err := pty.Setsize(x.f, &pty.Winsize{Rows: 44, Cols: 99}); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(x.f, "until [ \"$(stty size)\" = '44 99' ]; do :; done; echo re''sized")
	x.expect("resized")
	fmt.Fprintln(x.f, "sleep 1000")
	wait(t, "sleep", func() bool { return strings.Contains(must(t, dir, "run", "--", "ps", "-eo", "args"), "sleep 1000") })
	fmt.Fprint(x.f, "\x03")
	x.expect("^C")
	fmt.Fprintln(x.f, "echo status-$?")
	x.expect("status-130")
	fmt.Fprintln(x.f, "exit 5")
	err := x.wait()
	if err == nil || err.Error() != "exit status 5" {
		t.Errorf("%v", err)
	}
}

// TestSessionSignals: what a person sends to bawn arrives at the command.
func TestSessionSignals(t *testing.T) {
	dir := shared(t)
	c := command(t.Context(), dir, "run", "--", "sh", "-c",
		`for s in HUP INT QUIT USR1 USR2 ALRM; do trap "echo got-$s" $s; done; trap 'echo got-TERM; exit 3' TERM
echo ready; while :; do sleep 0.1; done`)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	read := func(want string) {
		t.Helper()
		if got, err := lines.ReadString('\n'); got != want+"\n" {
			t.Errorf("%q, want %q: %v", got, want, err)
		}
	}
	read("ready")
	for _, s := range []struct {
		name string
		sig  syscall.Signal
	}{
		{"HUP", syscall.SIGHUP}, {"INT", syscall.SIGINT}, {"QUIT", syscall.SIGQUIT}, {"USR1", syscall.SIGUSR1},
		{"USR2", syscall.SIGUSR2}, {"ALRM", syscall.SIGALRM}, {"TERM", syscall.SIGTERM},
	} {
		_ = c.Process.Signal(s.sig)
		read("got-" + s.name)
	}
	if err := c.Wait(); err == nil || err.Error() != "exit status 3" {
		t.Errorf("%v", err)
	}
}

// TestSessionLost: the command goes with its client, under a terminal too; the
// sandbox does not.
func TestSessionLost(t *testing.T) {
	dir := shared(t)
	gone := func(what string) {
		t.Helper()
		wait(t, "the command's end in the guest", func() bool {
			return !strings.Contains(must(t, dir, "run", "--", "ps", "-eo", "args"), what)
		})
	}
	c := command(t.Context(), dir, "run", "--", "sh", "-c", "echo ready; exec sleep 4242")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	kill9(t, c.Process.Pid)
	_ = c.Wait()
	gone("sleep 4242")

	x := openTerminal(t, dir, "run", "--", "sh", "-c", "echo ready; exec sleep 4243")
	x.expect("ready")
	kill9(t, x.pid)
	_ = x.wait()
	gone("sleep 4243")
}

// TestSessionStandsStill: a guest that takes no signal, since it stands still, holds
// up nobody who wants to end a command, and ends it when it goes on.
func TestSessionStandsStill(t *testing.T) {
	dir := shared(t)
	started := command(t.Context(), dir, "run", "--", "sh", "-c", "echo ready; exec sleep 4244")
	out, err := started.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said lockedBuffer
	started.Stderr = &said
	if err := started.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	x := openTerminal(t, dir, "run", "--", "sh", "-c", "echo re''ady; exec sleep 4245")
	x.expect("ready")
	qemu := inspect(t, dir).Status.MachinePID
	if err := syscall.Kill(qemu, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	resume := sync.OnceFunc(func() { _ = syscall.Kill(qemu, syscall.SIGCONT) })
	defer resume()
	early := command(t.Context(), dir, "run", "--", "true") // it gets no connection
	fmt.Fprint(x.f, "\x03")
	if err := early.Start(); err != nil {
		t.Fatal(err)
	}
	wait(t, "the second command to catch signals", func() bool { return catches(early.Process.Pid, syscall.SIGUSR1) })
	for _, c := range []*exec.Cmd{started, early} {
		if err := c.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if _ = c.Wait(); c.ProcessState.ExitCode() != 143 {
			t.Errorf("%q: %v", c.Args, c.ProcessState)
		}
	}
	if !strings.Contains(said.String(), "stands still") || !strings.Contains(said.String(), "try:") {
		t.Errorf("it says %q", said.String())
	}
	x.expect("stands still")
	if err := x.wait(); err == nil || err.Error() != "exit status 130" {
		t.Errorf("Ctrl-C: %v", err)
	}
	resume()
	wait(t, "the commands' end in the guest", func() bool {
		ps := must(t, dir, "run", "--", "ps", "-eo", "args")
		return !strings.Contains(ps, "sleep 4244") && !strings.Contains(ps, "sleep 4245")
	})
}

// catches says whether a process has a handler for a signal (proc(5), SigCgt).
func catches(pid int, sig syscall.Signal) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(b), "SigCgt:")
	line, _, _ := strings.Cut(after, "\n")
	set, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	return err == nil && set>>(sig-1)&1 == 1
}

// TestKernelIsFinished: what the first container uses makes the kernel rewrite none of
// its code any more, where that could end in a panic (docs/adr/0013).
func TestKernelIsFinished(t *testing.T) {
	dir := shared(t)
	if !strings.Contains(sh(t, dir, "cat /proc/cmdline"), "maxcpus=1") {
		t.Skip("not under software emulation")
	}
	if got := strings.TrimSpace(sh(t, dir, "nproc")); got != "2" {
		t.Errorf("%s CPUs", got)
	}
	got := sh(t, dir, `sudo sh -ec '
		trace=$(mktemp -d)
		mount -t tracefs tracefs "$trace"
		count() { awk "\$1 == \"rewrite\" {print \$2}" "$trace/kprobe_profile"; }
		echo p:rewrite text_poke_bp_batch >>"$trace/kprobe_events"
		echo 1 >"$trace/events/kprobes/rewrite/enable"
		echo before $(count)
		mkdir -p /sys/fs/cgroup/first
		echo +memory +cpuset >/sys/fs/cgroup/first/cgroup.subtree_control
		mkdir -p /sys/fs/cgroup/first/container
		echo containers $(count)
		rmdir /sys/fs/cgroup/first/container /sys/fs/cgroup/first
		echo 1 >"$trace/events/kmem/kmem_cache_free/enable"
		echo 0 >"$trace/events/kmem/kmem_cache_free/enable"
		[ $(count) -gt 0 ] && echo counted
		echo 0 >"$trace/events/kprobes/rewrite/enable"
		echo -:rewrite >>"$trace/kprobe_events"
		umount "$trace"'`)
	if want := "before 0\ncontainers 0\ncounted\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestVerbs(t *testing.T) {
	dir := shared(t)
	var list []struct{ Name, Dir string }
	if err := json.Unmarshal([]byte(must(t, "/", "ls", "--json")), &list); err != nil || len(list) == 0 {
		t.Errorf("ls --json: %v, %v", list, err)
	}
	if got := must(t, "/", "ls"); !strings.Contains(got, "shared") || !strings.Contains(got, dir) {
		t.Errorf("ls: %s", got)
	}
	if s := inspect(t, dir); s.State.Phase != "running" || s.Status.MachinePID == 0 {
		t.Errorf("inspect: %+v", s)
	}
	sh(t, dir, "echo seen on the console | sudo tee /dev/console")
	wait(t, "what the guest prints on its console", func() bool {
		return strings.Contains(must(t, dir, "logs"), "seen on the console")
	})
	var v struct{ Version string }
	if err := json.Unmarshal([]byte(must(t, "/", "version", "--json")), &v); err != nil || v.Version == "" {
		t.Errorf("version --json: %+v, %v", v, err)
	}
	if got := must(t, "/", "completion", "bash"); !strings.Contains(got, "bawn") {
		t.Error("completion bash prints nothing of use")
	}
	if r := bawn(t, "/", "doctor"); !strings.Contains(r.out, "QEMU") {
		t.Errorf("doctor: %s%s", r.out, r.err)
	}
}

func TestCopy(t *testing.T) {
	dir := temp(t)
	src := filepath.Join(dir, "tree")
	if err := os.MkdirAll(filepath.Join(src, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(src, "a b\xff"), "one")
	writeFile(t, filepath.Join(src, "sub", "run.sh"), "#!/bin/sh\n")
	if err := os.Chmod(filepath.Join(src, "sub", "run.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("sub/run.sh", filepath.Join(src, "link")); err != nil {
		t.Fatal(err)
	}
	then := time.Unix(1_000_000_000, 0)
	for _, f := range []string{"sub/run.sh", "sub"} {
		if err := os.Chtimes(filepath.Join(src, f), time.Time{}, then); err != nil {
			t.Fatal(err)
		}
	}
	must(t, dir, "cp", src, "shared:/tmp/copied")
	if got := must(t, dir, "exec", "shared", "--", "sh", "-c", "cd /tmp/copied; ls -R; stat -c '%a %Y' sub/run.sh; stat -c %Y sub; readlink link"); !strings.Contains(got, "755 1000000000\n1000000000\nsub/run.sh\n") {
		t.Errorf("%q", got)
	}
	back := filepath.Join(base, "back")
	must(t, dir, "cp", ":/tmp/copied", back)
	if got := readFile(t, filepath.Join(back, "a b\xff")); got != "one" {
		t.Errorf("%q", got)
	}
	if fi, err := os.Stat(filepath.Join(back, "sub")); err != nil || !fi.ModTime().Equal(then) {
		t.Errorf("%v, %v", fi, err)
	}
	if fi, err := os.Stat(filepath.Join(back, "sub", "run.sh")); err != nil || fi.Mode().Perm() != 0o755 || !fi.ModTime().Equal(then) {
		t.Errorf("%v, %v", fi, err)
	}
	fails(t, dir, 125, "shared:/no/such/file", "cp", "shared:/no/such/file", back)
	fails(t, dir, 125, "neither a file", "cp", "shared:/dev/null", back)
	fails(t, dir, 125, "/dev/full is neither a file", "cp", "shared:/etc/hosts", "/dev/full")
	sh(t, dir, "mkdir -p ~/special/sub && mkfifo ~/special/pipe ~/special/sub/pipe && chmod 750 ~/special && echo kept > ~/special/sub/file")
	fails(t, dir, 125, "left out shared:special/sub/pipe", "cp", ":~/special", back+"-special")
	if fi, err := os.Stat(back + "-special"); err != nil || fi.Mode().Perm() != 0o750 || readFile(t, filepath.Join(back+"-special", "sub", "file")) != "kept\n" {
		t.Errorf("%v, %v", fi, err)
	}
	fails(t, dir, 125, "no such user", "cp", "-u", "nobody-here", "shared:/etc/hosts", back)
	// Into a directory that is there, with a link in the project that leads out.
	must(t, dir, "cp", filepath.Join(src, "sub"), ":/tmp/copied")
	must(t, dir, "cp", ":/tmp/copied/sub/run.sh", ".")
	if fi, err := os.Stat(filepath.Join(dir, "run.sh")); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", fi, err)
	}
	sh(t, dir, "ln -s "+back+" out; head -c 3000000 /dev/urandom > /tmp/copied/large")
	fails(t, dir, 125, "leads out of", "cp", ":/tmp/copied/large", "out/")
	must(t, dir, "cp", ":/tmp/copied/large", "large") // also over the share: the same bytes
	must(t, dir, "cp", "large", ":/tmp/copied/again")
	sh(t, dir, "cmp large /tmp/copied/large && cmp large /tmp/copied/again")
	must(t, dir, "exec", "shared", "--", "rm", "-rf", "/tmp/copied")
}

// TestNames: one sandbox for each directory, another by --name, one to throw
// away by --rm.
func TestNames(t *testing.T) {
	dir := project(t, "names")
	must(t, dir, "run", "--", "touch", "/tmp/first")
	if r := bawn(t, dir, "run", "--rm", "--", "ls", "/tmp/first"); r.code == 0 {
		t.Error("--rm used the directory's own sandbox")
	}
	if got := must(t, "/", "ls"); strings.Contains(got, "names-") {
		t.Errorf("the throwaway is still there:\n%s", got)
	}
	begin := func(said io.Writer, args ...string) *exec.Cmd {
		c := command(t.Context(), dir, append(args, "--", "sh", "-c", "echo ready; exec sleep 1000")...)
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		c.Stderr = said
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, 6)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := begin(nil, "run", "--rm")
	kill9(t, c.Process.Pid)
	_ = c.Wait()
	wait(t, "the end of a throwaway whose owner was killed", func() bool { return !strings.Contains(must(t, "/", "ls"), "names-") })
	must(t, dir, "run", "--name", "other", "--", "sh", "-c", "test ! -e /tmp/first && touch /tmp/second")
	t.Cleanup(func() { bawnAt(context.Background(), dir, nil, nil, "rm", "--force", "other") })
	must(t, dir, "run", "--", "test", "-e", "/tmp/first")
	must(t, dir, "stop", "other")
	must(t, dir, "run", "--name", "other", "--", "test", "-e", "/tmp/second")
	var said strings.Builder
	c = begin(&said, "exec", "other")
	must(t, dir, "rm", "--force", "other")
	if _ = c.Wait(); c.ProcessState.ExitCode() != 125 || !strings.HasSuffix(said.String(), "it was removed\n  try: bawn ls\n") {
		t.Errorf("%v: %q", c.ProcessState, said.String())
	}
	fails(t, dir, 125, "no such sandbox", "exec", "other", "--", "true")
}
