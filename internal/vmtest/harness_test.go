//go:build vm

package vmtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

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

// commandLimit bounds a bawn whose context has no deadline. It ends then by SIGABRT, which shows what it waits for.
const commandLimit = 15 * time.Minute

func bawnAt(ctx context.Context, dir string, stdin io.Reader, env []string, args ...string) result {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, commandLimit)
		defer cancel()
	}
	c := command(ctx, dir, args...)
	c.Cancel = func() error {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return c.Process.Signal(syscall.SIGABRT)
		}
		return c.Process.Kill()
	}
	c.WaitDelay = time.Minute
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

// fails wants bawn to end with a status and a message that contains say.
func fails(t *testing.T, dir string, code int, say string, args ...string) {
	t.Helper()
	r := bawn(t, dir, args...)
	if r.code != code || !strings.Contains(r.err, say) {
		t.Errorf("bawn %q: exit status %d, want %d; it must say %q:\n%s", args, r.code, code, say, r.err)
	}
}

// logs returns the ends of a sandbox's logs, for the report of a failure.
func logs(dir string) string {
	r := bawnAt(context.Background(), dir, nil, nil, "logs", "--supervisor")
	c := bawnAt(context.Background(), dir, nil, nil, "logs")
	tail := func(s string) string { return s[max(0, len(s)-2000):] }
	return "\n-- supervisor:\n" + tail(r.out) + "\n-- console:\n" + tail(c.out)
}

// project makes an empty project directory. Its sandbox is removed at the end of the test.
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

// logTails prints the ends of the logs of a failed test's sandbox, before it is removed.
func logTails(t *testing.T, dir string) {
	for _, glob := range []string{"*.log", "*.log.1"} {
		files, _ := filepath.Glob(filepath.Join(dir, glob))
		for _, f := range files {
			b, _ := os.ReadFile(f)
			t.Logf("the end of %s:\n%s", f, b[max(0, len(b)-4096):])
		}
	}
}

// pollEvery is how often a condition is looked at.
const pollEvery = 20 * time.Millisecond

// poll looks at a condition until it holds, and reports whether it did within the limit.
// No test sleeps otherwise, except for a random moment at which something is killed.
func poll(limit time.Duration, ready func() bool) bool {
	for end := time.Now().Add(limit); !ready(); time.Sleep(pollEvery) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// waitLimit bounds what takes seconds on an idle machine with KVM: under software
// emulation everything is some 20 times slower.
const waitLimit = 3 * time.Minute

// rounds is how often a test repeats what it tries: fewer times with -short, as in CI.
func rounds(usual, short int) int {
	if testing.Short() {
		return short
	}
	return usual
}

// wait waits until a condition holds, for at most waitLimit. Otherwise the test fails.
func wait(t testing.TB, what string, ready func() bool) {
	t.Helper()
	waitWithin(t, waitLimit, what, ready)
}

// waitWithin is wait with another limit.
func waitWithin(t testing.TB, limit time.Duration, what string, ready func() bool) {
	t.Helper()
	if !poll(limit, ready) {
		t.Fatalf("waited %v for %s", limit, what)
	}
}

// steadyFor is how long a measured value must not change to be steady.
const steadyFor = 2 * time.Second

// steady waits until a value that is measured again and again has not changed by more than
// within, in its own unit, for steadyFor.
func steady(t testing.TB, what string, within float64, measure func() float64) {
	t.Helper()
	was, since := measure(), time.Now()
	wait(t, what+" to be steady", func() bool {
		if now := measure(); math.Abs(now-was) > within {
			was, since = now, time.Now()
		}
		return time.Since(since) >= steadyFor
	})
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
		writeFile(t, filepath.Join(base, "home", ".gitconfig"), "[user]\n\tname = Ada\n\temail = ada@example.org\n")
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

// status is a part of what `bawn inspect` prints.
type status struct {
	State struct {
		Phase string
		PID   int
	}
	Status struct {
		MachinePID int
		Goroutines int
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
