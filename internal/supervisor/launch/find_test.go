package launch

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/supervisor/handoff"
)

// TestKillFindsASupervisorWithoutAState: it was stopped before it had written its first state, and
// nothing but its lock tells which process it is. The command that started it has the lock's file
// open as well, and is not killed.
func TestKillFindsASupervisorWithoutAState(t *testing.T) {
	was := stateLimit
	stateLimit = 10 * time.Millisecond
	t.Cleanup(func() { stateLimit = was })
	d := store.Dir{Path: t.TempDir()}
	lock, err := d.Lock()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.WriteState(sandbox.State{Phase: sandbox.Starting}); err != nil {
		t.Fatal(err)
	}
	bystander := standIn(t, "__run", lock.File())
	supervisor := standIn(t, handoff.SuperviseVerb, lock.File())
	lock.Close()
	if err := supervisor.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if pids := withOpen(d.LockPath()); !slices.Contains(pids, supervisor.Process.Pid) || !slices.Contains(pids, bystander.Process.Pid) {
		t.Errorf("found %v", pids)
	}
	killed := make(chan error, 1)
	go func() { killed <- Kill(t.Context(), d) }()
	_ = supervisor.Wait()
	if s := supervisor.ProcessState.Sys().(syscall.WaitStatus); s.Signal() != syscall.SIGKILL {
		t.Errorf("it ended with %v", supervisor.ProcessState)
	}
	if err := bystander.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the other process: %v", err)
	}
	_ = bystander.Process.Kill()
	_ = bystander.Wait()
	if err := <-killed; err != nil {
		t.Error(err)
	}
}

// standIn starts a process whose first argument is the verb, and which waits with a file open.
func standIn(t *testing.T, verb string, file *os.File) *exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, verb), []byte("echo ready; read line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	cmd := exec.Command("/bin/sh", verb)
	cmd.Dir, cmd.Stdin, cmd.ExtraFiles = dir, r, []*os.File{file}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if _, err := out.Read(make([]byte, 5)); err != nil { // it runs as that by now
		t.Fatal(err)
	}
	return cmd
}
