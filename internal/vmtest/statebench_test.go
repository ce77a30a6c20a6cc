//go:build vm

package vmtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// templatesEnv is the supervisor's switch.
const templatesEnv = "BRIG_TEMPLATES"

// BenchmarkNewSandbox is a new sandbox to its first output, with the project
// mounted: from a template, against a cold boot.
func BenchmarkNewSandbox(b *testing.B) {
	dir := benchProject(b, "new")
	i := 0
	made := func() (took time.Duration, restored bool) {
		name := fmt.Sprintf("new-%d", i)
		i++
		start := time.Now()
		run(b, dir, "run", "--memory", "1G", "--name", name, "--", "echo", "ready")
		took = time.Since(start)
		log, err := os.ReadFile(filepath.Join(sandboxDir(name), "supervisor.log"))
		if err != nil {
			b.Fatal(err)
		}
		run(b, dir, "rm", "-f", name)
		return took, strings.Contains(string(log), "template=true")
	}
	for limit := time.Now().Add(10 * time.Minute); ; time.Sleep(5 * time.Second) { // made in the background
		if _, restored := made(); restored {
			break
		}
		if time.Now().After(limit) {
			b.Fatal("no template is made")
		}
	}
	compare(b, 10, func() time.Duration {
		took, restored := made()
		if !restored {
			b.Error("a cold start")
		}
		return took
	}, func() time.Duration {
		b.Setenv(templatesEnv, "off")
		defer b.Setenv(templatesEnv, "")
		took, _ := made()
		return took
	})
}

// BenchmarkSuspend is a sandbox with 500 MB in use: writing it to disk, going on
// to the first output, keeping it as a snapshot, and forking from that. Ten forks
// are made one after the other.
func BenchmarkSuspend(b *testing.B) {
	dir := benchProject(b, "state")
	run(b, dir, "run", "--memory", "1G", "--", "sh", "-c", "head -c 500M /dev/urandom > /dev/shm/data")
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
		if i > 0 {
			run(b, dir, "snapshot", "rm", "state", fmt.Sprintf("s%d", i))
		}
	}
	forks := []string{"fork", "state", "--from", "s0"}
	for i := range rounds {
		forks = append(forks, fmt.Sprintf("fork-%d", i))
	}
	b.Cleanup(func() { brigAt(context.Background(), dir, nil, nil, append([]string{"rm", "-f"}, forks[4:]...)...) })
	for i := range 3 {
		measure("fork", "fork", "state", "--from", "s0", fmt.Sprintf("one-%d", i))
		run(b, dir, "rm", "-f", fmt.Sprintf("one-%d", i))
	}
	measure("10forks", forks...)
	for what, list := range times {
		b.ReportMetric(median(list), what+"-ms")
	}
	b.ReportMetric(0, "ns/op")
}
