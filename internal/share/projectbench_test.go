package share

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

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
			best := map[string]time.Duration{}
			for b.Loop() {
				turn++
				b.Setenv("TURN", strconv.Itoa(turn))
				for name, dir := range mounts {
					if took := benchGit(b, dir, script); best[name] == 0 || took < best[name] {
						best[name] = took
					}
				}
			}
			b.ReportMetric(best["plain"].Seconds()*1e3, "plain-ms")
			b.ReportMetric(best["guarded"].Seconds()*1e3, "guarded-ms")
			b.ReportMetric(best["guarded"].Seconds()/best["plain"].Seconds(), "ratio")
		})
	}
}

// benchGit runs a script in a directory and returns how long it took.
func benchGit(b *testing.B, dir, script string) time.Duration {
	b.Helper()
	c := exec.CommandContext(b.Context(), "/bin/sh", "-ec", `cd "$0"; `+script, dir)
	c.Env = append(gitEnv("/"), "TURN="+os.Getenv("TURN"))
	began := time.Now()
	if out, err := c.CombinedOutput(); err != nil {
		b.Fatalf("%s: %v\n%s", script, err, out)
	}
	return time.Since(began)
}
