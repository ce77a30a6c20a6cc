package proc

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
)

// The test program is its own middle process: it starts a child in the given way,
// prints its process ID, and is then killed by the test.
const middleEnv = "BAWN_TEST_MIDDLE"

func TestMain(m *testing.M) {
	how := os.Getenv(middleEnv)
	if how == "" {
		os.Exit(m.Run())
	}
	if how == "terminal" {
		os.Exit(askAtTerminal())
	}
	cmd := exec.Command("sh", "-c", "echo $$; exec sleep 600")
	cmd.Stdout = os.Stdout
	var err error
	if how == "spawn" {
		if err = NewSpawner().Start(cmd); err == nil {
			err = cmd.Wait()
		}
	} else {
		err = Run(cmd)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// askAtTerminal runs a command that reads the terminal: as it is, and in a session of its own.
func askAtTerminal() int {
	for _, prepare := range []func(*exec.Cmd){func(*exec.Cmd) {}, InSession} {
		c := exec.CommandContext(context.Background(), "sh", "-c", "exec 3</dev/tty && echo it has the terminal")
		prepare(c)
		out, err := c.CombinedOutput()
		fmt.Printf("%s%v\n", out, err)
	}
	return 0
}

// TestNoTerminalInASession: a program in a session of its own has no terminal to ask at.
func TestNoTerminalInASession(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), middleEnv+"=terminal")
	terminal, err := pty.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	out, _ := io.ReadAll(terminal) // EIO at the end (pty(7))
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(out), "\r\n")
	if lines[0] != "it has the terminal" || lines[1] != "<nil>" || !strings.Contains(lines[2], "/dev/tty") {
		t.Errorf("%q", lines)
	}
}

// TestChildrenDieWithTheirParent: the parent is killed by SIGKILL, so it can do
// nothing about its child.
func TestChildrenDieWithTheirParent(t *testing.T) {
	for _, how := range []string{"run", "spawn"} {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), middleEnv+"="+how)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var pid int
		if _, err := fmt.Fscan(bufio.NewReader(out), &pid); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		deadline := time.Now().Add(20 * time.Second)
		for alive(pid) {
			if time.Now().After(deadline) {
				_ = syscall.Kill(pid, syscall.SIGKILL)
				t.Fatalf("%s: the child outlived its parent", how)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// alive reports whether a process runs; one that nobody waited for does not.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := bytes.Cut(b, []byte(") "))
	return !bytes.HasPrefix(state, []byte("Z"))
}

func TestSpawnerMakesASession(t *testing.T) {
	var out strings.Builder
	cmd := exec.Command("sh", "-c", "ps -o sid= -p $$; echo $$")
	cmd.Stdout = &out
	if err := NewSpawner().Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Skip(err) // no ps
	}
	if f := strings.Fields(out.String()); len(f) != 2 || f[0] != f[1] {
		t.Errorf("session and process are %q", f)
	}
}

func TestRunReportsFailure(t *testing.T) {
	var exit *exec.ExitError
	if err := Run(exec.Command("false")); !errors.As(err, &exit) {
		t.Errorf("false: %v", err)
	}
	if err := Run(Command(t.Context(), "bawn-no-such-program")); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("a program that is not there: %v", err)
	}
	if out, err := CombinedOutput(exec.Command("sh", "-c", "echo out; echo err >&2")); err != nil || string(out) != "out\nerr\n" {
		t.Errorf("%q, %v", out, err)
	}
}
