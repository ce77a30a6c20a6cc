package share

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/share/guard"
)

// traced is set in the process whose system calls TestSystemCalls lists.
const traced = "BAWN_TEST_TRACED"

// mark makes a system call that shows in the list where a request begins.
func mark(name string) { _ = unix.Faccessat(unix.AT_FDCWD, "/mark/"+name, 0, 0) }

// tracedRequests makes one request of each kind, in a share with guards and undo or one without.
func tracedRequests(t *testing.T, kept bool) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	o := Options{Root: t.TempDir()}
	prefix := "plain "
	if kept {
		o.Guard, o.Private, o.Undo = &guard.Options{}, filepath.Join(t.TempDir(), "private"), t.TempDir()
		prefix = "kept "
	}
	f := newTest(t, o)
	dir := uint64(rootID)
	for _, name := range []string{"src", "packages", "app"} {
		var out fuse.EntryOut
		if st := f.Mkdir(nil, &fuse.MkdirIn{InHeader: header(dir), Mode: 0o755}, name, &out); st != fuse.OK {
			t.Fatal(st)
		}
		dir = out.NodeId
	}
	host := filepath.Join(o.Root, "src/packages/app")
	if err := os.WriteFile(filepath.Join(host, "old.js"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	h := header(dir)
	var made fuse.CreateOut
	var found fuse.EntryOut
	var open fuse.OpenOut
	data := [][]byte{[]byte("x")}
	list := fuse.NewDirEntryList(make([]byte, 4096), 0)
	for _, step := range []struct {
		name string
		do   func() fuse.Status
	}{
		{"create", func() fuse.Status {
			return f.Create(nil, &fuse.CreateIn{InHeader: h, Flags: unix.O_RDWR, Mode: 0o644}, "index.js", &made)
		}},
		{"write", func() fuse.Status { _, st := f.Writev(nil, &fuse.WriteIn{Fh: made.Fh}, data); return st }},
		{"next write", func() fuse.Status { _, st := f.Writev(nil, &fuse.WriteIn{Fh: made.Fh}, data); return st }},
		{"close", func() fuse.Status { f.release(made.Fh); return fuse.OK }},
		{"unlink", func() fuse.Status { return f.Unlink(nil, &h, "index.js") }},
		{"forget", func() fuse.Status { f.Forget(made.NodeId, 1); return fuse.OK }},
		{"lookup", func() fuse.Status { return f.Lookup(nil, &h, "old.js", &found) }},
		{"lookup again", func() fuse.Status { return f.Lookup(nil, &h, "old.js", &found) }},
		{"lookup of nothing", func() fuse.Status { var e fuse.EntryOut; return f.Lookup(nil, &h, "none.js", &e) }},
		{"getattr", func() fuse.Status {
			var a fuse.AttrOut
			return f.GetAttr(nil, &fuse.GetAttrIn{InHeader: header(found.NodeId)}, &a)
		}},
		{"open for writing", func() fuse.Status {
			return f.Open(nil, &fuse.OpenIn{InHeader: header(found.NodeId), Flags: unix.O_RDWR}, &open)
		}},
		{"first write", func() fuse.Status { _, st := f.Writev(nil, &fuse.WriteIn{Fh: open.Fh}, data); return st }},
		{"close written", func() fuse.Status { f.release(open.Fh); return fuse.OK }},
		{"rename", func() fuse.Status { return f.Rename(nil, &fuse.RenameIn{InHeader: h, Newdir: dir}, "old.js", "new.js") }},
		{"mkdir", func() fuse.Status {
			var out fuse.EntryOut
			return f.Mkdir(nil, &fuse.MkdirIn{InHeader: h, Mode: 0o755}, "dir", &out)
		}},
		{"rmdir", func() fuse.Status { return f.Rmdir(nil, &h, "dir") }},
		{"opendir", func() fuse.Status { return f.OpenDir(nil, &fuse.OpenIn{InHeader: h}, &open) }},
		{"readdirplus", func() fuse.Status {
			return f.ReadDirPlus(nil, &fuse.ReadIn{InHeader: h, Fh: open.Fh, Size: 4096}, list)
		}},
		{"releasedir", func() fuse.Status { f.release(open.Fh); return fuse.OK }},
		{"end", func() fuse.Status { return fuse.OK }},
	} {
		mark(prefix + step.name)
		if st := step.do(); st != fuse.OK {
			t.Fatal(step.name, st)
		}
	}
}

var (
	markLine = regexp.MustCompile(`^(\d+) +faccessat\(AT_FDCWD, "/mark/([^"]*)"`)
	callLine = regexp.MustCompile(`^(\d+) +([a-z0-9_]+)\(.*`)
)

// runtimeCalls are those that Go's runtime makes on its own.
var runtimeCalls = []string{"futex", "madvise", "nanosleep", "mmap", "munmap", "sched_yield", "rt_sigreturn", "rt_sigprocmask", "getpid", "tgkill", "clone", "clone3", "epoll_pwait", "epoll_ctl"}

// mostCalls are the most system calls that a request makes, in a share without guards and undo and in one with
// them.
var mostCalls = map[string]struct{ plain, kept int }{
	"create":            {6, 11},
	"write":             {5, 5},
	"next write":        {3, 4},
	"close":             {2, 3},
	"unlink":            {4, 8},
	"forget":            {1, 1},
	"lookup":            {4, 4},
	"lookup again":      {2, 2},
	"lookup of nothing": {1, 1},
	"getattr":           {2, 2},
	"open for writing":  {7, 7},
	"first write":       {3, 25},
	"close written":     {2, 2},
	"rename":            {3, 14},
	"mkdir":             {4, 9},
	"rmdir":             {4, 8},
	"opendir":           {4, 4},
	"readdirplus":       {4, 4},
	"releasedir":        {1, 1},
}

// TestSystemCalls counts the system calls of one request of each kind. With -v it lists them.
func TestSystemCalls(t *testing.T) {
	if os.Getenv(traced) != "" {
		tracedRequests(t, false)
		tracedRequests(t, true)
		return
	}
	log := filepath.Join(t.TempDir(), "log")
	if out, err := exec.CommandContext(t.Context(), "strace", "-f", "-o", log, "true").CombinedOutput(); err != nil {
		t.Skipf("no strace here: %v: %s", err, out)
	}
	c := exec.CommandContext(t.Context(), "strace", "-f", "-o", log, os.Args[0], "-test.run=^TestSystemCalls$")
	c.Env = append(os.Environ(), traced+"=1", "GODEBUG=asyncpreemptoff=1")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	calls := callsOf(t, log)
	for name, most := range mostCalls {
		for kind, most := range map[string]int{"plain ": most.plain, "kept ": most.kept} {
			list, ok := calls[kind+name]
			if !ok || len(list) > most {
				t.Errorf("%s%s: %d system calls, of %d at most:\n%s", kind, name, len(list), most, strings.Join(list, "\n"))
				continue
			}
			t.Logf("%s%s: %d\n%s", kind, name, len(list), strings.Join(list, "\n"))
		}
	}
}

// callsOf reads the system calls of each request from a log of strace.
func callsOf(t *testing.T, log string) map[string][]string {
	t.Helper()
	file, err := os.Open(log)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	thread, at := "", ""
	calls := map[string][]string{}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if m := markLine.FindStringSubmatch(lines.Text()); m != nil {
			thread, at = m[1], m[2]
			calls[at] = nil
		} else if m := callLine.FindStringSubmatch(lines.Text()); m != nil && m[1] == thread && !slices.Contains(runtimeCalls, m[2]) {
			calls[at] = append(calls[at], strings.TrimPrefix(lines.Text(), thread))
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return calls
}
