//go:build vm

package vmtest

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestKilled is attack 20: whatever is killed, nothing is left running and the
// next run works, with the disk as it was.
func TestKilled(t *testing.T) {
	dir := project(t, "killed")
	state := sandboxDir("killed")
	must(t, dir, "run", "--memory", "1G", "--", "sh", "-c", "echo kept > ~/kept; sync")
	victims := map[string]func() int{
		"supervisor": func() int { return inspect(t, dir).State.PID },
		"qemu":       func() int { return inspect(t, dir).Status.MachinePID },
		"share": func() int {
			for pid, line := range shares(dir) {
				_ = line
				return pid
			}
			return 0
		},
	}
	for name, pid := range victims {
		t.Run(name, func(t *testing.T) {
			kill9(t, pid())
			waitGone(t, state)
			if got := must(t, dir, "inspect"); name == "qemu" && !strings.Contains(got, "the machine ended: QEMU was killed (signal 9)\"") {
				t.Errorf("it says %s", got)
			}
			// A process that is killed gives up its memory, and with it its command line,
			// before its files, and with them its lock.
			wait(t, "a sandbox that is not shown as running", func() bool { return inspect(t, dir).State.Phase != "running" })
			if got := must(t, dir, "run", "--", "sh", "-c", "cat ~/kept"); got != "kept\n" {
				t.Errorf("%q", got)
			}
		})
	}
	t.Run("stands still", func(t *testing.T) { killStandingStill(t, dir, state) })
	t.Run("settings", func(t *testing.T) { failedSettings(t, dir) })
	t.Run("start", func(t *testing.T) { killStarting(t, dir, state) })
	t.Run("interrupt", func(t *testing.T) { interruptStarting(t, dir, state) })
}

// killStandingStill tests that stop --force and rm --force end a supervisor that does not
// answer, and its QEMU, and that exec says what it waits for.
func killStandingStill(t *testing.T, dir, state string) {
	const start = "echo kept > ~/kept; sync"
	stand := func() {
		must(t, dir, "run", "--memory", "1G", "--", "sh", "-c", start)
		if err := syscall.Kill(inspect(t, dir).State.PID, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	stand()
	c := command(t.Context(), dir, "exec", "killed", "--", "true") // says what it waits for
	says, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(says).ReadString('\n'); err != nil || !strings.Contains(line, "Waiting for the sandbox to answer") {
		t.Errorf("%q, %v", line, err)
	}
	_ = c.Process.Signal(syscall.SIGINT)
	_ = c.Wait() // its status is its own affair here
	must(t, dir, "stop", "--force")
	waitGone(t, state)
	if s := inspect(t, dir); s.State.Phase != "stopped" {
		t.Errorf("shown as %s", s.State.Phase)
	}
	stand()
	must(t, dir, "rm", "--force")
	waitGone(t, state)
	must(t, dir, "run", "--memory", "1G", "--", "sh", "-c", start)
}

// failedSettings tests that settings with which a start fails are not kept.
func failedSettings(t *testing.T, dir string) {
	must(t, dir, "stop")
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
	fails(t, dir, 125, "in use by another program", "run", "-p", port, "--", "true")
	must(t, dir, "run", "--", "true")
	fails(t, dir, 125, "in use by another program", "run", "-p", port, "--", "true") // while it runs
	open, other := fmt.Sprint(freePort(t)), fmt.Sprint(freePort(t))
	fails(t, dir, 125, "in use by another program", "run", "-p", open, "-p", port, "--", "true")
	fails(t, dir, 125, "in use by another program", "port", open, port)
	if got := must(t, dir, "port"); strings.Contains(got, open) {
		t.Errorf("open: %s", got)
	}
	must(t, dir, "port", open)
	fails(t, dir, 125, "in use by another program", "port", "--remove", open, other, port)
	if got := must(t, dir, "port"); !strings.Contains(got, open) || strings.Contains(got, other) {
		t.Errorf("open: %s", got)
	}
	must(t, dir, "port", "--remove", open)
	must(t, dir, "stop")
	fails(t, dir, 125, "in use by another program\n  try: use another port of the host: HOST:"+port+"\n", "run", "--rm", "-p", port, "--", "true")
	must(t, dir, "port", port)
	fails(t, dir, 125, "try: bawn port --name killed --remove "+port, "exec", "killed", "--", "true")
	must(t, dir, "port", "--remove", port)
	fails(t, dir, 125, "not a directory", "run", "--mount", t.TempDir()+":/etc/hosts/x", "--", "true")
	must(t, dir, "run", "--", "true")
	if got := must(t, dir, "inspect"); strings.Contains(got, port) || strings.Contains(got, "/etc/hosts/x") {
		t.Errorf("kept: %s", got)
	}
}

// killStarting kills the CLI, and then the supervisor, while the sandbox starts.
func killStarting(t *testing.T, dir, state string) {
	must(t, dir, "stop")
	for _, what := range []string{"cli", "supervisor"} {
		c := command(t.Context(), dir, "run", "--", "true")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		wait(t, "a supervisor", func() bool { return len(processes(state)) > 0 })
		if what == "cli" {
			kill9(t, c.Process.Pid)
		} else {
			for pid, line := range processes(state) {
				if strings.Contains(line, "__supervise") {
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
			}
		}
		_ = c.Wait()
		if got := must(t, dir, "run", "--", "sh", "-c", "cat ~/kept"); got != "kept\n" {
			t.Errorf("after killing the %s: %q", what, got)
		}
		must(t, dir, "stop")
		waitGone(t, state)
	}
}

// interruptStarting interrupts the CLI before the command runs, or just when it does. A
// sandbox that no command has run in yet goes with the interrupted command.
func interruptStarting(t *testing.T, dir, state string) {
	for sig, want := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143} {
		c := command(t.Context(), dir, "run", "--", "sleep", "1000")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		wait(t, "a supervisor", func() bool { return len(processes(state)) > 0 })
		if err := c.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if _ = c.Wait(); c.ProcessState.ExitCode() != want {
			t.Errorf("%v: %v", sig, c.ProcessState)
		}
		_ = bawn(t, dir, "stop") // it may have been told before it ran
		waitGone(t, state)
	}
	fresh := project(t, "interrupted")
	c := command(t.Context(), fresh, "run", "--", "sleep", "1000")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	wait(t, "a sandbox", func() bool { _, err := os.Stat(sandboxDir("interrupted")); return err == nil })
	_ = c.Process.Signal(syscall.SIGINT)
	if _ = c.Wait(); strings.Contains(must(t, fresh, "ls"), "interrupted") {
		if r := bawn(t, fresh, "logs", "--supervisor"); !strings.Contains(r.out, "msg=running") { // the signal came too late
			t.Errorf("a sandbox that never ran stays")
		}
	}
}

// TestGuestEnds: when the guest panics, powers off or reboots, the sandbox ends, reports
// why, and can start again.
func TestGuestEnds(t *testing.T) {
	dir := project(t, "ends")
	state := filepath.Join(base, "state", "bawn", "sandboxes", "ends")
	for name, c := range map[string]struct{ cmd, says string }{
		"panic":     {"sync; echo c > /proc/sysrq-trigger", "Kernel panic - not syncing: sysrq triggered crash"},
		"power off": {"sync; echo o > /proc/sysrq-trigger; sleep 1000", "powered off"},
		"reboot":    {"sync; echo b > /proc/sysrq-trigger; sleep 1000", "rebooted or its kernel panicked"},
		"init":      {"sync; kill -KILL 1; kill -ABRT 1; sleep 1000", ""},
	} {
		t.Run(name, func(t *testing.T) {
			must(t, dir, "run", "--memory", "1G", "--", "true")
			if name == "init" { // process 1 takes no signal that it did not ask for, but a fault
				sh(t, dir, "sudo kill -KILL 1; true")
				must(t, dir, "run", "--", "true")
				return
			}
			if r := bawn(t, dir, "run", "--user", "root", "--", "sh", "-c", c.cmd); r.code == 0 || !strings.Contains(r.err, c.says) {
				t.Errorf("%+v", r)
			}
			waitGone(t, state)
			must(t, dir, "run", "--", "true")
		})
	}
	t.Run("commands", func(t *testing.T) {
		must(t, dir, "run", "--", "true")
		if r := bawn(t, dir, "run", "--", "sudo", "shutdown", "-h", "+5"); r.code != 1 || !strings.Contains(r.err, "a delayed shutdown is not supported") {
			t.Errorf("%+v", r)
		}
		for _, c := range []string{"poweroff", "reboot", "shutdown -h now"} {
			_ = bawn(t, dir, "run", "--", "sh", "-c", "echo "+c+" > ~/last; exec sudo "+c) // it may end before the command does
			waitGone(t, state)
			if got := must(t, dir, "inspect"); !strings.Contains(got, `"phase": "stopped"`) || !strings.Contains(got, "the guest powered off") {
				t.Errorf("%s: %s", c, got)
			}
			if got := must(t, dir, "run", "--", "sh", "-c", "cat ~/last"); got != c+"\n" {
				t.Errorf("%s: %q", c, got)
			}
		}
		_ = bawn(t, dir, "run", "--", "sudo", "reboot")
		must(t, dir, "run", "--", "true") // waits for the machine's end, and starts it again
	})
}

// killDuring runs bawn and kills the sandbox's supervisor, or its QEMU, or bawn
// itself, meanwhile.
func killDuring(t *testing.T, dir, name string, takes time.Duration, args ...string) {
	t.Helper()
	c := command(t.Context(), dir, args...)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(rand.N(takes)) // a random moment, not a wait
	what := []string{"__supervise", "qemu-system", "bawn"}[rand.N(3)]
	if what == "bawn" {
		_ = c.Process.Kill()
	}
	killed, supervisors := map[int]bool{}, map[int]bool{} // the latter are the parents of each QEMU
	for pid, line := range processes(sandboxDir(name)) {
		if !strings.Contains(line, what) {
			continue
		}
		if what == "qemu-system" {
			supervisors[parentOf(pid)] = true
		}
		killed[pid] = syscall.Kill(pid, syscall.SIGKILL) == nil
	}
	_ = c.Wait() // it may have been too late
	wait(t, "the end of what was killed", func() bool {
		now := processes(sandboxDir(name))
		for pid, line := range now {
			if strings.Contains(line, "qemu-system") && !killed[pid] { // a start is tried once more
				delete(supervisors, parentOf(pid))
			}
		}
		for pid := range now {
			if supervisors[pid] {
				return false
			}
		}
		s := inspect(t, dir).State.Phase
		return s != "stopping" && s != "starting"
	})
}
