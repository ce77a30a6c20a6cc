//go:build vm

package vmtest

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
)

// soakChannels are the ways on which testdata/soak.py floods the host. Frames of the control
// and mux ports that the agent would not send are flooded without a machine, which they end:
// internal/supervisor/agent, TestAFloodOnTheMuxPortEndsIt.
var soakChannels = []string{"dns", "udp", "tcp", "heads", "frames", "share", "console", "port"}

// What a flood may cost each process of the host, beside what it had before.
const (
	soakMemory  = 192 << 10 // KiB
	soakThreads = 64
	soakFiles   = 2500     // the share keeps a file open for each that the guest knows
	soakDisk    = 64 << 20 // bytes of logs
	// soakGoroutines is for flows that end by themselves, in a minute or two.
	soakGoroutines = 40
)

// TestSoak: root in the guest floods every channel to the host at once, for ten seconds, and
// clients on the host flood the control socket, the SSH socket and a published port, and do
// not read what a command prints. With BAWN_TEST_SOAK=1 the guest floods each channel for a
// minute by itself, too. The memory, threads, open files and logs of the supervisor, of the
// share servers and of a client stay within their bounds, no goroutine is left behind, the
// sandbox goes on, and its processes come to rest.
func TestSoak(t *testing.T) {
	dir := shared(t)
	where := temp(t)
	pid := inspect(t, dir).State.PID
	before, goroutines := hostProcesses(t, pid), inspect(t, dir).Status.Goroutines
	if goroutines == 0 {
		t.Fatal("the supervisor does not say how many goroutines it has")
	}
	flood := func(seconds int, channels ...string) {
		out := must(t, dir, append([]string{"run", "--user", "root", "--", "python3", "-c", testdata(t, "soak.py"), strconv.Itoa(seconds), where}, channels...)...)
		if !strings.Contains(out, "flooded") {
			t.Errorf("%v: %q", channels, out)
		}
		within(t, strings.Join(channels, " "), before, hostProcesses(t, pid))
	}
	clients := floodByClients(t, dir)
	flood(10, soakChannels...)
	clients()
	if os.Getenv("BAWN_TEST_SOAK") != "" {
		for _, c := range soakChannels {
			flood(60, c)
		}
	}
	if size := logBytes(t, dir); size > soakDisk {
		t.Errorf("the logs have %d bytes", size)
	}
	if got := must(t, dir, "run", "--", "echo", "well"); got != "well\n" {
		t.Errorf("after it: %q", got)
	}
	used := func() float64 {
		n := 0
		for p := range hostProcesses(t, pid) {
			n += cpuTicks(t, p)
		}
		return float64(n)
	}
	wait(t, fmt.Sprintf("no more goroutines than %d before and %d", goroutines, soakGoroutines), func() bool {
		return inspect(t, dir).Status.Goroutines <= goroutines+soakGoroutines
	})
	steady(t, "the processor time of the host's processes", 100, used) // a second of two
}

// floodByClients floods the sockets of the shared sandbox from the host until the returned
// function is called, which returns when all clients have ended.
func floodByClients(t *testing.T, dir string) (end func()) {
	t.Helper()
	box := store.Dir{Path: sandboxDir(filepath.Base(dir))}
	calls := control.NewClient(box.DialControl)
	ports, err := calls.OpenPorts(t.Context(), []sandbox.Port{{Guest: 45999}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	flood := func(dial func() (net.Conn, error), say ...string) {
		all.Go(func() { floodSocket(ctx, dial, say) })
	}
	flood(func() (net.Conn, error) { return box.DialControl(ctx) }, "", "GET /status HTTP/1.1\r\n", "GET /events HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /ports HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n{\"add\":[", strings.Repeat("\x00", 4096))
	flood(func() (net.Conn, error) { return box.Dial(ctx, store.SSHSocket) }, "", "SSH-2.0-x\r\n", "SSH-2.0-x\r\n"+strings.Repeat("\x00\x00\x7f\xff", 1024), "\r\n")
	flood(func() (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", ports[0].Host))
	}, "", "x")
	unread := command(ctx, dir, "run", "-n", "--", "head", "-c", "1G", "/dev/zero")
	out, err := unread.StdoutPipe()
	if err == nil {
		err = unread.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil { // it has begun
		t.Fatal(err)
	}
	was := processUsage(unread.Process.Pid)
	return func() {
		within(t, "a client whose output nobody reads", map[int]usage{unread.Process.Pid: was}, map[int]usage{unread.Process.Pid: processUsage(unread.Process.Pid)})
		cancel()
		all.Wait()
		_ = unread.Wait() // killed
		if err := calls.ClosePorts(t.Context(), []uint16{ports[0].Host}); err != nil {
			t.Error(err)
		}
	}
}

// floodSocket makes connections, says one of the texts on each and reads one byte, if it comes
// soon. It keeps some of them open, and closes all when ctx ends.
func floodSocket(ctx context.Context, dial func() (net.Conn, error), say []string) {
	const keep = 100
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	for i := 0; ctx.Err() == nil; i++ {
		c, err := dial()
		if err != nil {
			continue
		}
		_ = c.SetDeadline(time.Now().Add(20 * time.Millisecond))
		_, _ = io.WriteString(c, say[i%len(say)])
		_, _ = c.Read(make([]byte, 1))
		if open = append(open, c); len(open) > keep {
			open[0].Close()
			open = open[1:]
		}
	}
}

// usage is what a process of the host uses.
type usage struct {
	name                   string
	memory, threads, files int // memory in KiB
}

// hostProcesses returns the supervisor and the share servers below it.
func hostProcesses(t *testing.T, supervisor int) map[int]usage {
	t.Helper()
	all := map[int]usage{}
	list, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range list {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		text := string(b)
		pid, parent := statusField(text, "Pid:"), statusField(text, "PPid:")
		cmd, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if pid != supervisor && (parent != supervisor || !strings.Contains(string(cmd), "__share")) {
			continue
		}
		all[pid] = processUsage(pid)
	}
	if len(all) < 2 {
		t.Fatalf("the processes of the sandbox: %+v", all)
	}
	return all
}

// processUsage returns what a process uses; zero if it has ended.
func processUsage(pid int) usage {
	proc := fmt.Sprintf("/proc/%d/", pid)
	status, _ := os.ReadFile(proc + "status")
	cmd, _ := os.ReadFile(proc + "cmdline")
	files, _ := os.ReadDir(proc + "fd")
	return usage{strings.ReplaceAll(string(cmd), "\x00", " "), statusField(string(status), "RssAnon:"), statusField(string(status), "Threads:"), len(files)}
}

func statusField(text, name string) int {
	_, rest, _ := strings.Cut(text, "\n"+name)
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(fields[0])
	return n
}

// within compares what the processes use with before.
func within(t *testing.T, what string, before, now map[int]usage) {
	t.Helper()
	for pid, was := range before {
		is, ok := now[pid]
		if !ok {
			t.Errorf("%s: %s is gone", what, was.name)
			continue
		}
		t.Logf("%s: %.40s: %d KiB, %d threads, %d files; before %d, %d, %d", what, is.name, is.memory, is.threads, is.files, was.memory, was.threads, was.files)
		if is.memory-was.memory > soakMemory || is.threads-was.threads > soakThreads || is.files-was.files > soakFiles {
			t.Errorf("%s: %s uses %+v, before %+v", what, is.name, is, was)
		}
	}
}

// cpuTicks returns the processor time of a process, in hundredths of a second.
func cpuTicks(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return user + system
}

// logBytes returns the size of a sandbox's logs.
func logBytes(t *testing.T, dir string) (n int64) {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(base, "state", "bawn", "sandboxes", filepath.Base(dir), "*.log*"))
	if err != nil || len(list) == 0 {
		t.Fatal(list, err)
	}
	for _, name := range list {
		if info, err := os.Stat(name); err == nil {
			n += info.Size()
		}
	}
	return n
}
