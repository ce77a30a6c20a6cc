package watch

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/wire"
)

func TestLinesOfFdinfo(t *testing.T) {
	tests := []struct {
		line      string
		dev, node uint64
		ok        bool
	}{
		{"inotify wd:1 ino:1a2 sdev:2f mask:fce ignored_mask:0 fhandle-bytes:c fhandle-type:81 f_handle:000000002a01000000000000", 0x2f, 0x12a, true},
		{"inotify wd:1 ino:1a2 sdev:2f mask:fce ignored_mask:0 fhandle-bytes:c fhandle-type:81 f_handle:010000000200000000000000", 0x2f, 0x100000002, true},
		{"fanotify ino:4f969 sdev:30 mflags:0 mask:3b ignored_mask:40000000 fhandle-bytes:c fhandle-type:81 f_handle:000000000700000000000000", 0x30, 7, true},
		{"inotify wd:2 ino:7ef82a sdev:800001 mask:800afff ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:2af87e00220ffd73", 0, 0, false},
		{"inotify wd:2 ino:7ef82a sdev:800001 mask:800afff ignored_mask:0 ", 0, 0, false},
		{"fanotify mnt_id:12 mflags:0 mask:3b", 0, 0, false},
		{"fanotify flags:10 event-flags:0", 0, 0, false},
		{"inotify wd:2 ino:1 sdev:xyz", 0, 0, false},
		{"inotify sdev:1 fhandle-type:81 f_handle:0000", 0, 0, false},
		{"pos:\t0", 0, 0, false},
		{"", 0, 0, false},
	}
	for _, test := range tests {
		dev, node, ok := watchOf(test.line)
		if ok != test.ok || ok && (dev != test.dev || node != test.node) {
			t.Errorf("%q: %x, %x, %v", test.line, dev, node, ok)
		}
	}
}

// TestWhatIsWatchedIsFound looks at a proc(5) made of files.
func TestWhatIsWatchedIsFound(t *testing.T) {
	proc, root := t.TempDir(), t.TempDir()
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, root, 0, unix.STATX_TYPE, &st); err != nil {
		t.Fatal(err)
	}
	dev := kernelDev(st.Dev_major, st.Dev_minor)
	process := func(pid, link string, nodes ...int) {
		dir := filepath.Join(proc, pid)
		for _, d := range []string{"fd", "fdinfo"} {
			if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		_ = os.Symlink(link, filepath.Join(dir, "fd", "3"))
		info := "pos:\t0\nflags:\t02004000\n"
		for i, n := range nodes {
			info += fmt.Sprintf("inotify wd:%x ino:1 sdev:%x mask:2 ignored_mask:0 fhandle-bytes:c fhandle-type:81 f_handle:00000000%02x00000000000000\n", i+1, dev, n)
		}
		if err := os.WriteFile(filepath.Join(dir, "fdinfo", "3"), []byte(info), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	process("7", "anon_inode:inotify", 9, 5, 9)
	process("8", "anon_inode:[eventpoll]", 6)
	process("self", "anon_inode:inotify", 4)
	s := newScanner(proc, map[string]string{"share0": root, "share1": "/proc"})
	look := func(all bool, want ...uint64) {
		t.Helper()
		got := s.look(all)
		if len(got) != 1 || got[0].Tag != "share0" || !slices.Equal(got[0].Nodes, want) {
			t.Errorf("%v, want %d", got, want)
		}
	}
	look(true, 5, 9)
	process("7", "anon_inode:inotify", 5, 10)
	look(false, 5, 10)
	process("9", "anon_inode:inotify", 11)
	look(false, 5, 10, 11)
}

// TestWatchesOfAProcessThatStarts: its number of descriptors is the same before it watches.
func TestWatchesOfAProcessThatStarts(t *testing.T) {
	proc, root := t.TempDir(), t.TempDir()
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, root, 0, unix.STATX_TYPE, &st); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"7/fd", "7/fdinfo"} {
		if err := os.MkdirAll(filepath.Join(proc, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(proc, "7/fd/3")
	opens := func(to string) {
		_ = os.Remove(link)
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	line := fmt.Sprintf("inotify wd:1 ino:1 sdev:%x mask:2 ignored_mask:0 fhandle-bytes:c fhandle-type:81 f_handle:000000000500000000000000\n", kernelDev(st.Dev_major, st.Dev_minor))
	if err := os.WriteFile(filepath.Join(proc, "7/fdinfo/3"), []byte(line), 0o644); err != nil {
		t.Fatal(err)
	}
	s := newScanner(proc, map[string]string{"share0": root})
	opens("/a/file/of/its/start")
	if got := s.look(true); len(got) != 0 {
		t.Errorf("%v", got)
	}
	first := s.looked
	opens("anon_inode:inotify")
	if got := s.look(false); len(got) != 1 || !s.since.Equal(first) {
		t.Errorf("%v, since %v, want %v", got, s.since, first)
	}
	opens("/another/file")
	if got := s.look(true); len(got) != 0 {
		t.Errorf("%v", got)
	}
	read := s.looked
	o := s.known["7"]
	o.first = o.first.Add(-youngFor)
	s.known["7"] = o
	opens("anon_inode:inotify") // later
	if got := s.look(false); len(got) != 0 || s.young {
		t.Errorf("an old process is read at each look: %v", got)
	}
	if got := s.look(true); len(got) != 1 || !s.since.Equal(read) {
		t.Errorf("%v, since %v, want %v", got, s.since, read)
	}
}

func TestLooksTakeLittleTime(t *testing.T) {
	tests := []struct {
		since, took time.Duration
		signs, want bool
	}{
		{time.Second, 0, true, true},
		{time.Second, 40 * time.Millisecond, true, false},
		{2 * time.Second, 40 * time.Millisecond, true, true},
		{lookMost, time.Minute, true, true},
		{30 * time.Second, 0, false, false},
		{lookAtAll, 0, false, true},
		{lookAtAll, time.Second, false, false},
		{400 * time.Second, time.Second, false, true},
	}
	for _, test := range tests {
		if got := due(test.since, test.took, test.signs); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
}

func TestSignsOfLife(t *testing.T) {
	proc := t.TempDir()
	s := newScanner(proc, nil)
	write := func(name, text string) string {
		t.Helper()
		if err := os.WriteFile(filepath.Join(proc, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return s.signs()
	}
	const interrupts = "           CPU0       CPU1\n 24:         13          0  PCI-MSIX-0000:00:03.0   1-edge      virtio1-req.0\n" +
		" 31:          %d          %d  PCI-MSIX-0000:00:05.0   2-edge      virtio4-requests.0\nNMI:          0          0   Non-maskable interrupts\n"
	seen := map[string]bool{}
	for _, now := range []string{
		write("loadavg", "0.00 0.01 0.05 1/100 7\n"), write("interrupts", fmt.Sprintf(interrupts, 5, 0)),
		write("interrupts", fmt.Sprintf(interrupts, 5, 1)), write("loadavg", "0.00 0.01 0.05 1/100 8\n"),
	} {
		if seen[now] {
			t.Errorf("no sign: %q", now)
		}
		seen[now] = true
	}
	if now := write("interrupts", strings.Replace(fmt.Sprintf(interrupts, 5, 1), "13", "14", 1)); !seen[now] {
		t.Errorf("a disk's interrupt is a sign: %q", now)
	}
}

// TestNothingIsPlayedWhereItIsCarriedOut plays events in a directory that is no share, such as one that
// is mounted in the place of one.
func TestNothingIsPlayedWhereItIsCarriedOut(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "d/old"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	here, there := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		new(Streams).Serve(there, map[string]string{"share0": root})
	}()
	in := json.NewDecoder(here)
	var first wire.WatchReply
	if err := in.Decode(&first); err != nil || first.Thread == 0 {
		t.Fatalf("%+v, %v", first, err)
	}
	send := func(events ...wire.FileEvent) {
		t.Helper()
		if err := json.NewEncoder(here).Encode(wire.WatchBatch{Tag: "share0", Events: events}); err != nil {
			t.Fatal(err)
		}
		for {
			var r wire.WatchReply
			if err := in.Decode(&r); err != nil {
				t.Fatal(err)
			}
			if r.Done {
				return
			}
		}
	}
	name := func(s string) []byte { return []byte(s) }
	send(
		wire.FileEvent{Kind: wire.FileCreated, Dir: name("d"), Name: name("f"), Type: unix.S_IFREG},
		wire.FileEvent{Kind: wire.FileCreated, Name: name("e"), Type: unix.S_IFDIR},
		wire.FileEvent{Kind: wire.FileCreated, Name: name("l"), Type: unix.S_IFLNK},
		wire.FileEvent{Kind: wire.FileWritten, Dir: name("d"), Name: name("f"), Type: unix.S_IFREG},
		wire.FileEvent{Kind: wire.FileClosed, Dir: name("d"), Name: name("f"), Type: unix.S_IFREG},
		wire.FileEvent{Kind: wire.FileCreated, Dir: name("../x"), Name: name("f"), Type: unix.S_IFREG},
		wire.FileEvent{Kind: wire.FileCreated, Dir: name("gone"), Name: name("f"), Type: unix.S_IFREG},
		wire.FileEvent{Kind: wire.FileRenamed, Dir: name("d"), Name: name("f"), ToDir: name("e"), ToName: name("g"), Type: unix.S_IFREG},
		wire.FileEvent{Kind: wire.FileRemoved, Dir: name("d"), Name: name("old"), Type: unix.S_IFREG},
	)
	got, err := filepath.Glob(filepath.Join(root, "*", "*"))
	all, err2 := os.ReadDir(root)
	if err != nil || err2 != nil || !slices.Equal(got, []string{filepath.Join(root, "d/old")}) || len(all) != 1 {
		t.Errorf("%q, %v, %v, %v", got, all, err, err2)
	}
	here.Close()
	<-served
}

// BenchmarkLook measures a look while 20,000 directories are watched. The agent does it once
// in lookAtAll where nothing happens.
func BenchmarkLook(b *testing.B) {
	root := b.TempDir()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(fd)
	for i := range 20000 {
		dir := filepath.Join(root, fmt.Sprint(i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			b.Fatal(err)
		}
		if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE); err != nil {
			b.Skip(err)
		}
	}
	s := newScanner("/proc", map[string]string{"share0": root})
	s.look(true)
	for b.Loop() {
		s.look(false)
	}
	took := b.Elapsed() / time.Duration(b.N)
	b.ReportMetric(100*took.Seconds()/max(lookAtAll, atAllFactor*took).Seconds(), "%cpu")
}

// TestCallsOfEvents makes the calls where they are carried out, and looks at what was done.
func TestCallsOfEvents(t *testing.T) {
	root := t.TempDir()
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	call := func(kind wire.FileEventKind, name string, typ uint32) {
		t.Helper()
		if err := playCall(wire.FileEvent{Kind: kind, Name: []byte(name), Type: typ, ToName: []byte(name + "2")}, fd, fd); err != nil {
			t.Errorf("%s %s: %v", kind, name, err)
		}
	}
	for _, typ := range []uint32{unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK, unix.S_IFIFO, unix.S_IFSOCK} {
		name := fmt.Sprintf("f%o", typ)
		call(wire.FileCreated, name, typ)
		call(wire.FileWritten, name, typ)
		call(wire.FileChanged, name, typ)
		if typ == unix.S_IFREG {
			call(wire.FileClosed, name, typ)
		}
		call(wire.FileRenamed, name, typ)
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(root, name+"2"), &st); err != nil || st.Mode&unix.S_IFMT != typ {
			t.Errorf("%s is %o, %v", name, st.Mode, err)
		}
		call(wire.FileRemoved, name+"2", typ)
	}
	if all, err := os.ReadDir(root); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
}
