//go:build vm

package vmtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/memory"
	"bawn.dev/bawn/internal/qemu"
)

// templatesEnv is the environment variable that switches templates off.
const templatesEnv = "BAWN_TEMPLATES"

// BenchmarkNewSandbox measures a new sandbox up to its first output, with the project
// mounted: from the warm pool, from a template, and cold. The floor is a copy of the
// template's memory and a start of the same QEMU up to its first message.
func BenchmarkNewSandbox(b *testing.B) {
	dir := benchProject(b, "new")
	i := 0
	made := func() (took time.Duration, kind string, restored bool) {
		name := fmt.Sprintf("new-%d", i)
		i++
		start := time.Now()
		run(b, dir, "run", "--memory", "1G", "--name", name, "--", "echo", "ready")
		took = time.Since(start)
		kind, restored = started(b, name)
		run(b, dir, "rm", "-f", name)
		return took, kind, restored
	}
	var kind string
	waitWithin(b, templateLimit, "a template", func() (restored bool) {
		name := fmt.Sprintf("new-%d", i)
		if _, kind, restored = made(); !restored { // it is made in the background
			waitWithin(b, templateLimit, "the end of the making", func() bool { return makerOf(sandboxDir(name)) == 0 })
		}
		return restored
	})
	ram := filepath.Join(os.Getenv("BAWN_TEST_CACHE"), "bawn", "template", kind, "ready.ram")
	lab := newLab(b, shellFiles(b))
	var template, cold, floor []time.Duration
	for range 10 {
		took, _, restored := made()
		if !restored {
			b.Error("a cold start")
		}
		template = append(template, took)
		floor = append(floor, lab.floor(b, ram))
		b.Setenv(templatesEnv, "off")
		took, _, _ = made()
		cold = append(cold, took)
		b.Setenv(templatesEnv, "")
	}
	pool := measurePool(b, dir, func() time.Duration { took, _, _ := made(); return took })
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(pool), "pool-ms")
	b.ReportMetric(ratio(cold, pool), "cold/pool")
	b.ReportMetric(ratio(pool, floor), "pool/floor")
	b.ReportMetric(median(template), "template-ms")
	b.ReportMetric(median(cold), "cold-ms")
	b.ReportMetric(median(floor), "floor-ms")
	b.ReportMetric(ratio(cold, template), "cold/template")
	b.ReportMetric(ratio(template, floor), "template/floor")
}

// measurePool measures ten starts from the warm pool.
func measurePool(b *testing.B, dir string, start func() time.Duration) (took []time.Duration) {
	b.Helper()
	run(b, dir, "pool", "1")
	b.Cleanup(func() { bawnAt(context.Background(), dir, nil, nil, "pool", "0") })
	start() // after which the first is made ready
	for range 10 {
		waitWithin(b, 5*time.Minute, "a machine to wait", func() bool { return len(readyMembers(b)) > 0 })
		steady(b, "the machine's work", 30, func() float64 { return cpuTime(b, poolProcesses(b)) }) // as when somebody comes later
		took = append(took, start())
	}
	return took
}

// floor measures a copy of packed memory and a start of QEMU.
func (l *lab) floor(b *testing.B, packed string) time.Duration {
	b.Helper()
	start := time.Now()
	from, err := os.Open(packed)
	if err != nil {
		b.Fatal(err)
	}
	defer from.Close()
	ram, err := memory.New(1 << 30)
	if err != nil {
		b.Fatal(err)
	}
	defer ram.Close()
	if err := memory.Unpack(ram, from); err != nil {
		b.Fatal(err)
	}
	m := &qemu.Machine{
		Binary: l.binary, Accel: l.accel, CPUs: 2, Memory: 1 << 30, RAM: ram,
		Kernel: l.kernel, Initrd: l.initrd, Plugs: 1, Balloon: true, Incoming: true,
	}
	p, err := m.Start(b.Context(), os.Getenv("BAWN"), l.spawner)
	if err != nil {
		b.Fatal(err)
	}
	took := time.Since(start)
	p.Kill()
	<-p.Done()
	return took
}

// BenchmarkSuspend measures a sandbox with 500 MB in use: suspending it, resuming it up to
// the first output, making a snapshot of it, and forking from that, one fork and ten at
// once.
func BenchmarkSuspend(b *testing.B) {
	dir := benchProject(b, "state")
	run(b, dir, "run", "--memory", "1G", "--", "sh", "-c", "head -c 500M /dev/urandom > /dev/shm/data; sync")
	times := map[string][]time.Duration{}
	measure := func(what string, args ...string) {
		start := time.Now()
		run(b, dir, args...)
		times[what] = append(times[what], time.Since(start))
	}
	const rounds = 10
	for range rounds {
		measure("suspend", "suspend")
		measure("resume", "run", "--", "echo", "ready")
	}
	for i := range rounds {
		measure("snapshot", "snapshot", "create", "state", fmt.Sprintf("s%d", i))
	}
	var size float64
	for _, f := range []string{"machine.ram", "machine.state", "disk.raw"} {
		size += float64(taken(b, filepath.Join(sandboxDir("state"), "snapshots", "s0", f))) / (1 << 20)
	}
	for i := range rounds - 1 {
		run(b, dir, "snapshot", "rm", "state", fmt.Sprintf("s%d", i+1))
	}
	measureForks(b, dir, measure)
	for what, list := range times {
		b.ReportMetric(median(list), what+"-ms")
	}
	b.ReportMetric(size, "snapshot-MiB")
	b.ReportMetric(0, "ns/op")
}

// measureForks measures forks from the snapshot s0: ten times one, three times ten.
func measureForks(b *testing.B, dir string, measure func(what string, args ...string)) {
	b.Helper()
	var forks []string
	for i := range 10 {
		forks = append(forks, fmt.Sprintf("fork-%d", i))
	}
	remove := func() { bawnAt(context.Background(), dir, nil, nil, append([]string{"rm", "-f"}, forks...)...) }
	b.Cleanup(remove)
	for range 10 {
		measure("fork", "fork", "state", "--from", "s0", forks[0])
		run(b, dir, "rm", "-f", forks[0])
	}
	for range 3 {
		measure("10forks", append([]string{"fork", "state", "--from", "s0"}, forks...)...)
		remove()
	}
}

// BenchmarkIdle measures what one more idle sandbox of 1 GiB takes of the host's memory,
// while four run: the proportional set sizes (PSS) of all its processes, including its
// guest's memory.
func BenchmarkIdle(b *testing.B) {
	dir := benchProject(b, "idle-bench")
	const n = 4
	for i := range n {
		name := fmt.Sprintf("idle-%d", i)
		b.Cleanup(func() { bawnAt(context.Background(), dir, nil, nil, "rm", "-f", name) })
		run(b, dir, "run", "--memory", "1G", "--name", name, "--", "true")
	}
	for i := range n { // what was freed goes back to the host meanwhile
		steady(b, "the memory of an idle sandbox", 1, func() float64 { return totalPSS(b, sandboxDir(fmt.Sprintf("idle-%d", i))) })
	}
	var guest, other []float64
	for i := range n {
		folder := sandboxDir(fmt.Sprintf("idle-%d", i))
		var g, o float64
		for pid := range processes(folder) {
			mine := pss(b, pid)
			o += mine
			g += allPSS(b, pid) - mine
		}
		guest, other = append(guest, g), append(other, o)
	}
	var shared float64 // the share servers serve one directory; they are told apart by nothing
	for pid := range shares(dir) {
		shared += allPSS(b, pid)
	}
	slices.Sort(guest)
	slices.Sort(other)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(guest[n/2], "guest-MiB")
	b.ReportMetric(other[n/2], "processes-MiB")
	b.ReportMetric(shared/n, "share-MiB")
}

// totalPSS is the sum of allPSS over the processes of a sandbox.
func totalPSS(b *testing.B, folder string) (sum float64) {
	b.Helper()
	for pid := range processes(folder) {
		sum += allPSS(b, pid)
	}
	return sum
}

// cpuTime is the processor time that processes have used, in clock ticks; those that have
// ended count for nothing.
func cpuTime(b *testing.B, of map[int]string) (ticks float64) {
	b.Helper()
	for pid := range of {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, rest, _ := strings.Cut(string(stat), ") ") // behind the name (proc_pid_stat(5))
		if f := strings.Fields(rest); len(f) > 12 {
			user, _ := strconv.ParseFloat(f[11], 64)
			system, _ := strconv.ParseFloat(f[12], 64)
			ticks += user + system
		}
	}
	return ticks
}

// allPSS is a process's proportional set size, guest memory included, in MiB.
func allPSS(b *testing.B, pid int) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var kib float64
		if n, _ := fmt.Sscanf(line, "Pss: %f kB", &kib); n == 1 {
			return kib / 1024
		}
	}
	b.Fatal("no Pss")
	return 0
}

// taken is how many bytes a file takes on the host.
func taken(b *testing.B, path string) int64 {
	b.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		b.Fatal(err)
	}
	return st.Blocks * 512 // stat(2)
}
