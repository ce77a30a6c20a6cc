//go:build vm

package vmtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bawn.dev/bawn/internal/cache"
	"bawn.dev/bawn/internal/policy"
)

// started is what a sandbox's supervisor wrote at its last start.
func started(t testing.TB, name string) (kind string, template bool) {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(sandboxDir(name), "supervisor.log"))
	if err != nil {
		t.Fatal(err)
	}
	all := regexp.MustCompile(`msg=running.* kind=(\S+).* template=(\S+)`).FindAllStringSubmatch(string(log), -1)
	if len(all) == 0 {
		t.Fatalf("%s never ran:\n%s", name, log)
	}
	last := all[len(all)-1]
	return last[1], last[2] == "true"
}

// newSandbox makes a sandbox, which goes with the test, and runs a script there.
func newSandbox(t *testing.T, dir, name, script string, flags ...string) (out string, template bool) {
	t.Helper()
	t.Cleanup(func() { bawnAt(context.Background(), dir, nil, nil, "rm", "-f", name) })
	args := slices.Concat([]string{"run", "--name", name}, flags, []string{"--", "sh", "-ec", script})
	r := bawnAt(t.Context(), dir, nil, nil, args...)
	if r.code != 0 {
		t.Fatalf("bawn %q: %d\n%s%s", args, r.code, r.out, r.err)
	}
	_, template = started(t, name)
	return r.out, template
}

// awaitTemplate waits until new sandboxes with these flags start from a template.
func awaitTemplate(t *testing.T, dir string, flags ...string) {
	t.Helper()
	limit := time.Now().Add(10 * time.Minute)
	for i := 0; ; i++ {
		name := fmt.Sprintf("%s-first-%d", filepath.Base(dir), i)
		_, template := newSandbox(t, dir, name, "true", flags...)
		must(t, dir, "rm", "-f", name)
		if template {
			return
		}
		if time.Now().After(limit) {
			t.Fatal("no template is made")
		}
		time.Sleep(2 * time.Second) // it is made in the background
	}
}

// identity prints everything that tells machines apart, one a line.
const identity = `hostname; cat /etc/machine-id /proc/sys/kernel/random/boot_id /sys/class/net/e*/address
ip -o addr show scope global | awk '{print $4}'; ip -o addr show scope link | awk '{print "link", $4}'
head -c 16 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/uuid; python3 -c 'import random, secrets; print(random.random(), secrets.token_hex())'`

// identities collects them and finds what two machines share.
type identities map[string]string

func (seen identities) add(t *testing.T, name, lines string) {
	t.Helper()
	own := map[string]bool{}
	key, err := os.ReadFile(filepath.Join(sandboxDir(name), "host_ed25519"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(lines + strings.ReplaceAll(string(key), "\n", " ") + "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.Contains(line, " 127.") || strings.HasPrefix(line, "127.") || strings.HasPrefix(line, "::1") {
			continue
		}
		if who := seen[line]; who != "" && who != name {
			t.Errorf("%s and %s have both %q", who, name, line)
		}
		own[line] = true
	}
	if len(own) < 9 {
		t.Errorf("%s says only %q", name, lines)
	}
	for line := range own {
		seen[line] = name
	}
}

// TestSiblings is attack 21: two sandboxes from one template, and a fork, share
// nothing that tells machines apart.
func TestSiblings(t *testing.T) {
	dir := project(t, "siblings")
	flags := []string{"--memory", "1G"}
	awaitTemplate(t, dir, flags...)
	seen := identities{}
	for _, name := range []string{"sibling-a", "sibling-b"} {
		out, template := newSandbox(t, dir, name, identity, flags...)
		if !template {
			t.Errorf("%s booted", name)
		}
		seen.add(t, name, out)
		now, err := strconv.ParseFloat(strings.TrimSpace(must(t, dir, "exec", name, "--", "date", "+%s.%N")), 64)
		if off := float64(time.Now().UnixNano())/1e9 - now; err != nil || off < -5 || off > 60 {
			t.Errorf("%s is %v s behind the time", name, off)
		}
	}
	t.Cleanup(func() { bawnAt(context.Background(), dir, nil, nil, "rm", "-f", "sibling-c") })
	must(t, dir, "fork", "sibling-a", "sibling-c")
	seen.add(t, "sibling-c", must(t, dir, "exec", "sibling-c", "--", "sh", "-ec", identity))
	// The original is who it was.
	if out := must(t, dir, "exec", "sibling-a", "--", "hostname"); out != "sibling-a\n" {
		t.Errorf("the original is %q", out)
	}
	// A covered boot ID must not keep sandboxes in the sandbox from having a proc.
	must(t, dir, "exec", "sibling-c", "--", "unshare", "-Urpf", "--mount-proc", "true")
}

// TestRestores: of a hundred restores, two at a time, none is lost, and no two
// are alike.
func TestRestores(t *testing.T) {
	dir := project(t, "restores")
	flags := []string{"--memory", "1G"}
	awaitTemplate(t, dir, flags...)
	const restores, workers = 100, 2
	var mu sync.Mutex
	seen := map[string]int{}
	var wg sync.WaitGroup
	next := make(chan int)
	for range workers {
		wg.Go(func() {
			for i := range next {
				name := fmt.Sprintf("restore-%d", i)
				args := slices.Concat([]string{"run", "--name", name}, flags, []string{"--", "sh", "-c", "cat /proc/sys/kernel/random/uuid; pwd"})
				r := bawnAt(t.Context(), dir, nil, nil, args...)
				id, pwd, _ := strings.Cut(r.out, "\n")
				if r.code != 0 || pwd != dir+"\n" {
					t.Errorf("restore %d: %+v", i, r)
				} else if _, template := started(t, name); !template {
					t.Errorf("restore %d booted instead", i)
				}
				mu.Lock()
				if was, ok := seen[id]; ok {
					t.Errorf("restores %d and %d both made %q", was, i, id)
				}
				seen[id] = i
				mu.Unlock()
				if r := bawnAt(context.Background(), dir, nil, nil, "rm", "-f", name); r.code != 0 {
					t.Errorf("rm %s: %+v", name, r)
				}
			}
		})
	}
	for i := range restores {
		next <- i
	}
	close(next)
	wg.Wait()
}

// TestTemplate: the making of a template is killed, a template is damaged; both
// times the next sandbox boots, and a template is made anew.
func TestTemplate(t *testing.T) {
	dir := project(t, "template")
	flags := []string{"--memory", "1100M", "--cpus", "1"} // a kind that no other test wants
	kind := killMaker(t, dir, flags)
	folder := filepath.Join(os.Getenv("BAWN_TEST_CACHE"), "bawn", "template", kind)
	awaitTemplate(t, dir, flags...)
	if err := flip(filepath.Join(folder, "ready.ram"), 1<<20); err != nil {
		t.Fatal(err)
	}
	if _, template := newSandbox(t, dir, "template-b", "true", flags...); template {
		t.Error("a damaged template was used")
	}
	awaitTemplate(t, dir, flags...)
}

// killMaker kills the process that makes the template of new sandboxes with these
// flags, unless there is one from an earlier run, and returns their kind.
func killMaker(t *testing.T, dir string, flags []string) (kind string) {
	t.Helper()
	for limit := time.Now().Add(10 * time.Minute); time.Now().Before(limit); {
		_, template := newSandbox(t, dir, "template-a", "true", flags...)
		kind, _ = started(t, "template-a")
		if template {
			return kind
		}
		// It does nothing while another is made.
		for soon := time.Now().Add(10 * time.Second); time.Now().Before(soon); time.Sleep(20 * time.Millisecond) {
			maker := makerOf(sandboxDir("template-a"))
			if maker == 0 {
				continue
			}
			machines := children(maker)
			if len(machines) == 0 {
				continue
			}
			kill9(t, maker)
			wait(t, "the end of its machine", func() bool { return !slices.ContainsFunc(machines, lives) })
			if _, err := os.Stat(filepath.Join(os.Getenv("BAWN_TEST_CACHE"), "bawn", "template", kind)); err == nil {
				t.Error("half a template is in place")
			}
			return kind
		}
		must(t, dir, "rm", "-f", "template-a")
	}
	t.Fatal("no template is ever made")
	return ""
}

// lives says whether a process runs and is no zombie.
func lives(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && len(b) > 0
}

// makerOf is the process that makes a template for a sandbox, 0 for none.
func makerOf(sandbox string) int {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, l := range lines {
		b, err := os.ReadFile(l)
		if err == nil && strings.HasSuffix(string(b), "\x00__template\x00"+sandbox+"\x00") {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(l)))
			return pid
		}
	}
	return 0
}

// children are the processes that a process has started.
func children(parent int) (list []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/status")
	for _, f := range files {
		b, _ := os.ReadFile(f)
		if strings.Contains(string(b), fmt.Sprintf("\nPPid:\t%d\n", parent)) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			list = append(list, pid)
		}
	}
	return list
}

// flip changes a byte of a file.
func flip(path string, at int64) error {
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		return err
	}
	b[0] ^= 0x55
	_, err = f.WriteAt(b, at)
	return err
}

// TestSaveKilled is attack 20 for saving and going on: the supervisor is killed at
// random moments of both. The sandbox then goes on or boots, with its disk as it
// was, and nothing is left of the attempt.
func TestSaveKilled(t *testing.T) {
	dir := project(t, "save-killed")
	const name = "save-killed"
	must(t, dir, "run", "--memory", "1G", "--", "true")
	begin := time.Now()
	must(t, dir, "suspend")
	saving := time.Since(begin)
	begin = time.Now()
	must(t, dir, "run", "--", "true")
	going := time.Since(begin)
	resumed, booted := 0, 0
	for i := range 10 {
		must(t, dir, "run", "--", "sh", "-ec", fmt.Sprintf("echo %d > ~/kept; sync", i))
		killDuring(t, dir, name, saving, "suspend")
		if i%2 == 1 {
			killDuring(t, dir, name, going, "run", "--", "true")
		}
		r := bawn(t, dir, "run", "--", "sh", "-c", "cat ~/kept; sudo dmesg | grep -c 'EXT4-fs error'")
		if r.out != fmt.Sprintf("%d\n0\n", i) {
			t.Fatalf("round %d: %+v%s", i, r, logs(dir))
		}
		if strings.Contains(strings.Join(lastStart(t, name), " "), "resumed=true") {
			resumed++
		} else {
			booted++
		}
		left, err := filepath.Glob(filepath.Join(sandboxDir(name), "suspended", "machine*"))
		if err != nil || len(left) > 0 {
			t.Errorf("round %d: a memory is left beside a running machine: %v", i, left)
		}
	}
	t.Logf("went on %d times, booted %d times", resumed, booted)
}

func lastStart(t *testing.T, name string) []string {
	t.Helper()
	var last string
	for line := range strings.Lines(readFile(t, filepath.Join(sandboxDir(name), "supervisor.log"))) {
		if strings.Contains(line, "msg=running") {
			last = line
		}
	}
	return strings.Fields(last)
}

// killDuring runs bawn and kills the sandbox's supervisor, or its QEMU, or bawn
// itself, meanwhile.
func killDuring(t *testing.T, dir, name string, takes time.Duration, args ...string) {
	t.Helper()
	c := command(t.Context(), dir, args...)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(rand.N(takes))
	what := []string{"__supervise", "qemu-system", "bawn"}[rand.N(3)]
	if what == "bawn" {
		_ = c.Process.Kill()
	}
	for pid, line := range processes(sandboxDir(name)) {
		if strings.Contains(line, what) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	_ = c.Wait() // it may have been too late
	wait(t, "the end of what was killed", func() bool {
		s := inspect(t, dir).State.Phase
		return s != "stopping" && s != "starting"
	})
}

// TestSaveDiskFull: where there is no room for a memory, suspending fails in words
// and the sandbox goes on; with room it works.
func TestSaveDiskFull(t *testing.T) {
	dir := project(t, "disk-full")
	state := filepath.Join(base, "small-state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	unshare := []string{"--mount"}
	if os.Getuid() != 0 {
		unshare = []string{"--mount", "--user", "--map-current-user", "--keep-caps"}
	}
	script := `
mount -t tmpfs -o size=16M,mode=700 tmpfs "$XDG_STATE_HOME"
trap '"$BAWN" rm -f disk-full' EXIT
"$BAWN" run --memory 1G -- sh -c 'sleep 10000 >/dev/null 2>&1 </dev/null & echo kept > ~/kept'
if "$BAWN" suspend; then echo "suspended without room"; exit 1; fi
"$BAWN" run -- sh -ec 'pgrep -x sleep; cat ~/kept; echo more > ~/more'
if "$BAWN" snapshot create disk-full; then echo "kept without room"; exit 1; fi
"$BAWN" run -- pgrep -x sleep
mount -o remount,size=1G "$XDG_STATE_HOME"
"$BAWN" suspend
"$BAWN" run -- sh -ec 'pgrep -x sleep; cat ~/kept ~/more'
ls -A "$XDG_STATE_HOME"/bawn/sandboxes/disk-full/suspended
`
	c := exec.CommandContext(t.Context(), "unshare", append(unshare, "sh", "-euc", script)...)
	c.Dir = dir
	c.Env = append(environment(), "XDG_STATE_HOME="+state, "BAWN="+os.Getenv("BAWN"))
	out, err := c.CombinedOutput()
	if err != nil || strings.Count(string(out), "no space left") < 2 || !strings.HasSuffix(string(out), "kept\nmore\n"+"disk-full\n") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestSuspendedChanges: what is suspended goes on once for all who want it, is not
// taken into another machine, and sees the time of day whatever its clock said.
func TestSuspendedChanges(t *testing.T) {
	dir := project(t, "suspended")
	uptime := func() float64 {
		up, err := strconv.ParseFloat(strings.Fields(must(t, dir, "run", "--", "cat", "/proc/uptime"))[0], 64)
		if err != nil {
			t.Fatal(err)
		}
		return up
	}
	must(t, dir, "run", "--memory", "1G", "--", "sh", "-c", "echo $$ > /tmp/pid; sleep 10000 >/dev/null 2>&1 </dev/null &")
	t.Run("clock", func(t *testing.T) {
		for _, date := range []string{"2001-02-03", "2099-02-03"} { // the host's clock jumped, to the guest
			must(t, dir, "run", "--user", "root", "--", "date", "-s", date)
			was := uptime()
			must(t, dir, "suspend")
			at, err := strconv.ParseInt(strings.TrimSpace(must(t, dir, "run", "--", "date", "+%s")), 10, 64)
			if off := time.Since(time.Unix(at, 0)).Abs(); err != nil || off > time.Minute {
				t.Errorf("after %s the clock is off by %s", date, off)
			}
			if now := uptime(); now < was {
				t.Errorf("the monotonic clock went back from %v to %v", was, now)
			}
		}
	})
	t.Run("connection", func(t *testing.T) { // both ends see at once that it is cut
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
		must(t, dir, "policy", "allow", "host:"+port)
		must(t, dir, "run", "--", "sh", "-c", `python3 -c '
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
s.sendall(b"x")
try: end = repr(s.recv(1))
except OSError as e: end = type(e).__name__
open("end", "w").write(end + "\n")' `+policy.HostName+" "+port+` >/dev/null 2>&1 </dev/null &`)
		if err := l.(*net.TCPListener).SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
			t.Fatal(err)
		}
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil { // else the guest may still be connecting, and goes on with that
			t.Fatal(err)
		}
		must(t, dir, "suspend")
		if _, err := c.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
			t.Errorf("the server has %v", err)
		}
		must(t, dir, "resume")
		wait(t, "the client to see it", func() bool { fi, err := os.Stat(filepath.Join(dir, "end")); return err == nil && fi.Size() > 0 })
		if end := readFile(t, filepath.Join(dir, "end")); end != "ConnectionResetError\n" {
			t.Errorf("the client saw %q", end)
		}
	})
	t.Run("three at once", func(t *testing.T) {
		must(t, dir, "suspend")
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				if r := bawnAt(t.Context(), dir, nil, nil, "run", "--", "sh", "-c", "pgrep -x sleep >/dev/null && echo here"); r.out != "here\n" {
					t.Errorf("run %d: %+v", i, r)
				}
			})
		}
		wg.Wait()
	})
	t.Run("another machine", func(t *testing.T) {
		must(t, dir, "run", "--", "sh", "-c", "echo kept > ~/kept")
		must(t, dir, "suspend")
		r := bawn(t, dir, "run", "--memory", "1100M", "--cpus", "1", "--", "sh", "-c", "cat ~/kept; pgrep -x sleep")
		if r.out != "kept\n" || !strings.Contains(r.err, "have changed") || !strings.Contains(r.err, "boots from its disk") {
			t.Errorf("with another machine: %+v", r)
		}
	})
}

// TestNewerKernel: when a newer kernel has come, what is suspended goes on with its
// own, and what is stopped starts with the new one.
func TestNewerKernel(t *testing.T) {
	own := t.TempDir()
	if out, err := exec.Command("sh", "-euc", `
mkdir "$2/bawn"
for kind in "$1"/*; do
	case $kind in
	*/kernel | */current) cp -a "$kind" "$2/bawn";;
	*) ln -s "$kind" "$2/bawn";;
	esac
done`, "sh", filepath.Join(os.Getenv("BAWN_TEST_CACHE"), "bawn"), own).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	dir := project(t, "newer-kernel")
	run := func(args ...string) result {
		t.Helper()
		r := bawnAt(t.Context(), dir, nil, []string{"XDG_CACHE_HOME=" + own, "BAWN_TEMPLATES=off"}, args...)
		if r.code != 0 {
			t.Fatalf("bawn %q: %+v", args, r)
		}
		return r
	}
	run("run", "--memory", "1G", "--", "sh", "-c", "sleep 10000 >/dev/null 2>&1 </dev/null &")
	run("suspend")

	kernels := cache.Open(filepath.Join(own, "bawn"))
	pointer, in := map[string]string{}, "kernel-"+runtime.GOARCH
	if err := kernels.Pointer("kernel", in, &pointer); err != nil {
		t.Fatal(err)
	}
	older, err := kernels.Lookup("kernel", pointer["key"])
	if err != nil {
		t.Fatal(err)
	}
	made := t.TempDir()
	for name := range older.Files {
		if out, err := exec.Command("install", "-D", older.File(name), filepath.Join(made, name)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	newer, err := kernels.Commit("kernel", pointer["key"]+"-newer", made, older.Meta)
	if err != nil {
		t.Fatal(err)
	}
	pointer["key"] = newer.Key
	if err := kernels.Point("kernel", in, pointer); err != nil {
		t.Fatal(err)
	}

	run("run", "--", "pgrep", "-x", "sleep")
	if r := run("inspect"); strings.Contains(r.out, newer.Key+"/") {
		t.Errorf("it went on with %s", r.out)
	}
	run("stop")
	run("run", "--", "true")
	if r := run("inspect"); !strings.Contains(r.out, newer.Key+"/") {
		t.Errorf("the stopped one started with %s", r.out)
	}
}

// TestWhenIdle: a sandbox in which nothing happens is suspended, one that works is
// not.
func TestWhenIdle(t *testing.T) {
	dir := project(t, "idle")
	fails(t, dir, 125, "--idle", "run", "--idle", "1s", "--", "true")
	must(t, dir, "run", "--memory", "1G", "--idle", "10s", "--", "sh", "-c",
		`touch busy; (while [ -e "$PWD/busy" ]; do :; done; exec sleep 4321) >/dev/null 2>&1 </dev/null &`)
	time.Sleep(15 * time.Second)
	if s := must(t, dir, "ls"); !strings.Contains(s, "running") {
		t.Fatalf("a sandbox that works is\n%s", s)
	}
	if err := os.Remove(filepath.Join(dir, "busy")); err != nil {
		t.Fatal(err)
	}
	wait(t, "the sandbox to be suspended", func() bool { return strings.Contains(must(t, dir, "ls"), "suspended") })
	must(t, dir, "run", "--idle", "0", "--", "pgrep", "-f", "sleep 4321")
	time.Sleep(12 * time.Second)
	if s := must(t, dir, "ls"); !strings.Contains(s, "running") {
		t.Errorf("with --idle 0 it is\n%s", s)
	}
}

// TestLimits: how many sandboxes run, and how much memory they have, is bounded.
func TestLimits(t *testing.T) {
	shared(t)
	dir := project(t, "limited")
	for _, c := range []struct{ env, say string }{
		{"BAWN_MAX_SANDBOXES=1", "1 may at the same time"},
		{"BAWN_MAX_MEMORY=2500M", "all together may have 2.4 GiB"},
		{"BAWN_MAX_MEMORY=lots", "BAWN_MAX_MEMORY"},
		{"BAWN_MAX_SANDBOXES=0", "BAWN_MAX_SANDBOXES"},
	} {
		r := bawnAt(t.Context(), dir, nil, []string{c.env}, "run", "--memory", "1G", "--", "true")
		if r.code != 125 || !strings.Contains(r.err, c.say) {
			t.Errorf("%s: %+v", c.env, r)
		}
	}
	if r := bawn(t, dir, "inspect"); !strings.Contains(r.err, "no such sandbox") {
		t.Errorf("a sandbox that was refused is there: %+v", r)
	}
}

// TestMemoryComesBack: what the guest frees, the host has again.
func TestMemoryComesBack(t *testing.T) {
	dir := shared(t)
	was := guestMemory(t, dir)
	sh(t, dir, "head -c 400M /dev/urandom > /dev/shm/fill")
	full := guestMemory(t, dir)
	if full < was+350<<20 {
		t.Fatalf("400 MB took the host from %d to %d MiB", was>>20, full>>20)
	}
	sh(t, dir, "rm /dev/shm/fill")
	wait(t, "the memory to come back", func() bool { return guestMemory(t, dir) < full-300<<20 })
}

// guestMemory is how much memory of the host the guest of a project has, in bytes.
func guestMemory(t testing.TB, dir string) (n int64) {
	t.Helper()
	r := bawnAt(t.Context(), dir, nil, nil, "inspect")
	pid := regexp.MustCompile(`"machinePid": (\d+)`).FindStringSubmatch(r.out)
	if pid == nil {
		t.Fatalf("inspect: %+v", r)
	}
	smaps := readSmaps(t, pid[1])
	for _, m := range smaps {
		if strings.Contains(m.name, "bawn-ram") {
			n += m.rss
		}
	}
	return n
}

type mapping struct {
	name string
	rss  int64
}

func readSmaps(t testing.TB, pid string) (list []mapping) {
	t.Helper()
	b, err := os.ReadFile("/proc/" + pid + "/smaps")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		switch {
		case strings.Contains(f[0], "-"):
			list = append(list, mapping{name: line})
		case f[0] == "Rss:":
			n, _ := strconv.ParseInt(f[1], 10, 64)
			list[len(list)-1].rss = n << 10
		}
	}
	return list
}
