//go:build vm

package vmtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func TestBadInput(t *testing.T) {
	dir := project(t, "bad")
	for _, c := range []struct {
		say  string
		args []string
	}{
		{"unknown flag", []string{"run", "--no-such-flag", "--", "true"}},
		{"there is no command", []string{"no-such-verb"}},
		{"command", []string{"run"}},
		{"does not exist", []string{"run", "-C", "/no/such/dir", "--", "true"}},
		{"not a directory", []string{"run", "-C", "/etc/passwd", "--", "true"}},
		{"--cpus", []string{"run", "--cpus", "-1", "--", "true"}},
		{"--memory", []string{"run", "--memory", "12Q", "--", "true"}},
		{"too little", []string{"run", "--memory", "1M", "--", "true"}},
		{"--disk", []string{"run", "--disk", "5", "--", "true"}},
		{"mount", []string{"run", "--mount", "/no/such/dir", "--", "true"}},
		{"port", []string{"run", "-p", "99999", "--", "true"}},
		{"name", []string{"run", "--name", "Not A Name", "--", "true"}},
		{"no such sandbox", []string{"exec", "nobody", "--", "true"}},
		{"sandbox", []string{"stop"}},
		{"", []string{"exec", "nobody"}},
	} {
		fails(t, dir, 125, c.say, c.args...)
	}
	// The home directory, the root and bawn's own folders are never shared.
	for _, d := range []string{"/", filepath.Join(base, "home"), filepath.Join(base, "state")} {
		fails(t, dir, 125, "cannot share", "run", "-C", d, "--", "true")
	}
	if got := must(t, dir, "ls"); strings.Contains(got, "bad") {
		t.Errorf("something was made:\n%s", got)
	}
}

func TestNoQEMU(t *testing.T) {
	dir := project(t, "noqemu")
	bin := t.TempDir()
	r := bawnAt(t.Context(), dir, nil, []string{"PATH=" + bin}, "run", "--", "true")
	if r.code != 125 || !strings.Contains(r.err, "QEMU is not installed") || !strings.Contains(r.err, "apt-get install") {
		t.Errorf("without QEMU: %+v", r)
	}
	old := "#!/bin/sh\necho 'QEMU emulator version 6.2.0'\n"
	for _, name := range []string{"qemu-system-x86_64", "qemu-system-aarch64"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(old), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r = bawnAt(t.Context(), dir, nil, []string{"PATH=" + bin + ":/usr/bin:/bin"}, "run", "--", "true")
	if r.code != 125 || !strings.Contains(r.err, "6.2") || !strings.Contains(r.err, "7.2") {
		t.Errorf("with QEMU 6.2: %+v", r)
	}
}

func TestTooMuchMemory(t *testing.T) {
	dir := project(t, "memory")
	r := bawn(t, dir, "run", "--memory", "100T", "--", "true")
	if r.code != 125 || !strings.Contains(strings.ToLower(r.err), "memory") {
		t.Errorf("%+v", r)
	}
}

// TestTwoAtOnce: two first runs in one directory make one sandbox.
func TestTwoAtOnce(t *testing.T) {
	dir := project(t, "two")
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := bawnAt(t.Context(), dir, nil, nil, "run", "--", "sh", "-c", fmt.Sprintf("echo %d >> /tmp/seen", i))
			if r.code != 0 {
				t.Errorf("run %d: %+v", i, r)
			}
		}()
	}
	wg.Wait()
	if got := must(t, dir, "run", "--", "wc", "-l", "/tmp/seen"); got != "3 /tmp/seen\n" {
		t.Errorf("%q", got)
	}
}

// TestLongPaths: sockets lie deeper than their addresses can name (108 bytes,
// unix(7)).
func TestLongPaths(t *testing.T) {
	dir := project(t, "long")
	state := filepath.Join(base, strings.Repeat("long-", 30), strings.Repeat("path-", 20))
	env := []string{"XDG_STATE_HOME=" + state}
	if r := bawnAt(t.Context(), dir, nil, env, "run", "--", "true"); r.code != 0 {
		t.Errorf("run: %+v", r)
	}
	if r := bawnAt(context.Background(), dir, nil, env, "rm", "--force"); r.code != 0 {
		t.Errorf("rm: %+v", r)
	}
}

// TestDamagedCache: what no longer has its digest is made again.
func TestDamagedCache(t *testing.T) {
	dir := project(t, "damaged")
	files, err := filepath.Glob(filepath.Join(os.Getenv("BAWN_TEST_CACHE"), "bawn", "initramfs", "*", "initrd"))
	if err != nil || len(files) == 0 {
		must(t, dir, "run", "--", "true")
		must(t, dir, "stop")
		if files, err = filepath.Glob(filepath.Join(os.Getenv("BAWN_TEST_CACHE"), "bawn", "initramfs", "*", "initrd")); err != nil || len(files) == 0 {
			t.Fatalf("no initramfs in the cache: %v", err)
		}
	}
	for _, f := range files {
		if err := os.Chmod(f, 0o600); err != nil {
			t.Fatal(err)
		}
		h, err := os.OpenFile(f, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.WriteAt([]byte("damage"), 4000); err != nil {
			t.Fatal(err)
		}
		h.Close()
	}
	must(t, dir, "run", "--", "true")
}

// TestKilled is attack 20: whatever is killed, nothing is left running and the
// next run works, with the disk as it was.
func TestKilled(t *testing.T) {
	dir := project(t, "killed")
	state := filepath.Join(base, "state", "bawn", "sandboxes", "killed")
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
	t.Run("stands still", func(t *testing.T) { // --force ends the supervisor, and QEMU with it
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
	})
	t.Run("settings", func(t *testing.T) { // that a start fails of are not kept
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
		fails(t, dir, 125, "in use by another program\n  try: another port of the host, with -p HOST:"+port+"\n", "run", "--rm", "-p", port, "--", "true")
		must(t, dir, "port", port)
		fails(t, dir, 125, "try: bawn port --name killed --remove "+port, "exec", "killed", "--", "true")
		must(t, dir, "port", "--remove", port)
		fails(t, dir, 125, "not a directory", "run", "--mount", t.TempDir()+":/etc/hosts/x", "--", "true")
		must(t, dir, "run", "--", "true")
		if got := must(t, dir, "inspect"); strings.Contains(got, port) || strings.Contains(got, "/etc/hosts/x") {
			t.Errorf("kept: %s", got)
		}
	})
	t.Run("start", func(t *testing.T) { // the CLI, and then the supervisor, while it starts
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
	})
	t.Run("interrupt", func(t *testing.T) { // before the command runs, or just when it does
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
	})
}

// shares are the share servers of a project.
func shares(dir string) map[int]string {
	found := map[int]string{}
	for pid, line := range processes(dir) {
		if strings.Contains(line, "__share") {
			found[pid] = line
		}
	}
	return found
}

// TestGuestEnds: a guest that panics, powers off or reboots ends the sandbox,
// which says so and starts again.
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
		if r := bawn(t, dir, "run", "--", "sudo", "shutdown", "-h", "+5"); r.code != 1 || !strings.Contains(r.err, "only at once") {
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
	})
}

// TestDiskLimit: a guest that fills its disk gets ENOSPC, and the host gives no
// more than --disk.
func TestDiskLimit(t *testing.T) {
	dir := project(t, "full")
	must(t, dir, "run", "--memory", "1G", "--disk", "1G", "--", "true")
	r := bawn(t, dir, "run", "--user", "root", "--", "sh", "-c", "cat /dev/zero > /fill")
	if r.code == 0 || !strings.Contains(r.err, "No space left") {
		t.Errorf("%+v", r)
	}
	if used := inspect(t, dir).DiskUsed; used > 1<<30 {
		t.Errorf("the host gave %d bytes", used)
	}
	must(t, dir, "run", "--", "true")
	must(t, dir, "stop")
	must(t, dir, "run", "--user", "root", "--", "rm", "/fill")
	must(t, dir, "run", "--", "sh", "-c", "head -c 10000000 /dev/zero > ~/ok")
}

// TestRootHostDiskFull: the host's disk fills up under a sandbox. Its machine
// stands still, the person hears why, and it goes on when there is room. Only
// root can make a file system that is small.
func TestRootHostDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("wants root, to mount a small file system")
	}
	dir := project(t, "hostfull")
	small := filepath.Join(base, "small")
	if err := os.Mkdir(small, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("none", small, "tmpfs", 0, "size=6M"); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	env := []string{"XDG_STATE_HOME=" + small}
	t.Cleanup(func() {
		if r := bawnAt(context.Background(), dir, nil, env, "rm", "--force"); r.code != 0 {
			t.Errorf("rm: %+v", r)
		}
		if err := syscall.Unmount(small, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	in := func(args ...string) result { return bawnAt(t.Context(), dir, nil, env, args...) }
	if r := in("run", "--memory", "1G", "--", "true"); r.code != 0 {
		t.Fatalf("%+v", r)
	}

	c := command(t.Context(), dir, "run", "--", "sh", "-c", "head -c 16000000 /dev/urandom > ~/big && sync && wc -c < ~/big")
	c.Env = append(c.Env, env...)
	var out, said lockedBuffer
	c.Stdout, c.Stderr = &out, &said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	wait(t, "word of the full disk", func() bool { return strings.Contains(said.String(), "the host's disk is full") })
	if r := in("ls"); !strings.Contains(r.out, "host disk full") {
		t.Errorf("ls: %+v", r)
	}
	if err := syscall.Mount("none", small, "tmpfs", syscall.MS_REMOUNT, "size=100M"); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil || out.String() != "16000000\n" {
		t.Errorf("%v: %q, %q", err, out.String(), said.String())
	}

	// It is full when the sandbox is to start.
	if r := in("stop"); r.code != 0 {
		t.Fatalf("stop: %+v", r)
	}
	fill := filepath.Join(small, "fill")
	f, err := os.Create(fill)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 64<<10)
	for err == nil {
		_, err = f.Write(block)
	}
	f.Close()
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if r := in("run", "--", "true"); r.code != 125 || !strings.Contains(r.err, "no space left") || !strings.Contains(r.err, "try:") {
		t.Errorf("a start on a full disk: %+v", r)
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	if r := in("run", "--", "sh", "-c", "wc -c < ~/big"); r.code != 0 || r.out != "16000000\n" {
		t.Errorf("after that: %+v", r)
	}
}

// lockedBuffer may be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestLogLimit is part of attack 17: the console's log is bounded.
func TestLogLimit(t *testing.T) {
	dir := shared(t)
	must(t, dir, "run", "--user", "root", "--", "sh", "-c", "head -c 6000000 /dev/zero | tr '\\0' 'x' > /dev/ttyS0")
	var total int64
	files, _ := filepath.Glob(filepath.Join(base, "state", "bawn", "sandboxes", "shared", "*.log*"))
	for _, f := range files {
		if fi, err := os.Stat(f); err == nil {
			total += fi.Size()
		}
	}
	if total > 5<<20 {
		t.Errorf("%d bytes of logs in %v", total, files)
	}
}
