//go:build vm

package vmtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// soakChannels are the ways on which testdata/soak.py floods the host. Frames of the
// control and mux ports and SSH requests are flooded without a machine, which they end:
// internal/supervisor/agent, TestAFloodOnTheMuxPortEndsIt.
var soakChannels = []string{"dns", "udp", "tcp", "heads", "frames", "share", "console"}

// What a flood may cost each process of the host, beside what it had before.
const (
	soakMemory  = 192 << 10 // KiB
	soakThreads = 64
	soakFiles   = 2500     // the share keeps a file open for each that the guest knows
	soakDisk    = 64 << 20 // bytes of logs
)

// TestSoak: root in the guest floods every channel to the host at once, for ten seconds.
// With BAWN_TEST_SOAK=1 it floods each channel for a minute by itself, too. The memory,
// threads, open files and logs of the supervisor and of the share servers stay within
// their bounds, the sandbox goes on, and its processes come to rest.
func TestSoak(t *testing.T) {
	dir := shared(t)
	where := temp(t)
	pid := inspect(t, dir).State.PID
	before := hostProcesses(t, pid)
	flood := func(seconds int, channels ...string) {
		out := must(t, dir, append([]string{"run", "--user", "root", "--", "python3", "-c", testdata(t, "soak.py"), strconv.Itoa(seconds), where}, channels...)...)
		if !strings.Contains(out, "flooded") {
			t.Errorf("%v: %q", channels, out)
		}
		within(t, strings.Join(channels, " "), before, hostProcesses(t, pid))
	}
	flood(10, soakChannels...)
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
	steady(t, "the processor time of the host's processes", 100, used) // a second of two
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
		files, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		all[pid] = usage{strings.ReplaceAll(string(cmd), "\x00", " "), statusField(text, "RssAnon:"), statusField(text, "Threads:"), len(files)}
	}
	if len(all) < 2 {
		t.Fatalf("the processes of the sandbox: %+v", all)
	}
	return all
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
