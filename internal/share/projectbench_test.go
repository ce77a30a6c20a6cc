package share

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/share/guard"
)

// BenchmarkProject compares programs in a share with guards and undo with the same in one without, on
// a tree of 20,000 files, through the kernel's FUSE client. The two take turns, and the shortest time of
// each counts: other load of the machine only adds to it. Nothing is changed twice in the same place, so
// that undo records each change.
func BenchmarkProject(b *testing.B) {
	if _, err := exec.LookPath("git"); err != nil {
		b.Skip("no git")
	}
	source := b.TempDir()
	for i := range 20_000 {
		dir := filepath.Join(source, fmt.Sprintf("d%d/e%d", i%20, i%400))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%d.js", i)), []byte("x\n"), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	benchGit(b, source, `git init -q . && git add -A && git commit -qm one`)
	mounts := map[string]string{}
	for _, name := range []string{"plain", "guarded"} {
		o := Options{Root: filepath.Join(b.TempDir(), "copy")}
		if out, err := exec.CommandContext(b.Context(), "cp", "-a", source, o.Root).CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		if name == "guarded" {
			o.Guard, o.Private, o.Undo = &guard.Options{}, filepath.Join(b.TempDir(), "private"), b.TempDir()
		}
		mounts[name], _ = mountTest(b, o)
		benchGit(b, mounts[name], `git status --short`) // its index has the new inodes now
	}
	for _, bench := range [][2]string{
		{"git-status", `git status --short`},
		{"git-commit", `echo x >>d1/e1/f$((1 + 400 * $1)).js; git commit -qam x`},
		{"create-1000", `cp -r d1 new$1`},
		{"walk", `find . -path ./.git -prune -o -type f -size +1k -print`},
		{"read", `find d? -type f -exec cat {} + | cksum`},
		{"write-64MiB", `dd if=/dev/zero of=big$1 bs=1M count=64 status=none`},
	} {
		turn, script := 0, `set -- $((TURN)); `+bench[1]
		b.Run(bench[0], func(b *testing.B) {
			best, least := map[string]time.Duration{}, map[string]time.Duration{}
			for b.Loop() {
				turn++
				b.Setenv("TURN", strconv.Itoa(turn))
				for name, dir := range mounts {
					took, cpu := benchGit(b, dir, script)
					if best[name] == 0 || took < best[name] {
						best[name] = took
					}
					if least[name] == 0 || cpu < least[name] {
						least[name] = cpu
					}
				}
			}
			b.ReportMetric(best["plain"].Seconds()*1e3, "plain-ms")
			b.ReportMetric(best["guarded"].Seconds()*1e3, "guarded-ms")
			b.ReportMetric(best["guarded"].Seconds()/best["plain"].Seconds(), "ratio")
			b.ReportMetric(least["plain"].Seconds()*1e3, "plain-cpu-ms")
			b.ReportMetric(least["guarded"].Seconds()*1e3, "guarded-cpu-ms")
			b.ReportMetric(least["guarded"].Seconds()/least["plain"].Seconds(), "cpu-ratio")
		})
	}
}

// benchGit runs a script in a directory and returns how long it took, and the processor time of its programs and of the
// server.
func benchGit(b *testing.B, dir, script string) (took, cpu time.Duration) {
	b.Helper()
	c := exec.CommandContext(b.Context(), "/bin/sh", "-ec", `cd "$0"; `+script, dir)
	c.Env = append(gitEnv("/"), "TURN="+os.Getenv("TURN"))
	began, used := time.Now(), processorTime(b)
	if out, err := c.CombinedOutput(); err != nil {
		b.Fatalf("%s: %v\n%s", script, err, out)
	}
	return time.Since(began), processorTime(b) - used
}

// processorTime is that of this process and of its children that have ended.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var sum int64
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err != nil {
			b.Fatal(err)
		}
		sum += u.Utime.Nano() + u.Stime.Nano()
	}
	return time.Duration(sum)
}
