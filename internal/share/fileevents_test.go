package share

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/share/guard"
	"bawn.dev/bawn/internal/wire"
)

// inotifyOf watches directories or files, and returns a function that reads what was reported so far,
// one "event name" after the other.
func inotifyOf(t *testing.T, paths ...string) func() []string {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	for _, p := range paths {
		if _, err := unix.InotifyAddWatch(fd, p, unix.IN_ALL_EVENTS&^unix.IN_ACCESS&^unix.IN_OPEN&^unix.IN_CLOSE_NOWRITE); err != nil {
			t.Fatal(err)
		}
	}
	return func() []string {
		b := make([]byte, 64<<10)
		n, err := unix.Read(fd, b)
		if err != nil {
			return nil
		}
		return eventNames(b[:n])
	}
}

// maskNames are the events of inotify(7) that are of interest.
var maskNames = []struct {
	bit  uint32
	name string
}{
	{unix.IN_CREATE, "create"}, {unix.IN_DELETE, "delete"}, {unix.IN_MOVED_FROM, "from"}, {unix.IN_MOVED_TO, "to"},
	{unix.IN_MODIFY, "modify"}, {unix.IN_CLOSE_WRITE, "close"}, {unix.IN_ATTRIB, "attrib"}, {unix.IN_DELETE_SELF, "deleted"},
	{unix.IN_MOVE_SELF, "moved"},
}

func eventNames(b []byte) (names []string) {
	for len(b) >= unix.SizeofInotifyEvent {
		mask, n := binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[12:])
		name := strings.TrimRight(string(b[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+n]), "\x00")
		for _, m := range maskNames {
			if mask&m.bit != 0 {
				names = append(names, strings.TrimSpace(m.name+" "+name))
			}
		}
		b = b[unix.SizeofInotifyEvent+n:]
	}
	return names
}

// tell announces changes of the host and plays the events as the guest's agent does.
func tell(t *testing.T, f *fileSystem, mounted string, changes ...HostChange) (errs []error) {
	t.Helper()
	done := make(chan []error)
	go func() {
		runtime.LockOSThread() // never unlocked: no other code runs on it
		var errs []error
		events := f.announce(uint32(unix.Gettid()), changes)
		for i, e := range events {
			dir := filepath.Join(mounted, string(e.Dir))
			value := make([]byte, 16)
			if n, err := unix.Lgetxattr(dir+"/.", wire.FileEventAttribute+strconv.Itoa(i), value); string(value[:max(n, 0)]) != wire.FileEventValue {
				errs = append(errs, fmt.Errorf("no event %d: %w", i, err))
				continue
			}
			if err := play(mounted, e); err != nil {
				errs = append(errs, fmt.Errorf("%s %s: %w", e.Kind, e.Name, err))
			}
		}
		done <- errs
	}()
	return <-done
}

// play is what the guest's agent does for an event (internal/guest/watch).
func play(mounted string, e wire.FileEvent) error {
	name := filepath.Join(mounted, string(e.Dir), string(e.Name))
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: 1}}
	switch e.Kind {
	case wire.FileCreated:
		if e.Type == unix.S_IFDIR {
			return unix.Mkdir(name, 0o700)
		}
		return unix.Mknod(name, e.Type|0o600, 0)
	case wire.FileRemoved:
		if e.Type == unix.S_IFDIR {
			return unix.Rmdir(name)
		}
		return unix.Unlink(name)
	case wire.FileRenamed:
		return unix.Rename(name, filepath.Join(mounted, string(e.ToDir), string(e.ToName)))
	case wire.FileChanged:
		ts[0] = unix.Timespec{Sec: 1}
		return unix.UtimesNanoAt(unix.AT_FDCWD, name, ts, unix.AT_SYMLINK_NOFOLLOW)
	case wire.FileWritten:
		return unix.UtimesNanoAt(unix.AT_FDCWD, name, ts, unix.AT_SYMLINK_NOFOLLOW)
	case wire.FileClosed:
		fd, err := unix.Open(name, unix.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	}
	return nil
}

// TestEventsOfTheHostsChanges makes changes on the host and looks at what a watcher of the guest
// is told.
func TestEventsOfTheHostsChanges(t *testing.T) {
	const written = unix.IN_MODIFY | unix.IN_CLOSE_WRITE
	tests := []struct {
		name    string
		before  func(host, guest string)
		change  func(host string)
		reports []HostChange
		want    []string
		ro      bool
	}{
		{name: "read-only share", ro: true, change: func(h string) { put(h+"/a", "a") },
			reports: []HostChange{{Name: []byte("a"), Mask: unix.IN_CREATE | written}}, want: []string{"create a", "modify a", "close a"}},
		{name: "created", change: func(h string) { put(h+"/a", "a") },
			reports: []HostChange{{Name: []byte("a"), Mask: unix.IN_CREATE | written}}, want: []string{"create a", "modify a", "close a"}},
		{name: "created, after a look in vain", before: func(_, g string) { _, _ = os.Stat(g + "/a") }, change: func(h string) { put(h+"/a", "a") },
			reports: []HostChange{{Name: []byte("a"), Mask: unix.IN_CREATE | written}}, want: []string{"create a", "modify a", "close a"}},
		{name: "created, seen before the event", change: func(h string) { put(h+"/a", "a"); _, _ = os.ReadDir(h) },
			reports: []HostChange{{Name: []byte("a"), Mask: unix.IN_CREATE}}, want: []string{"create a"}},
		{name: "directory", change: func(h string) { _ = os.Mkdir(h+"/d", 0o755) },
			reports: []HostChange{{Name: []byte("d"), Mask: unix.IN_CREATE | unix.IN_ISDIR}}, want: []string{"create d"}},
		{name: "written", before: func(h, g string) { put(h+"/a", "a"); _, _ = os.ReadFile(g + "/a") }, change: func(h string) { put(h+"/a", "bb") },
			reports: []HostChange{{Name: []byte("a"), Mask: written}}, want: []string{"modify a", "close a"}},
		{name: "executable", before: func(h, g string) { put(h+"/a", "a"); _ = os.Chmod(h+"/a", 0o755) }, change: func(h string) { put(h+"/a", "bb") },
			reports: []HostChange{{Name: []byte("a"), Mask: written}}, want: []string{"modify a"}},
		{name: "attributes", before: func(h, g string) { put(h+"/a", "a"); _, _ = os.ReadFile(g + "/a") }, change: func(h string) { _ = os.Chmod(h+"/a", 0o600) },
			reports: []HostChange{{Name: []byte("a"), Mask: unix.IN_ATTRIB}}, want: []string{"attrib a"}},
		{name: "removed", before: func(h, g string) { put(h+"/a", "a"); _, _ = os.ReadFile(g + "/a") }, change: func(h string) { _ = os.Remove(h + "/a") },
			reports: []HostChange{{Name: []byte("a"), Mask: unix.IN_DELETE}}, want: []string{"delete a"}},
		{name: "removed, never seen", before: func(h, _ string) { put(h+"/a", "a") }, change: func(h string) { _ = os.Remove(h + "/a") },
			reports: []HostChange{{Name: []byte("a"), Mask: unix.IN_DELETE}}, want: []string{"delete a"}},
		{name: "directory removed", before: func(h, g string) { _ = os.Mkdir(h+"/d", 0o755); _, _ = os.ReadDir(g + "/d") }, change: func(h string) { _ = os.Remove(h + "/d") },
			reports: []HostChange{{Name: []byte("d"), Mask: unix.IN_DELETE | unix.IN_ISDIR}}, want: []string{"delete d"}},
		{name: "renamed", before: func(h, g string) { put(h+"/a", "a"); _, _ = os.ReadFile(g + "/a") }, change: func(h string) { _ = os.Rename(h+"/a", h+"/b") },
			reports: []HostChange{{Name: []byte("b"), Mask: unix.IN_MOVED_TO, Renamed: true, FromName: []byte("a")}}, want: []string{"from a", "to b"}},
		{name: "saved by an editor", before: func(h, g string) { put(h+"/a", "a"); _, _ = os.ReadFile(g + "/a") }, change: func(h string) { put(h+"/t", "bb"); _ = os.Rename(h+"/t", h+"/a") },
			reports: []HostChange{{Name: []byte("a"), Mask: unix.IN_MOVED_TO, Renamed: true, FromName: []byte("t")}}, want: []string{"from t", "to a"}},
		{name: "moved in", before: func(h, g string) { put(h+"/a", "a"); put(h+"/../x", "bb"); _, _ = os.ReadFile(g + "/a") }, change: func(h string) { _ = os.Rename(h+"/../x", h+"/a") },
			reports: []HostChange{{Name: []byte("a"), Mask: unix.IN_MOVED_TO}}, want: []string{"delete a", "create a"}},
		{name: "gone before it is told", change: func(string) {},
			reports: []HostChange{{Name: []byte("a"), Mask: unix.IN_CREATE | written}}},
		{name: "made by the guest", before: func(_, g string) { put(g+"/a", "a") }, change: func(string) {},
			reports: []HostChange{{Name: []byte("a"), Mask: unix.IN_CREATE | written}}},
		{name: "made by the guest, written by the host", before: func(_, g string) { put(g+"/a", "a") }, change: func(h string) { settleClock(h + "/a"); put(h+"/a", "bb") },
			reports: []HostChange{{Name: []byte("a"), Mask: unix.IN_CREATE | written}}, want: []string{"modify a", "close a"}},
		{name: "renamed by the guest", before: func(h, g string) { put(h+"/a", "a"); _ = os.Rename(g+"/a", g+"/b") }, change: func(string) {},
			reports: []HostChange{{Name: []byte("b"), Mask: unix.IN_MOVED_TO, Renamed: true, FromName: []byte("a")}}},
		{name: "removed by the guest", before: func(h, g string) { put(h+"/a", "a"); _ = os.Remove(g + "/a") }, change: func(string) {},
			reports: []HostChange{{Name: []byte("a"), Mask: unix.IN_DELETE}}},
		{name: "chmod by the guest", before: func(h, g string) { put(h+"/a", "a"); _ = os.Chmod(g+"/a", 0o600) }, change: func(string) {},
			reports: []HostChange{{Name: []byte("a"), Mask: unix.IN_ATTRIB}}},
		{name: "a name with a slash", change: func(string) {}, reports: []HostChange{{Name: []byte("../a"), Mask: unix.IN_CREATE}}},
		{name: "in a directory that the guest does not know", change: func(h string) { _ = os.Mkdir(h+"/u", 0o755); put(h+"/u/a", "a") },
			reports: []HostChange{{Dir: []byte("u"), Name: []byte("a"), Mask: unix.IN_CREATE}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "root")
			if err := os.Mkdir(root, 0o755); err != nil {
				t.Fatal(err)
			}
			mounted, f := mountTest(t, Options{Root: root, ReadOnly: test.ro})
			if test.before != nil {
				test.before(root, mounted)
			}
			events := inotifyOf(t, mounted)
			test.change(root)
			for _, err := range tell(t, f, mounted, test.reports...) {
				t.Error(err)
			}
			if got := events(); !slices.Equal(got, test.want) {
				t.Errorf("events %q, want %q", got, test.want)
			}
			sameAsHost(t, root, mounted)
		})
	}
}

func put(path, data string) { _ = os.WriteFile(path, []byte(data), 0o644) }

// settleClock waits until a change of a file has another time than the last one.
func settleClock(path string) {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return
	}
	for time.Since(time.Unix(st.Ctim.Unix())) < 2*clockTick {
		time.Sleep(clockTick)
	}
}

// sameAsHost compares what guest and host see in the root of a share.
func sameAsHost(t *testing.T, host, guest string) {
	t.Helper()
	list := func(dir string) (names []string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			b, _ := os.ReadFile(filepath.Join(dir, e.Name()))
			fi, err := os.Lstat(filepath.Join(dir, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, fmt.Sprint(e.Name(), fi.Mode(), fi.ModTime(), string(b)))
		}
		return names
	}
	time.Sleep(staleAfter * 2) // what the kernel knew is old now
	if h, g := list(host), list(guest); !slices.Equal(h, g) {
		t.Errorf("the host has %q, the guest %q", h, g)
	}
}

// TestWatchesNameTheirFilesByNode reads what the guest's agent reads of a watch, and asks for the
// directories.
func TestWatchesNameTheirFilesByNode(t *testing.T) {
	root := t.TempDir()
	mounted, f := mountTest(t, Options{Root: root})
	if err := os.MkdirAll(filepath.Join(root, "d/e"), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(root, "d/f"), "f")
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, p := range []string{"", "d/e", "d/f"} {
		if _, err := unix.InotifyAddWatch(fd, filepath.Join(mounted, p), unix.IN_MODIFY); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		t.Fatal(err)
	}
	var ids []uint64
	for _, m := range regexp.MustCompile("fhandle-type:81 f_handle:([0-9a-f]{16})").FindAllStringSubmatch(string(info), -1) {
		b, err := hex.DecodeString(m[1])
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, uint64(binary.NativeEndian.Uint32(b))<<32|uint64(binary.NativeEndian.Uint32(b[4:])))
	}
	var got []string
	for _, d := range f.watchedDirs(append(ids, 1<<40)) {
		got = append(got, string(d))
	}
	slices.Sort(got)
	if want := []string{"", "d", "d/e"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q; %s", got, want, info)
	}
}

// TestTheEventThreadChangesNothing sends the requests of a guest that forges the thread's number.
func TestTheEventThreadChangesNothing(t *testing.T) {
	root := t.TempDir()
	f := newTest(t, Options{Root: root})
	h := newHandler(f)
	writeFile(t, filepath.Join(root, "f"), "f")
	if err := os.Mkdir(filepath.Join(root, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	file := lookup(t, f, rootID, "f")
	var fh fuse.OpenOut
	if st := f.Open(nil, &fuse.OpenIn{InHeader: header(file), Flags: unix.O_RDWR}, &fh); st != fuse.OK {
		t.Fatal(st)
	}
	const thread = 77
	before := describe(t, root)
	events := f.announce(thread, []HostChange{
		{Name: []byte("f"), Mask: unix.IN_MODIFY}, {Name: []byte("gone"), Mask: unix.IN_DELETE}, {Name: []byte("d"), Mask: unix.IN_CREATE},
	})
	request := func(op uint32, node uint64, body ...byte) int32 {
		in := make([]byte, headerLen, headerLen+len(body))
		in = append(in, body...)
		binary.NativeEndian.PutUint32(in, uint32(len(in)))
		binary.NativeEndian.PutUint32(in[opOffset:], op)
		binary.NativeEndian.PutUint64(in[nodeOffset:], node)
		binary.NativeEndian.PutUint32(in[pidOffset:], thread)
		out := make([]byte, 4096)
		if n := h.Handle([][]byte{in}, [][]byte{out}); n == 0 {
			return 0
		}
		return int32(binary.NativeEndian.Uint32(out[4:]))
	}
	names := func(skip int, names ...string) []byte {
		return append(make([]byte, skip), strings.Join(names, "\x00")+"\x00"...)
	}
	for i := -1; i < len(events); i++ {
		request(22, rootID, append(make([]byte, 8), wire.FileEventAttribute+strconv.Itoa(i)+"\x00"...)...)
		for op := range uint32(64) {
			if op == opInit {
				continue
			}
			for _, node := range []uint64{rootID, file} {
				for _, body := range [][]byte{names(0, "f"), names(8, "f", "n"), names(16, "n", "f"), names(8, "d"), names(88, "x"), names(0, "gone"),
					binary.NativeEndian.AppendUint64(nil, fh.Fh)} {
					request(op, node, body...)
				}
			}
		}
	}
	if after := describe(t, root); after != before {
		t.Errorf("it was %s, and is %s", before, after)
	}
}

// describe lists a directory with all that can change of its files.
func describe(t *testing.T, root string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.Walk(root, func(path string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		st.Atim = unix.Timespec{}
		fmt.Fprintf(&all, "%s %+v\n", path, st)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// TestEventsTellNothingOfHiddenNames changes hidden files on the host, and one of which the guest has a
// version of its own.
func TestEventsTellNothingOfHiddenNames(t *testing.T) {
	root := t.TempDir()
	mounted, f := mountTest(t, Options{
		Root: root, Guard: &guard.Options{Guard: []string{"guarded"}, Hide: []string{"secret*"}}, Private: filepath.Join(t.TempDir(), "private"),
	})
	put(root+"/guarded", "the host's")
	put(root+"/secret", "secret")
	put(mounted+"/guarded", "the guest's")
	if b, err := os.ReadFile(root + "/guarded"); err != nil || string(b) != "the host's" {
		t.Fatalf("%q, %v", b, err)
	}
	events := inotifyOf(t, mounted)
	put(root+"/secret2", "secret")
	put(root+"/guarded", "the host's, again")
	if err := os.Remove(root + "/secret"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(root+"/secretdir", 0o755); err != nil {
		t.Fatal(err)
	}
	put(root+"/secretdir/f", "secret")
	put(root+"/free", "free")
	const written = unix.IN_CREATE | unix.IN_MODIFY | unix.IN_CLOSE_WRITE
	for _, err := range tell(t, f, mounted,
		HostChange{Name: []byte("secret2"), Mask: written},
		HostChange{Name: []byte("secret"), Mask: unix.IN_DELETE},
		HostChange{Name: []byte("secretdir"), Mask: unix.IN_CREATE | unix.IN_ISDIR},
		HostChange{Dir: []byte("secretdir"), Name: []byte("f"), Mask: written},
		HostChange{Name: []byte("guarded"), Mask: written},
		HostChange{Name: []byte("free"), Mask: unix.IN_MOVED_TO, Renamed: true, FromName: []byte("secret2")},
	) {
		t.Error(err)
	}
	if got, want := events(), []string{"create free"}; !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
}

// TestANewServerKnowsTheEventThread: the thread that was told to play an event meets a server that
// has taken over meanwhile.
func TestANewServerKnowsTheEventThread(t *testing.T) {
	root := t.TempDir()
	old := newTest(t, Options{Root: root})
	writeFile(t, filepath.Join(root, "f"), "f")
	old.announce(77, []HostChange{{Name: []byte("f"), Mask: unix.IN_MOVED_TO}})
	f := newTest(t, Options{Root: root})
	if err := f.load(old.save(), false); err != nil {
		t.Fatal(err)
	}
	in := make([]byte, headerLen)
	binary.NativeEndian.PutUint32(in[opOffset:], 10) // UNLINK
	binary.NativeEndian.PutUint64(in[nodeOffset:], rootID)
	binary.NativeEndian.PutUint32(in[pidOffset:], 77)
	in = append(in, "f\x00"...)
	binary.NativeEndian.PutUint32(in, uint32(len(in)))
	out := make([]byte, 64)
	newHandler(f).Handle([][]byte{in}, [][]byte{out[:16], out[16:]})
	if _, err := os.Lstat(filepath.Join(root, "f")); err != nil || int32(binary.NativeEndian.Uint32(out[4:])) != -int32(unix.EPERM) {
		t.Errorf("answer %v; %v", out, err)
	}
}
