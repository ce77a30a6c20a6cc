package dockerd

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
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

// newDaemon returns one whose daemon is a script.
func newDaemon(t *testing.T, script string) (d *Daemon, client *http.Client) {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "daemon")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	processes := process.NewTable(nil)
	processes.OwnOnly = true
	d = New(processes)
	d.socket, d.data, d.log, d.restartPause, d.refusalTime = dir+"/sock", dir, dir+"/log", time.Millisecond, time.Second
	if err := d.listen(program); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Stop(time.Minute) })
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", d.socket)
	}
	return d, &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: time.Minute}
}

// TestDaemonThatCannotStart: its clients get the reason and do not wait for ever. A client that comes later has it
// started again.
func TestDaemonThatCannotStart(t *testing.T) {
	d, client := newDaemon(t, `echo 'level=info x' >&2; printf 'failed to start daemon: no \033[31mspace\n\n' >&2; exit 3`+"\n")
	for range 2 {
		ping, err := client.Head("http://docker/_ping")
		if err != nil {
			t.Fatal(err)
		}
		ping.Body.Close()
		res, err := client.Post("http://docker/v1.41/containers/create", "application/json", bytes.NewReader(make([]byte, 1<<20)))
		if err != nil {
			t.Fatal(err)
		}
		var said struct{ Message string }
		if err := json.NewDecoder(res.Body).Decode(&said); err != nil {
			t.Error(err)
		}
		res.Body.Close()
		for _, want := range []string{"ended with status 3", `failed to start daemon: no \x1b[31mspace`, d.log} {
			if !strings.Contains(said.Message, want) {
				t.Errorf("%q is not in %q", want, said.Message)
			}
		}
		if ping.StatusCode != 503 || res.StatusCode != 503 {
			t.Errorf("status %d, %d", ping.StatusCode, res.StatusCode)
		}
		time.Sleep(2 * d.refusalTime) // the daemon is started anew, not refused once more
	}
}

// TestSlowDaemonIsStartedAgain: its clients wait, but not for ever.
func TestSlowDaemonIsStartedAgain(t *testing.T) {
	starts := filepath.Join(t.TempDir(), "starts")
	_, client := newDaemon(t, "echo >>"+starts+"; echo 'failed to start containerd: timeout waiting for containerd to start' >&2; exit 1\n")
	for i := range 2 {
		res, err := client.Get("http://docker/_ping")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != 503 || !strings.Contains(string(b), "waiting for containerd") {
			t.Errorf("%d %s %v", res.StatusCode, b, err)
		}
		if b, err := os.ReadFile(starts); err != nil || len(b) != (i+1)*(1+maxSlowStarts) {
			t.Errorf("%d starts, %v", len(b), err)
		}
		time.Sleep(2 * time.Second) // the daemon is started anew, not refused once more
	}
}

// TestSilentClientOfADaemonThatCannotStart: it does not keep the daemon from being started for others.
func TestSilentClientOfADaemonThatCannotStart(t *testing.T) {
	d, client := newDaemon(t, "exit 1\n")
	c, err := net.Dial("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 2 {
		res, err := client.Get("http://docker/info")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		time.Sleep(2 * d.refusalTime)
	}
}

// TestDaemonThatWasStopped starts again for who waits: it has not failed.
func TestDaemonThatWasStopped(t *testing.T) {
	if got := failure(0, "/nonexistent"); got != "" {
		t.Error(got)
	}
	if got := failure(9, "/nonexistent"); !strings.Contains(got, "signal killed") {
		t.Error(got)
	}
}
