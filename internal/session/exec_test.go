package session

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestLongArguments: the kernel sets the limit (execve(2)), not the connection.
func TestLongArguments(t *testing.T) {
	b := newBench(t)
	many := func(n int, arg string) []string {
		list := []string{"sh", "-c", "echo $# ${#1}", "sh"}
		for range n {
			list = append(list, arg)
		}
		return list
	}
	for _, c := range []struct {
		name   string
		cmd    Command
		status int
		out    string
	}{
		{"many", Command{Argv: many(20000, "12345")}, 0, "20000 5\n"},
		{"long", Command{Argv: many(13, strings.Repeat("x", 128<<10-1))}, 0, "13 131071\n"},
		{"environment", Command{Argv: []string{"sh", "-c", "echo ${#A} ${#B}"}, Env: []string{"A=" + strings.Repeat("x", 120_000), "B=" + strings.Repeat("x", 120_000)}}, 0, "120000 120000\n"},
		{"string too long", Command{Argv: []string{"echo", strings.Repeat("x", 128<<10)}}, 126, ""},
		{"too many", Command{Argv: many(60, strings.Repeat("x", 128<<10-1))}, 126, ""},
		{"more than any kernel takes", Command{Argv: many(200, strings.Repeat("x", 128<<10-1))}, 126, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, errOut bytes.Buffer
			c.cmd.Stdout, c.cmd.Stderr = &out, &errOut
			exit, err := b.dial().Run(t.Context(), c.cmd)
			if err != nil || exit.Status != c.status || out.String() != c.out {
				t.Errorf("got %+v, %v, %.100q; want %d, %q", exit, err, out.String(), c.status, c.out)
			}
			if c.status == 126 && !strings.Contains(errOut.String(), "Argument list too long") {
				t.Errorf("says %.200q", errOut.String())
			}
		})
	}
}

// TestBackgroundDoesNotHoldRun: Run ends with the command, and what it left in the
// background can write on.
func TestBackgroundDoesNotHoldRun(t *testing.T) {
	b := newBench(t)
	dir := t.TempDir()
	const script = `cd "$1"; (while [ ! -e go ]; do sleep 0.01; done; echo late; echo late >&2; echo yes >survived) & echo now; : >"$2"`
	for _, c := range []struct {
		name string
		wait bool
		made string // what the command makes at its end
		want string
	}{{"ends", false, "ended", "now\n"}, {"waits", true, "go", "now\nlate\n"}} {
		t.Run(c.name, func(t *testing.T) {
			at := dir + "/" + c.name
			must(t, os.Mkdir(at, 0o755))
			var out bytes.Buffer
			cmd := Command{Argv: []string{"sh", "-c", script, "sh", at, c.made}, Stdout: &out, Stderr: io.Discard, WaitOutput: c.wait}
			if exit, err := b.dial().Run(t.Context(), cmd); err != nil || exit.Status != 0 || out.String() != c.want {
				t.Errorf("got %+v, %v, %q", exit, err, out.String())
			}
			must(t, os.WriteFile(at+"/go", nil, 0o644))
			for {
				if got, _ := os.ReadFile(at + "/survived"); string(got) == "yes\n" {
					break
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
}

// TestAllOutputBeforeTheEnd: nothing that the command wrote is cut, however slowly it is
// taken here and whatever holds its output open.
func TestAllOutputBeforeTheEnd(t *testing.T) {
	b := newBench(t)
	r, w := io.Pipe()
	cmd, _, _ := sh("sleep 1000 & yes x | head -c 3000000; echo $! >&2")
	var errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, &errOut
	done := make(chan error, 1)
	go func() {
		_, err := b.dial().Run(t.Context(), cmd)
		w.Close()
		done <- err
	}()
	n, err := io.Copy(io.Discard, r)
	must(t, err)
	must(t, <-done)
	if n != 3000000 {
		t.Errorf("%d bytes", n)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(errOut.String()))
	must(t, err)
	_ = syscall.Kill(pid, syscall.SIGKILL)
}

// TestStreamsOpenAgain: a program may open its own streams by name.
func TestStreamsOpenAgain(t *testing.T) {
	b := newBench(t)
	cmd, out, errOut := sh("cat /dev/stdin; echo x >/dev/stdout; echo y >/dev/stderr; echo z >/proc/self/fd/1")
	cmd.Stdin = inputs["pipe"](t, []byte("in\n"))
	if _, err := b.dial().Run(t.Context(), cmd); err != nil || out.String() != "in\nx\nz\n" || errOut.String() != "y\n" {
		t.Errorf("%q, %q, %v", out, errOut, err)
	}
}

func TestErrorsApartFromTheTerminal(t *testing.T) {
	b, p := newBench(t), newPerson(t)
	cmd := p.command("echo out; echo err >&2; test -t 2 || echo apart")
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if _, err := b.dial().Run(t.Context(), cmd); err != nil || out.String() != "out\r\napart\r\n" || errOut.String() != "err\n" {
		t.Errorf("%q, %q, %v", out.String(), errOut.String(), err)
	}
	cmd = p.command("test -t 2 && echo together >&2")
	out.Reset()
	cmd.Stdout, cmd.Stderr = &out, nil
	if _, err := b.dial().Run(t.Context(), cmd); err != nil || out.String() != "together\r\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

// TestOlderAgent: with an agent of an earlier bawn all works but arguments that are too
// long for it.
func TestOlderAgent(t *testing.T) {
	b := newBench(t)
	client := b.dial()
	client.current = false
	for name, open := range inputs {
		cmd, out, _ := sh("cat; exit 3")
		cmd.Stdin, cmd.JobControl = open(t, []byte("in")), true
		if exit, err := client.Run(t.Context(), cmd); err != nil || exit.Status != 3 || out.String() != "in" {
			t.Errorf("%s: %+v, %v, %q", name, exit, err, out)
		}
	}
	cmd := Command{Argv: []string{"echo", fmt.Sprint(strings.Repeat("x", 120_000))}, Stdout: io.Discard, Stderr: io.Discard}
	if _, err := client.Run(t.Context(), cmd); err != ErrOlderGuest { //nolint:errorlint // not wrapped
		t.Errorf("got %v", err)
	}
}
