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

// BenchmarkIdleWatch measures the processor time that an idle sandbox costs the host while a program
// in it watches 20,000 directories of the project, against the same sandbox without that program.
func BenchmarkIdleWatch(b *testing.B) {
	const groups, each = 200, 100
	dir := benchProject(b, "idlewatch")
	tree := filepath.Join(dir, "tree")
	for g := range groups {
		for d := range each {
			if err := os.MkdirAll(filepath.Join(tree, fmt.Sprint(g), fmt.Sprint(d)), 0o755); err != nil {
				b.Fatal(err)
			}
		}
	}
	run(b, dir, "run", "--memory", "1G", "--", "true")
	measure := func(name string) {
		before := idleTicks(b, dir)
		time.Sleep(idleWatchTime)
		for kind, ticks := range idleTicks(b, dir) {
			// A clock tick is 10 ms (sysconf(3), _SC_CLK_TCK).
			b.ReportMetric(100*(ticks-before[kind])*0.01/idleWatchTime.Seconds(), name+"-"+kind+"-%")
		}
	}
	steadyIdle := func() {
		b.Helper()
		steady(b, "an idle sandbox's processor time", idleSteady, func() float64 { return idleTicks(b, dir)["all"] })
	}
	steadyIdle()
	measure("bare")
	// The program is started as in the scenario suite, and goes on when the command has ended.
	if err := os.WriteFile(filepath.Join(dir, "watcher.sh"), []byte(testdata(b, "days/lib/outside.sh")), 0o644); err != nil {
		b.Fatal(err)
	}
	run(b, dir, "run", "--", "bash", "-euc", `. ./watcher.sh; watcher; tail -f /dev/null | python3 w.py -r tree >seen 2>&1 & until grep -qs watching seen; do sleep 0.1; done`)
	sees := func(name string) {
		b.Helper()
		if err := os.WriteFile(filepath.Join(tree, name), nil, 0o644); err != nil {
			b.Fatal(err)
		}
		wait(b, "the watcher to see "+name, func() bool {
			text, err := os.ReadFile(filepath.Join(dir, "seen"))
			return err == nil && strings.Contains(string(text), "create "+name+"\n")
		})
	}
	sees(fmt.Sprintf("%d/%d/new", groups-1, each-1))
	steadyIdle()
	measure("watched")
	sees("0/0/new")
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
