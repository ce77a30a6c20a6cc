//go:build vm

package vmtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// base is this run's folder: state, home and projects.
var base string

func TestMain(m *testing.M) {
	if os.Getpid() == 1 {
		bareInit() // of a benchmark's guest
	}
	if spec := os.Getenv(netClientEnv); spec != "" { // in a sandbox
		if err := netClient(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dir := os.Getenv(rebindEnv); dir != "" { // in namespaces of its own
		if err := rebindHost(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dir := os.Getenv(tinyCacheEnv); dir != "" { // in namespaces of its own
		if err := tinyCache(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT} {
		if signal.Ignored(s) { // by nohup, say: the bawns that are tested shall not ignore it as well
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
	code := func() int {
		if os.Getenv("BAWN") == "" || os.Getenv("BAWN_TEST_CACHE") == "" {
			fmt.Fprintln(os.Stderr, "vmtest: run by scripts/test, which sets BAWN and BAWN_TEST_CACHE")
			return 2
		}
		var err error
		if base, err = os.MkdirTemp("", "bawn-vm-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 2
		}
		defer os.RemoveAll(base)
		// As a home directory mostly is: what bawn closes, it must close itself.
		if err := os.Chmod(base, 0o755); err != nil { // others may look in: their attacks are what is tested
			fmt.Fprintln(os.Stderr, err)
			return 2
		}
		if err := os.Mkdir(filepath.Join(base, "home"), 0o755); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 2
		}
		code := m.Run()
		if err := sweep(); err != nil {
			fmt.Fprintln(os.Stderr, "vmtest:", err)
			code = 1
		}
		return code
	}()
	os.Exit(code)
}

// sweep removes all sandboxes; then no process of this run may be left.
func sweep() error {
	r := bawnAt(context.Background(), base, nil, nil, "ls", "--json")
	var list []struct{ Name string }
	if err := json.Unmarshal([]byte(r.out), &list); err != nil {
		return fmt.Errorf("bawn ls: %s%s", r.out, r.err)
	}
	for _, s := range list {
		if r := bawnAt(context.Background(), base, nil, nil, "rm", "--force", s.Name); r.code != 0 {
			return fmt.Errorf("bawn rm %s: %s", s.Name, r.err)
		}
	}
	for i := 0; ; i++ {
		left := processes(base)
		if len(left) == 0 {
			return nil
		}
		if i == 100 {
			return fmt.Errorf("left running: %v", left)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// processes are the command lines, by number, of supervisors, share servers and
// machines that belong to this run: those that have the folder in their command
// line or in an open file.
func processes(dir string) map[int]string {
	found := map[int]string{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		cmd, err := os.ReadFile(d + "/cmdline")
		if err != nil || len(cmd) == 0 {
			continue
		}
		line := strings.ReplaceAll(string(cmd), "\x00", " ")
		if !strings.Contains(line, "__supervise") && !strings.Contains(line, "__share") && !strings.Contains(line, "__pool-member") &&
			!strings.Contains(line, "qemu-system") && !strings.Contains(line, "__confine") {
			continue
		}
		mine := strings.Contains(line, dir)
		fds, _ := filepath.Glob(d + "/fd/*")
		for _, fd := range fds {
			if l, err := os.Readlink(fd); err == nil && strings.HasPrefix(l, dir) {
				mine = true
			}
		}
		if pid, err := strconv.Atoi(filepath.Base(d)); err == nil && mine {
			found[pid] = line
		}
	}
	return found
}

// result is how a command ended.
type result struct {
	out, err string
	code     int
}

func environment(extra ...string) []string {
	return append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Join(base, "home"), "USER=" + os.Getenv("USER"),
		"XDG_STATE_HOME=" + filepath.Join(base, "state"), "XDG_CACHE_HOME=" + os.Getenv("BAWN_TEST_CACHE"),
		"TERM=xterm", "LANG=C.UTF-8", templatesEnv + "=" + os.Getenv(templatesEnv),
	}, extra...)
}

func command(ctx context.Context, dir string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, os.Getenv("BAWN"), args...)
	c.Dir = dir
	c.Env = environment()
	return c
}

func bawnAt(ctx context.Context, dir string, stdin io.Reader, env []string, args ...string) result {
	c := command(ctx, dir, args...)
	c.Env = append(c.Env, env...)
	var out, errs bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = stdin, &out, &errs
	err := c.Run()
	r := result{out.String(), errs.String(), 0}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.code = exit.ExitCode()
	case err != nil:
		r.code, r.err = -1, err.Error()
	}
	return r
}

// bawn runs bawn in a directory.
func bawn(t *testing.T, dir string, args ...string) result {
	t.Helper()
	return bawnAt(t.Context(), dir, nil, nil, args...)
}

// must is bawn that succeeds; it returns standard output.
func must(t *testing.T, dir string, args ...string) string {
	t.Helper()
	r := bawn(t, dir, args...)
	if r.code != 0 {
		t.Fatalf("bawn %q: exit status %d\n%s%s%s", args, r.code, r.out, r.err, logs(dir))
	}
	return r.out
}

// sh runs a shell script in the directory's sandbox and wants it to succeed.
func sh(t *testing.T, dir, script string) string {
	t.Helper()
	return must(t, dir, "run", "--", "sh", "-euc", script)
}

// fails wants bawn to end with a status and to say something.
func fails(t *testing.T, dir string, code int, say string, args ...string) {
	t.Helper()
	r := bawn(t, dir, args...)
	if r.code != code || !strings.Contains(r.err, say) {
		t.Errorf("bawn %q: exit status %d, want %d; it must say %q:\n%s", args, r.code, code, say, r.err)
	}
}

// logs are the ends of a sandbox's logs, for a failure's report.
func logs(dir string) string {
	r := bawnAt(context.Background(), dir, nil, nil, "logs", "--supervisor")
	c := bawnAt(context.Background(), dir, nil, nil, "logs")
	tail := func(s string) string { return s[max(0, len(s)-2000):] }
	return "\n-- supervisor:\n" + tail(r.out) + "\n-- console:\n" + tail(c.out)
}

// project makes an empty project directory whose sandbox goes with the test.
func project(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(base, "home", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			logTails(t, sandboxDir(name))
		}
		if r := bawnAt(context.Background(), dir, nil, nil, "rm", "--force"); r.code != 0 && !strings.Contains(r.err, "no such sandbox") {
			t.Errorf("bawn rm: %s", r.err)
		}
		waitGone(t, filepath.Join(base, "state", "bawn", "sandboxes", name))
	})
	return dir
}

// logTails shows what a failed test's sandbox said last, before it goes.
func logTails(t *testing.T, dir string) {
	for _, glob := range []string{"*.log", "*.log.1"} {
		files, _ := filepath.Glob(filepath.Join(dir, glob))
		for _, f := range files {
			b, _ := os.ReadFile(f)
			t.Logf("the end of %s:\n%s", f, b[max(0, len(b)-4096):])
		}
	}
}

// waitGone waits until no process of a sandbox's is left.
func waitGone(t *testing.T, state string) {
	t.Helper()
	wait(t, "the end of all processes", func() bool { return len(processes(state)) == 0 })
}

// wait waits for a condition; only a test's own limit ends it otherwise.
func wait(t *testing.T, what string, ready func() bool) {
	t.Helper()
	ctx := t.Context()
	deadline := time.Now().Add(3 * time.Minute)
	for !ready() {
		if ctx.Err() != nil && time.Now().After(deadline) || time.Now().After(deadline) {
			t.Fatalf("waiting for %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

var sharedOnce sync.Once

// shared is the project of the sandbox that most tests use.
func shared(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(base, "home", "shared")
	sharedOnce.Do(func() {
		for _, d := range []string{"shared", "extra"} {
			if err := os.MkdirAll(filepath.Join(base, "home", d), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(base, "home", "extra", "file"), []byte("extra\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		must(t, dir, "run", "--memory", "2G", "--mount", filepath.Join(base, "home", "extra")+":ro",
			"--mount", filepath.Join(base, "home", "extra", "file")+":/etc/bawn-file:ro", "--", "true")
	})
	if t.Failed() {
		t.FailNow()
	}
	return dir
}

// temp makes a folder for one test in the shared project.
func temp(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(shared(t), strings.ReplaceAll(t.Name(), "/", "-"))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// status is what `bawn inspect` says.
type status struct {
	State struct {
		Phase string
		PID   int
	}
	Status struct {
		MachinePID int
		Accel      string
	}
	DiskUsed, SnapshotsUsed int64
}

func inspect(t *testing.T, dir string) status {
	t.Helper()
	var s status
	if err := json.Unmarshal([]byte(must(t, dir, "inspect")), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func kill9(t *testing.T, pid int) {
	t.Helper()
	if pid <= 1 {
		t.Fatalf("kill %d", pid)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}
