//go:build vm

package vmtest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"bawn.dev/bawn/internal/policy"
)

// flip changes a byte of a file.
func flip(path string, at int64) error {
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		return err
	}
	b[0] ^= 0x55
	_, err = f.WriteAt(b, at)
	return err
}

// TestSaveKilled is attack 20 on suspending and resuming: the supervisor is killed at random
// moments of both. The sandbox is then resumed or boots, with its disk as it was, and no
// file is left of the attempt.
func TestSaveKilled(t *testing.T) {
	dir := project(t, "save-killed")
	const name = "save-killed"
	must(t, dir, "run", "--memory", "1G", "--", "true")
	begin := time.Now()
	must(t, dir, "suspend")
	saving := time.Since(begin)
	begin = time.Now()
	must(t, dir, "run", "--", "true")
	going := time.Since(begin)
	resumed, booted := 0, 0
	for i := range rounds(10, 4) {
		must(t, dir, "run", "--", "sh", "-ec", fmt.Sprintf("echo %d > ~/kept; sync", i))
		killDuring(t, dir, name, saving, "suspend")
		if i%2 == 1 {
			killDuring(t, dir, name, going, "run", "--", "true")
		}
		r := bawn(t, dir, "run", "--", "sh", "-c", "cat ~/kept; sudo dmesg | grep -c 'EXT4-fs error'")
		if r.out != fmt.Sprintf("%d\n0\n", i) {
			t.Fatalf("round %d: %+v%s", i, r, logs(dir))
		}
		if strings.Contains(strings.Join(lastStart(t, name), " "), "resumed=true") {
			resumed++
		} else {
			booted++
		}
		left, err := filepath.Glob(filepath.Join(sandboxDir(name), "suspended", "machine*"))
		if err != nil || len(left) > 0 {
			t.Errorf("round %d: a memory is left beside a running machine: %v", i, left)
		}
	}
	t.Logf("went on %d times, booted %d times", resumed, booted)
}

func lastStart(t *testing.T, name string) []string {
	t.Helper()
	var last string
	for line := range strings.Lines(readFile(t, filepath.Join(sandboxDir(name), "supervisor.log"))) {
		if strings.Contains(line, "msg=running") {
			last = line
		}
	}
	return strings.Fields(last)
}

// TestSaveDiskFull: without room for the memory, suspending fails with a message and the
// sandbox goes on; with room it works.
func TestSaveDiskFull(t *testing.T) {
	dir := project(t, "disk-full")
	state := filepath.Join(base, "small-state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	unshare := []string{"--mount"}
	if os.Getuid() != 0 {
		unshare = []string{"--mount", "--user", "--map-current-user", "--keep-caps"}
	}
	script := `
mount -t tmpfs -o size=16M,mode=700 tmpfs "$XDG_STATE_HOME"
trap '"$BAWN" rm -f disk-full' EXIT
"$BAWN" run --memory 1G -- sh -c 'sleep 10000 >/dev/null 2>&1 </dev/null & echo kept > ~/kept'
if "$BAWN" suspend; then echo "suspended without room"; exit 1; fi
"$BAWN" run -- sh -ec 'pgrep -x sleep; cat ~/kept; echo more > ~/more'
if "$BAWN" snapshot create disk-full; then echo "kept without room"; exit 1; fi
"$BAWN" run -- pgrep -x sleep
mount -o remount,size=1G "$XDG_STATE_HOME"
"$BAWN" suspend
"$BAWN" run -- sh -ec 'pgrep -x sleep; cat ~/kept ~/more'
ls -A "$XDG_STATE_HOME"/bawn/sandboxes/disk-full/suspended
`
	c := exec.CommandContext(t.Context(), "unshare", append(unshare, "sh", "-euc", script)...)
	c.Dir = dir
	c.Env = append(environment(), "XDG_STATE_HOME="+state, "BAWN="+os.Getenv("BAWN"))
	out, err := c.CombinedOutput()
	if err != nil || strings.Count(string(out), "no space left") < 2 || !strings.HasSuffix(string(out), "kept\nmore\n"+"disk-full\n") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestSuspendedChanges: several commands resume a suspended sandbox once, it boots if its
// machine is another one now, and its clock is right afterwards, also if it was wrong.
func TestSuspendedChanges(t *testing.T) {
	dir := project(t, "suspended")
	uptime := func() float64 {
		up, err := strconv.ParseFloat(strings.Fields(must(t, dir, "run", "--", "cat", "/proc/uptime"))[0], 64)
		if err != nil {
			t.Fatal(err)
		}
		return up
	}
	must(t, dir, "run", "--memory", "1G", "--", "sh", "-c", "echo $$ > /tmp/pid; sleep 10000 >/dev/null 2>&1 </dev/null &")
	t.Run("clock", func(t *testing.T) {
		for _, date := range []string{"2001-02-03", "2099-02-03"} { // the host's clock jumped, to the guest
			must(t, dir, "run", "--user", "root", "--", "date", "-s", date)
			was := uptime()
			must(t, dir, "suspend")
			at, err := strconv.ParseInt(strings.TrimSpace(must(t, dir, "run", "--", "date", "+%s")), 10, 64)
			if off := time.Since(time.Unix(at, 0)).Abs(); err != nil || off > time.Minute {
				t.Errorf("after %s the clock is off by %s", date, off)
			}
			if now := uptime(); now < was {
				t.Errorf("the monotonic clock went back from %v to %v", was, now)
			}
		}
	})
	t.Run("connection", func(t *testing.T) { suspendedConnection(t, dir) })
	t.Run("three at once", func(t *testing.T) {
		must(t, dir, "suspend")
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				if r := bawnAt(t.Context(), dir, nil, nil, "run", "--", "sh", "-c", "pgrep -x sleep >/dev/null && echo here"); r.out != "here\n" {
					t.Errorf("run %d: %+v", i, r)
				}
			})
		}
		wg.Wait()
	})
	t.Run("another machine", func(t *testing.T) {
		must(t, dir, "run", "--", "sh", "-c", "echo kept > ~/kept")
		must(t, dir, "suspend")
		r := bawn(t, dir, "run", "--memory", "1100M", "--cpus", "1", "--", "sh", "-c", "cat ~/kept; pgrep -x sleep")
		if r.out != "kept\n" || !strings.Contains(r.err, "have changed") || !strings.Contains(r.err, "boots from its disk") {
			t.Errorf("with another machine: %+v", r)
		}
	})
}

// suspendedConnection tests that both ends of a connection see at once that it was cut.
func suspendedConnection(t *testing.T, dir string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	must(t, dir, "policy", "allow", "host:"+port)
	must(t, dir, "run", "--", "sh", "-c", `python3 -c '
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
s.sendall(b"x")
try: end = repr(s.recv(1))
except OSError as e: end = type(e).__name__
open("end", "w").write(end + "\n")' `+policy.HostName+" "+port+` >/dev/null 2>&1 </dev/null &`)
	if err := l.(*net.TCPListener).SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil { // else the guest may still be connecting, and goes on with that
		t.Fatal(err)
	}
	must(t, dir, "suspend")
	if _, err := c.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("the server has %v", err)
	}
	must(t, dir, "resume")
	wait(t, "the client to see it", func() bool { fi, err := os.Stat(filepath.Join(dir, "end")); return err == nil && fi.Size() > 0 })
	if end := readFile(t, filepath.Join(dir, "end")); end != "ConnectionResetError\n" {
		t.Errorf("the client saw %q", end)
	}
}
