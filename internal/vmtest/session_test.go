//go:build vm

package vmtest

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

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
	others := strings.ReplaceAll(r.out, "\nXDG_RUNTIME_DIR=/run/user/", "\n") // the guest's own
	for _, not := range []string{"hunter2", "SSH_AUTH_SOCK", "ABSENT_ON_HOST", "XDG_", base + "/state"} {
		if strings.Contains(others, not) {
			t.Errorf("%s went in:\n%s", not, r.out)
		}
	}
}

// TestSessionInherits: umask and limit of open files are those of the shell that calls bawn.
func TestSessionInherits(t *testing.T) {
	dir := temp(t)
	for _, c := range []struct{ set, run, want string }{
		{"umask 027; ulimit -Sn 1024", "run", "0027 enough 640\n"},
		{"umask 002; ulimit -Sn 1024", "exec shared", "0002 enough 664\n"},
		{"umask 022; ulimit -Sn $(ulimit -Hn)", "run", "0022 enough 644\n"},
	} {
		inside := `rm -f made; touch made; [ "$(ulimit -Sn)" -ge "$0" ] && enough=enough; echo $(umask) $enough $(stat -c %a made)`
		script := c.set + `; n=$(ulimit -Sn); [ $n -le 1048576 ] || n=1048576; exec "$BAWN" ` + c.run + ` -- sh -c '` + inside + `' $n`
		cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
		cmd.Dir, cmd.Env = dir, append(environment(), "BAWN="+os.Getenv("BAWN"))
		out, err := cmd.Output()
		if err != nil || string(out) != c.want {
			t.Errorf("%s: %q, %v, want %q", c.set, out, err, c.want)
		}
		if fi, err := os.Stat(dir + "/made"); err != nil || fmt.Sprintf("%o\n", fi.Mode().Perm()) != c.want[len(c.want)-4:] {
			t.Errorf("%s: on the host %v, %v", c.set, fi.Mode(), err)
		}
	}
}

// TestSessionGitIdentity: commits carry the host user's name, and what is set inside prevails.
func TestSessionGitIdentity(t *testing.T) {
	got := sh(t, shared(t), `export HOME=$(mktemp -d); cd $HOME; git init -q
who() { git var GIT_AUTHOR_IDENT | sed 's/ [0-9]* [-+0-9]*$//'; }
who; sudo git var GIT_AUTHOR_IDENT | cut -d'<' -f1
sudo git config --system user.name Agent; who; sudo git config --system --unset user.name
git config user.email in@the.repository; who`)
	const want = "Ada <ada@example.org>\nAda \nAgent <ada@example.org>\nAda <in@the.repository>\n"
	if got != want {
		t.Errorf("%q, want %q", got, want)
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

// TestSessionStreamsAreItsOwn: they open by name for the user inside, no more input is taken
// than is read, and a process in the background does not hold run up.
func TestSessionStreamsAreItsOwn(t *testing.T) {
	dir := shared(t)
	c := exec.Command("bash", "-c", `
"$BAWN" run -- sh -c 'cat /dev/stdin; echo x >/dev/stdout' <<<in 2>&1 | cat
"$BAWN" run -- sh -c 'echo y >/proc/self/fd/2' 2>&1 | cat
printf '1\n2\n' | while read x; do "$BAWN" run -- sh -c 'id -u >/dev/null'; echo turn $x; done
printf '"$BAWN" run -- true\necho second line\n' | bash
"$BAWN" run -- sh -c 'sleep 4246 & echo started' | cat
"$BAWN" run -- sh -c 'echo $#' sh $(seq 20000)
"$BAWN" run -- sudo pkill -f '^sleep 4246'`)
	from := command(t.Context(), dir)
	c.Dir, c.Env = dir, append(slices.Clone(from.Env), "BAWN="+from.Path)
	out, err := c.CombinedOutput()
	const want = "in\nx\ny\nturn 1\nturn 2\nsecond line\nstarted\n20000\n"
	if err != nil || string(out) != want {
		t.Errorf("%q, %v; want %q", out, err, want)
	}
}

// TestSessionStops: Ctrl-Z stops bawn as the command, and it continues with it.
func TestSessionStops(t *testing.T) {
	x := openTerminal(t, shared(t), "run", "--", "sh", "-c", "echo re''ady; sed -u s/^/got-/; echo en''ded")
	x.expect("ready")
	fmt.Fprint(x.f, "first\n")
	x.expect("got-first") // sed runs: a shell that has just called vfork(2) for it would not stop
	fmt.Fprint(x.f, "\x1a")
	stopped := func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", x.pid))
		_, state, _ := strings.Cut(string(b), ") ")
		return err == nil && strings.HasPrefix(state, "T")
	}
	// Here no shell could continue bawn, so the kernel does not stop it (orphaned process
	// group), and the command continues: as a local program would.
	if stopped() {
		t.Error("bawn is stopped, and nobody continues it")
	}
	fmt.Fprint(x.f, "typed\n")
	x.expect("got-typed")
	fmt.Fprint(x.f, "\x04")
	x.expect("ended")
	if err := x.wait(); err != nil {
		t.Error(err)
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

// terminal is a bawn command under a pseudo-terminal.
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
	if !poll(waitLimit, func() bool {
		x.mu.Lock()
		defer x.mu.Unlock()
		return strings.Contains(x.seen.String(), s)
	}) {
		x.t.Fatalf("waited %v for %q on the terminal, which shows %q", waitLimit, s, x.seen.String())
	}
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

// TestSessionLost: the command ends with its client, also under a terminal; the sandbox
// does not.
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

// TestSessionStandsStill: in a guest that stands still a command gets no signal. The person
// gets away all the same, and the command ends when the guest goes on.
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
	if !strings.Contains(said.String(), "is paused and did not receive signal") || !strings.Contains(said.String(), "try:") {
		t.Errorf("it says %q", said.String())
	}
	x.expect("is paused and did not receive signal")
	if err := x.wait(); err == nil || err.Error() != "exit status 130" {
		t.Errorf("Ctrl-C: %v", err)
	}
	resume()
	wait(t, "the commands' end in the guest", func() bool {
		ps := must(t, dir, "run", "--", "ps", "-eo", "args")
		return !strings.Contains(ps, "sleep 4244") && !strings.Contains(ps, "sleep 4245")
	})
}

// catches reports whether a process has a handler for a signal (proc(5), SigCgt).
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
