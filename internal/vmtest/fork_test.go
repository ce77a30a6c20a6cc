//go:build vm

package vmtest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/sandbox/store"
)

// TestFork: a fork goes on where the original is, with an identity of its own, and a
// snapshot restores what was.
func TestFork(t *testing.T) {
	const name = "fork"
	dir := project(t, name)
	writeFile(t, filepath.Join(dir, "file"), "one\n")
	must(t, dir, "run", "--allow", "example.test", "--", "sh", "-c", ticker+"; echo before | sudo tee /state")
	awaitTicks(t, dir, 3)
	w := watchInside(t, dir, filepath.Join(dir, "watched"), "run")
	if err := control.NewClient(store.Dir{Path: sandboxDir(name)}.DialControl).AllowOnce(t.Context(), "once.test"); err != nil {
		t.Fatal(err)
	}
	must(t, dir, "snapshot", "create", name, "first")
	must(t, dir, "exec", name, "--", "sh", "-c", "echo after | sudo tee /state")
	awaitTicks(t, dir, 3) // the original goes on

	forks := []string{name + "-a", name + "-b"}
	must(t, dir, append([]string{"fork", name, "--copy-project"}, forks...)...)
	t.Cleanup(func() {
		for _, f := range forks {
			bawnAt(context.Background(), dir, nil, nil, "rm", "-f", f)
			os.RemoveAll(dir + "-" + f)
		}
	})
	awaitTicks(t, dir, 3)
	forksAreOthers(t, dir, name, forks)
	forksHaveCopies(t, dir, forks)
	w.sees(t, "after-the-fork")
	for _, f := range forks {
		w.in(dir+"-"+f).sees(t, "in-the-fork")
	}
	restoreSnapshot(t, dir, name)
	w.sees(t, "after-the-restore")
	snapshotsKeepThePhase(t, dir, name)
	if r := bawn(t, dir, "rm", "-f", name); r.code != 0 || !strings.Contains(r.err, "2 snapshots") {
		t.Errorf("rm: %+v", r)
	}
}

// allowedOnce is the list of what was allowed once in a sandbox.
func allowedOnce(t *testing.T, name string) []string {
	t.Helper()
	list, err := control.NewClient(store.Dir{Path: sandboxDir(name)}.DialControl).AllowedOnce(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// forksAreOthers wants no two machines with the same identity. Forks have the original's
// rules, but not what was allowed once.
func forksAreOthers(t *testing.T, dir, name string, forks []string) {
	seen := identities{}
	for _, n := range append([]string{name}, forks...) {
		seen.add(t, n, must(t, dir, "exec", n, "--", "sh", "-ec", identity))
		if p := must(t, dir, "policy", "show", "--name", n); !strings.Contains(p, "example.test") {
			t.Errorf("%s: policy %q", n, p)
		}
		if list := allowedOnce(t, n); (len(list) == 1) != (n == name) {
			t.Errorf("%s: allowed once: %q", n, list)
		}
	}
}

// forksHaveCopies wants each fork to work on a copy of the project, at the same path in the
// guest.
func forksHaveCopies(t *testing.T, dir string, forks []string) {
	for _, f := range forks {
		own := dir + "-" + f
		size := func() int64 { // the copy was made a moment later than the memory: numbers come twice
			fi, err := os.Stat(filepath.Join(own, "deep/er/ticks"))
			if err != nil {
				t.Fatal(err)
			}
			return fi.Size()
		}
		was := size()
		wait(t, "the fork's own ticks", func() bool { return size() > was })
		if out := must(t, dir, "exec", f, "--", "sh", "-c", "cd "+dir+" && cat file /state && echo "+f+" > file"); out != "one\nafter\n" {
			t.Errorf("%s has %q", f, out)
		}
		if b, err := os.ReadFile(filepath.Join(own, "file")); err != nil || string(b) != f+"\n" {
			t.Errorf("%s: %q, %v", own, b, err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(b) != "one\n" {
		t.Errorf("the original has %q, %v", b, err)
	}
}

// restoreSnapshot goes back to the snapshot first, which must be whole, and only if the
// running sandbox may be lost.
func restoreSnapshot(t *testing.T, dir, name string) {
	if r := bawn(t, dir, "snapshot", "restore", name, "first"); r.code != 125 || !strings.Contains(r.err, "lost") {
		t.Errorf("restore of a running sandbox: %+v", r)
	}
	disk := filepath.Join(sandboxDir(name), "snapshots/first/disk.raw")
	if err := flip(disk, 1100); err != nil { // in the file system's superblock
		t.Fatal(err)
	}
	if r := bawn(t, dir, "snapshot", "restore", "--force", name, "first"); r.code != 125 || !strings.Contains(r.err, "damaged") {
		t.Errorf("restore of a damaged disk: %+v", r)
	}
	awaitTicks(t, dir, 3) // it was not ended
	if err := flip(disk, 1100); err != nil {
		t.Fatal(err)
	}
	must(t, dir, "snapshot", "restore", "--force", name, "first")
	if out := must(t, dir, "exec", name, "--", "cat", "/state"); out != "before\n" {
		t.Errorf("after the restore: %q", out)
	}
	if out := must(t, dir, "snapshot", "ls", name); !strings.Contains(out, "first") {
		t.Errorf("snapshots: %s", out)
	}
	must(t, dir, "snapshot", "rm", name, "first")
}

// snapshotsKeepThePhase: a sandbox that is suspended or stopped is that also after a
// snapshot.
func snapshotsKeepThePhase(t *testing.T, dir, name string) {
	for _, c := range [][2]string{{"suspend", "suspended"}, {"stop", "stopped"}} {
		verb, phase := c[0], c[1]
		must(t, dir, verb, name)
		must(t, dir, "snapshot", "create", name, verb)
		if s := inspect(t, dir); s.State.Phase != phase || s.SnapshotsUsed == 0 {
			t.Errorf("after a snapshot of what was %s: %+v", phase, s)
		}
		if verb == "suspend" {
			must(t, dir, "resume", name)
			if out := must(t, dir, "exec", name, "--", "cat", "/state"); out != "before\n" {
				t.Errorf("what was suspended has %q", out)
			}
		}
	}
}

// writer changes a file on the disk without end, and keeps in memory what the file must be.
// At SIGUSR1 it reports whether the two agree.
const writer = `
import os, random, signal, subprocess
n, size = 16384, 4096
f = os.open(os.path.expanduser("~/blocks"), os.O_RDWR | os.O_CREAT)
version = [0] * n
def block(i): return (b"%08d %08d " % (i, version[i])).ljust(size, b"x")
def write(i): os.pwrite(f, block(i), i * size)
for i in range(n): write(i)
os.fsync(f)
asked = []
signal.signal(signal.SIGUSR1, lambda *_: asked.append(1))
open("/tmp/writer", "w").write(str(os.getpid()))
while not asked:
    for _ in range(200):
        i = random.randrange(n)
        version[i] += 1
        write(i)
    os.fsync(f)
subprocess.run(["sudo", "sh", "-c", "sync; echo 3 > /proc/sys/vm/drop_caches"], check=True)
wrong = sum(os.pread(f, size, i * size) != block(i) for i in range(n))
with open("/tmp/verdict.new", "w") as v: v.write("%d wrong after %d writes\n" % (wrong, sum(version)))
os.rename("/tmp/verdict.new", "/tmp/verdict")
`

// TestSnapshotOfWriter: memory and disk of a snapshot are of the same moment, also if the
// guest writes to its disk all the time.
func TestSnapshotOfWriter(t *testing.T) {
	dir := project(t, "writer")
	writeFile(t, filepath.Join(dir, "writer.py"), writer)
	must(t, dir, "run", "--memory", "1G", "--", "sh", "-c", "python3 writer.py >/dev/null 2>&1 </dev/null &")
	const name, fork = "writer", "writer-fork"
	t.Cleanup(func() { bawnAt(context.Background(), dir, nil, nil, "rm", "-f", fork) })
	must(t, dir, "exec", name, "--", "sh", "-c", "until test -s /tmp/writer; do sleep 0.1; done")
	must(t, dir, "fork", name, fork)
	for _, n := range []string{fork, name} {
		got := must(t, dir, "exec", n, "--", "sh", "-ec", "kill -USR1 $(cat /tmp/writer); until test -e /tmp/verdict; do sleep 0.1; done; cat /tmp/verdict")
		if t.Logf("%s: %s", n, got); !strings.HasPrefix(got, "0 wrong after ") {
			t.Errorf("%s: %s", n, got)
		}
	}
}

// TestCopiesKilled is attack 20 on snapshots and forks: a process is killed while one is
// made or restored. What is there afterwards is complete.
func TestCopiesKilled(t *testing.T) {
	dir := project(t, "copies")
	const name, fork = "copies", "copies-fork"
	t.Cleanup(func() { bawnAt(context.Background(), dir, nil, nil, "rm", "-f", fork) })
	set := func(value string) { must(t, dir, "run", "--", "sh", "-ec", "echo "+value+" > ~/value; sync") }
	get := func(of string) string {
		return strings.TrimSpace(must(t, dir, "exec", of, "--", "sh", "-c", "cat ~/value; sudo dmesg | grep 'EXT4-fs error' || true"))
	}
	must(t, dir, "run", "--memory", "1G", "--", "true")
	set("first")
	begin := time.Now()
	must(t, dir, "snapshot", "create", name, "first")
	takes := time.Since(begin)
	whole := map[string]int{}
	for i := range 3 {
		value, snap := fmt.Sprintf("value%d", i), fmt.Sprintf("snap%d", i)
		set(value)
		killDuring(t, dir, name, takes, "snapshot", "create", name, snap)
		if got := get(name); got != value {
			t.Fatalf("after the creation of %s: %q", snap, got)
		}
		var rows []struct{ Name, Error string }
		if err := json.Unmarshal([]byte(must(t, dir, "snapshot", "ls", "--json", name)), &rows); err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			if r.Error != "" {
				t.Errorf("snapshot %s: %s", r.Name, r.Error)
			}
			if r.Name == snap {
				whole["snapshots"]++
				must(t, dir, "snapshot", "restore", "--force", name, snap)
				if got := get(name); got != value {
					t.Errorf("%s has %q", snap, got)
				}
			}
		}
		set("later")
		killDuring(t, dir, name, 2*takes, "snapshot", "restore", "--force", name, "first")
		switch got := get(name); got {
		case "first":
			whole["restores"]++
		case "later":
		default:
			t.Fatalf("after a restore: %q", got)
		}
		set(value)
		killDuring(t, dir, name, 3*takes, "fork", name, fork)
		if strings.Contains(must(t, dir, "ls"), fork) {
			whole["forks"]++
		} else {
			must(t, dir, "fork", name, fork)
		}
		if got := get(fork); got != value {
			t.Fatalf("the fork has %q", got)
		}
		must(t, dir, "rm", "-f", fork)
	}
	must(t, dir, "snapshot", "ls", name)
	if left, _ := filepath.Glob(filepath.Join(base, "state", "bawn", "sandboxes", name, "*", "fork.*")); len(left) > 0 {
		t.Errorf("killed forks left %v", left)
	}
	t.Logf("of 3 each that were killed, these were made all the same: %v", whole)
}
