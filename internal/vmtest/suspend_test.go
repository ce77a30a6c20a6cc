//go:build vm

package vmtest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/sandbox/store"
)

// ticker is what a sandbox does in the background: its working directory and an
// open file are on the share.
const ticker = `mkdir -p deep/er && cd deep/er && (exec 3>>ticks; i=0; while :; do i=$((i+1)); echo $i >&3; sleep 0.1; done) >/dev/null 2>&1 </dev/null & echo $!`

func sandboxDir(name string) string { return filepath.Join(base, "state", "bawn", "sandboxes", name) }

func ticks(t *testing.T, dir string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "deep/er/ticks"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	lines := strings.Fields(string(b))
	if len(lines) == 0 {
		return 0
	}
	for i, l := range lines { // each number once, none lost
		if n, err := strconv.Atoi(l); err != nil || n != i+1 {
			t.Fatalf("line %d of ticks is %q", i+1, l)
		}
	}
	return len(lines)
}

func awaitTicks(t *testing.T, dir string, more int) {
	t.Helper()
	for start, limit := ticks(t, dir), time.Now().Add(2*time.Minute); ticks(t, dir) < start+more; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("it does not tick")
		}
	}
}

// TestSuspend: what runs in a sandbox goes on where it was, with its open files.
func TestSuspend(t *testing.T) {
	dir := project(t, "suspend")
	pid := strings.TrimSpace(must(t, dir, "run", "--", "sh", "-c", ticker))
	awaitTicks(t, dir, 3)
	const name = "suspend"
	for range 3 {
		must(t, dir, "suspend")
		if st := must(t, dir, "ls"); !strings.Contains(st, "suspended") {
			t.Fatalf("ls says %s", st)
		}
		was := ticks(t, dir)
		writeFile(t, filepath.Join(dir, "new"), strconv.Itoa(was))
		time.Sleep(300 * time.Millisecond)
		if now := ticks(t, dir); now != was {
			t.Fatalf("it ticks while suspended: %d, then %d", was, now)
		}
		out := must(t, dir, "run", "--", "sh", "-c", "cat new; echo; date +%s; kill -0 "+pid+" && echo alive")
		f := strings.Fields(out)
		if len(f) != 3 || f[0] != strconv.Itoa(was) || f[2] != "alive" {
			t.Fatalf("after the resume: %q", out)
		}
		if at, err := strconv.ParseInt(f[1], 10, 64); err != nil || time.Since(time.Unix(at, 0)).Abs() > time.Minute {
			t.Errorf("the guest's clock says %s", f[1])
		}
		awaitTicks(t, dir, 3)
	}

	t.Run("attached", func(t *testing.T) {
		c := command(t.Context(), dir, "run", "--", "sh", "-c", "echo here; sleep 1000")
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		if r := bawn(t, dir, "suspend"); r.code != 125 || !strings.Contains(r.err, "--force") {
			t.Errorf("with a command attached: %+v", r)
		}
		awaitTicks(t, dir, 1)
		must(t, dir, "suspend", "--force")
		if err := c.Wait(); err == nil {
			t.Error("the attached command ended well")
		}
	})

	t.Run("damaged", func(t *testing.T) {
		must(t, dir, "run", "--", "sh", "-c", "echo kept | sudo tee /kept")
		must(t, dir, "suspend")
		ram := filepath.Join(sandboxDir(name), "suspended/machine/machine.ram")
		fi, err := os.Stat(ram)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(ram, fi.Size()/2); err != nil {
			t.Fatal(err)
		}
		r := bawn(t, dir, "run", "--", "sh", "-c", "cat /kept; grep -qs [t]icks /proc/"+pid+"/cmdline && echo alive") // the number may be another's, even ours
		if r.code == 0 || r.out != "kept\n" || !strings.Contains(r.err, "damaged") {
			t.Errorf("after damage: %+v", r)
		}
	})
}

// TestFork: a fork goes on where the original is, as somebody else, and a
// snapshot is what was.
func TestFork(t *testing.T) {
	dir := project(t, "fork")
	writeFile(t, filepath.Join(dir, "file"), "one\n")
	must(t, dir, "run", "--allow", "example.test", "--", "sh", "-c", ticker+"; echo before | sudo tee /state")
	awaitTicks(t, dir, 3)
	const name = "fork"
	once := func(name string) []string { // what was allowed once
		list, err := control.NewClient(store.Dir{Path: sandboxDir(name)}.DialControl).AllowedOnce(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
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
	seen := identities{}
	for _, n := range append([]string{name}, forks...) {
		seen.add(t, n, must(t, dir, "exec", n, "--", "sh", "-ec", identity))
		if p := must(t, dir, "policy", "show", "--name", n); !strings.Contains(p, "example.test") {
			t.Errorf("%s: policy %q", n, p)
		}
		if list := once(n); (len(list) == 1) != (n == name) {
			t.Errorf("%s: allowed once: %q", n, list)
		}
	}
	for _, f := range forks { // a copy of the files, at the same place, with what runs there
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
	for _, c := range [][2]string{{"suspend", "suspended"}, {"stop", "stopped"}} { // it is again what it was
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
	if r := bawn(t, dir, "rm", "-f", name); r.code != 0 || !strings.Contains(r.err, "2 snapshots") {
		t.Errorf("rm: %+v", r)
	}
}

// writer keeps a file on the disk and in its memory what the file must be. It writes
// without end until it is asked whether the two agree.
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

// TestSnapshotOfWriter: memory and disk are of one moment, also of a guest that writes
// to its disk all the time.
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

// TestCopiesKilled is attack 20 on snapshots and forks: whatever is killed while
// one is made or gone back to, what is there is whole.
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
