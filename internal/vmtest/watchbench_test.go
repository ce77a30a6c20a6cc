//go:build vm

package vmtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// idleWatchTime is how long BenchmarkIdleWatch measures. The guest looks for watches less often the
// longer a look takes (package watch of the guest).
const idleWatchTime = time.Minute

// idleSteady is what a sandbox that has come to rest uses in steadyFor at most, in clock ticks: a
// twentieth of a processor, as an idle guest takes some under emulation.
const idleSteady = 10

// idleWatcher watches the directories that it reads from its standard input, by inotify(7), and prints
// the path of each file that is made there.
const idleWatcher = `import ctypes, os, struct, sys
libc = ctypes.CDLL(None)
fd = libc.inotify_init1(0)
dirs = {}
for line in sys.stdin:
    dirs[libc.inotify_add_watch(fd, line.strip().encode(), 0x100)] = line.strip()
print("watching", len(dirs), flush=True)
while True:
    b = os.read(fd, 65536)
    while b:
        wd, mask, _, n = struct.unpack("iIII", b[:16])
        print("create", dirs[wd] + "/" + b[16:16 + n].rstrip(b"\0").decode(), flush=True)
        b = b[16 + n:]
`

// BenchmarkIdleWatch measures the processor time that an idle sandbox costs the host while a program
// in it watches 20,000 directories of the project, against the same sandbox without that program.
func BenchmarkIdleWatch(b *testing.B) {
	const groups, each = 200, 100
	dir := benchProject(b, "idlewatch")
	var dirs []string // below the project
	for i := range groups * each {
		at := fmt.Sprintf("tree/%d/%d", i/each, i%each)
		if err := os.MkdirAll(filepath.Join(dir, at), 0o755); err != nil {
			b.Fatal(err)
		}
		dirs = append(dirs, at)
	}
	run(b, dir, "run", "--memory", "1G", "--", "true")
	measure := func(name string, during time.Duration) (all float64) {
		before := idleTicks(b, dir)
		time.Sleep(during)
		for kind, ticks := range idleTicks(b, dir) {
			// A clock tick is 10 ms (sysconf(3), _SC_CLK_TCK).
			part := 100 * (ticks - before[kind]) * 0.01 / during.Seconds()
			b.ReportMetric(part, name+"-"+kind+"-%")
			if kind == "all" {
				all = part
			}
		}
		return all
	}
	steadyIdle := func() {
		b.Helper()
		steady(b, "an idle sandbox's processor time", idleSteady, func() float64 { return idleTicks(b, dir)["all"] })
	}
	steadyIdle()
	bare := measure("bare", idleWatchTime/2)
	for name, text := range map[string]string{"watch.py": idleWatcher, "dirs": strings.Join(dirs, "\n") + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	run(b, dir, "run", "--", "sh", "-euc", `nohup python3 watch.py <dirs >seen 2>&1 & until grep -qs watching seen; do sleep 0.1; done`)
	sees := func(name string) {
		b.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			b.Fatal(err)
		}
		wait(b, "the watcher to see "+name, func() bool {
			text, err := os.ReadFile(filepath.Join(dir, "seen"))
			return err == nil && strings.Contains(string(text), "create "+name+"\n")
		})
	}
	sees(dirs[len(dirs)-1] + "/new")
	steadyIdle()
	b.ReportMetric(measure("watched", idleWatchTime)-bare, "added-%")
	sees(dirs[0] + "/new")
	b.ReportMetric(0, "ns/op")
}

// idleTicks is the processor time of a sandbox's processes by kind, in clock ticks.
func idleTicks(b *testing.B, dir string) map[string]float64 {
	b.Helper()
	sum := map[string]float64{}
	all := processes(sandboxDir(filepath.Base(dir)))
	for pid, line := range shares(dir) {
		all[pid] = line
	}
	for pid, line := range all {
		ticks := cpuTime(b, map[int]string{pid: line})
		sum[kind(line)] += ticks
		sum["all"] += ticks
	}
	return sum
}
