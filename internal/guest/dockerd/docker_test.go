package dockerd

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"bawn.dev/bawn/internal/guest/process"
)

// TestMain lets a Daemon execute this program as it executes the agent, and be the Docker
// daemon: a program that answers one client on descriptor 3 and ends.
func TestMain(m *testing.M) {
	switch {
	case filepath.Base(os.Args[0]) == ActivateMode:
		os.Exit(Activate(os.Args[1:]))
	case os.Getenv("LISTEN_FDS") != "":
		os.Exit(answerOne())
	}
	os.Exit(m.Run())
}

func answerOne() int {
	l, err := net.FileListener(os.NewFile(listenFD, "socket"))
	if err != nil {
		return 1
	}
	c, err := l.Accept()
	if err != nil {
		return 1
	}
	pid := strconv.Itoa(os.Getpid())
	_, _ = io.WriteString(c, strings.Join([]string{os.Getenv("LISTEN_FDS"), strconv.FormatBool(os.Getenv("LISTEN_PID") == pid), pid}, " "))
	c.Close()
	return 0
}

func ask(t *testing.T, socket string) (fds, own, pid string) {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	f := strings.Fields(string(b))
	if err != nil || len(f) != 3 {
		t.Fatalf("%q, %v", b, err)
	}
	return f[0], f[1], f[2]
}

// TestDaemonIsStartedForAClient, again when it has ended, and not after Stop.
func TestDaemonIsStartedForAClient(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	processes := process.NewTable(nil)
	processes.OwnOnly = true
	d := New(processes)
	d.socket, d.data, d.log, d.restartPause = dir+"/sock", dir, dir+"/log", time.Millisecond
	if err := d.listen(exe); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(d.socket); err != nil || fi.Mode().Perm() != 0o660 {
		t.Errorf("socket: %v, %v", fi, err)
	}
	var before string
	for range 3 {
		fds, own, pid := ask(t, d.socket)
		if fds != "1" || own != "true" || pid == before {
			t.Errorf("%s descriptors, its own: %s, process %s after %s", fds, own, pid, before)
		}
		before = pid
	}
	d.Stop(time.Minute)
	if p, err := d.start(nil, exe); p != nil || err != nil {
		t.Errorf("started after Stop: %v, %v", p, err)
	}
}
