package share

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/confine"
)

// homeWithFile makes a directory in which one file is shared, with a secret beside it.
func homeWithFile(t *testing.T) (home string, o Options) {
	t.Helper()
	home = t.TempDir()
	for name, text := range map[string]string{"shared": "text", "secret": "SECRET"} {
		if err := os.WriteFile(filepath.Join(home, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(home, "user.of-the-host", []byte("SECRET"), 0); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		t.Fatal(err)
	}
	return home, Options{Root: home, File: "shared"}
}

// stateOf is all that a guest could change of a directory.
func stateOf(t *testing.T, dir string) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	attributes := make([]byte, 4096)
	n, _ := unix.Listxattr(dir, attributes)
	return fmt.Sprint(st.Mode, st.Uid, st.Gid, st.Mtim, st.Nlink, list, string(attributes[:max(n, 0)]))
}

// numbers lays numbers out as the fields of a request: 8 bytes each.
func numbers(v ...uint64) []byte {
	var b []byte
	for _, n := range v {
		b = binary.NativeEndian.AppendUint64(b, n)
	}
	return b
}

// setAttrBody is struct fuse_setattr_in with everything in it set.
func setAttrBody(valid uint32, mode uint32) []byte {
	b := make([]byte, 88)
	binary.NativeEndian.PutUint32(b, valid)
	binary.NativeEndian.PutUint32(b[68:], mode)
	return b
}

// TestAShareOfOneFileGivesNothingOfItsDirectory is an attack with raw requests, as a guest's
// own kernel can send them, on the root of a share of one file. On the host that is the
// directory of the file: a home.
func TestAShareOfOneFileGivesNothingOfItsDirectory(t *testing.T) {
	home, o := homeWithFile(t)
	f := newTest(t, o)
	h := newHandler(f)
	file := lookup(t, f, rootID, "shared")
	before := stateOf(t, home)
	for name, req := range map[string][]byte{
		"chmod":              request(4, rootID, setAttrBody(fuse.FATTR_MODE, 0o777)),
		"chown to its owner": request(4, rootID, setAttrBody(fuse.FATTR_UID, 0)),
		"utimes":             request(4, rootID, setAttrBody(fuse.FATTR_MTIME|fuse.FATTR_ATIME, 0)),
		"truncate":           request(4, rootID, setAttrBody(fuse.FATTR_SIZE, 0)),
		"lookup beside it":   request(1, rootID, []byte("secret\x00")),
		"lookup .":           request(1, rootID, []byte(".\x00")),
		"lookup ..":          request(1, rootID, []byte("..\x00")),
		"lookup a directory": request(1, rootID, []byte(".ssh\x00")),
		"readlink":           request(5, rootID),
		"symlink":            request(6, rootID, []byte("new\x00target\x00")),
		"mknod":              request(8, rootID, numbers(unix.S_IFREG|0o644, 0), []byte("new\x00")),
		"mkdir":              request(9, rootID, numbers(0o755), []byte("new\x00")),
		"unlink the file":    request(10, rootID, []byte("shared\x00")),
		"unlink beside it":   request(10, rootID, []byte("secret\x00")),
		"rmdir":              request(11, rootID, []byte(".ssh\x00")),
		"rename away":        request(12, rootID, numbers(rootID), []byte("shared\x00new\x00")),
		"rename over it":     request(12, rootID, numbers(rootID), []byte("secret\x00shared\x00")),
		"link":               request(13, rootID, numbers(file), []byte("new\x00")),
		"link to the root":   request(13, rootID, numbers(rootID), []byte("new\x00")),
		"open":               request(14, rootID, numbers(0)),
		"setxattr":           request(21, rootID, numbers(1), []byte("user.x\x00y")),
		"getxattr":           request(22, rootID, numbers(100), []byte("user.of-the-host\x00")),
		"getxattr, its size": request(22, rootID, numbers(0), []byte("user.of-the-host\x00")),
		"listxattr":          request(23, rootID, numbers(100)),
		"listxattr, size":    request(23, rootID, numbers(0)),
		"removexattr":        request(24, rootID, []byte("user.of-the-host\x00")),
		"opendir":            request(27, rootID, numbers(0)),
		"readdir":            request(28, rootID, numbers(1, 0, 4000, 0, 0)),
		"create":             request(35, rootID, numbers(unix.O_RDWR|0o644<<32, 0), []byte("new\x00")),
		"create over it":     request(35, rootID, numbers(unix.O_RDWR|unix.O_TRUNC|0o644<<32, 0), []byte("secret\x00")),
		"rename2, exchange":  request(45, rootID, numbers(rootID, unix.RENAME_EXCHANGE), []byte("secret\x00shared\x00")),
		"tmpfile":            request(51, rootID, numbers(unix.O_RDWR|0o644<<32, 0), []byte("x\x00")),
		"readdirplus":        request(44, rootID, numbers(1, 0, 4000, 0, 0)),
	} {
		out := make([]byte, 8192)
		n := h.Handle([][]byte{req}, [][]byte{out})
		if n < 16 || int32(binary.NativeEndian.Uint32(out[4:])) >= 0 {
			if !strings.HasPrefix(name, "lookup") || binary.NativeEndian.Uint64(out[16:]) != 0 { // a negative entry has no node
				t.Errorf("%s: allowed", name)
			}
		}
		if bytes.Contains(out, []byte("SECRET")) || bytes.Contains(out, []byte("secret")) || bytes.Contains(out, []byte("of-the-host")) {
			t.Errorf("%s: gave away something of the directory", name)
		}
	}
	if after := stateOf(t, home); after != before {
		t.Errorf("the directory was changed:\n%s\n%s", before, after)
	}
	var a fuse.AttrOut
	if st := f.GetAttr(nil, &fuse.GetAttrIn{InHeader: header(rootID)}, &a); st != fuse.OK || a.Mode != unix.S_IFDIR|0o555 || a.Mtime != 0 {
		t.Errorf("the root's attributes: %v, %+v", st, a.Attr)
	}
}

// TestAShareOfOneFileFollowsOnlyThatFile: what the host, or another guest, puts in place of
// the file does not lead to more.
func TestAShareOfOneFileFollowsOnlyThatFile(t *testing.T) {
	for name, replace := range map[string]func(path string) error{
		"a directory":                 func(p string) error { return os.Mkdir(p, 0o755) },
		"a link to the file beside":   func(p string) error { return os.Symlink("secret", p) },
		"a link to the directory":     func(p string) error { return os.Symlink(".", p) },
		"a pipe":                      func(p string) error { return unix.Mkfifo(p, 0o644) },
		"nothing, and a node of old":  func(string) error { return nil },
		"a file whose name was taken": func(p string) error { return os.Rename(filepath.Join(filepath.Dir(p), "secret"), p+"2") },
	} {
		t.Run(name, func(t *testing.T) {
			home, o := homeWithFile(t)
			f := newTest(t, o)
			old := lookup(t, f, rootID, "shared")
			path := filepath.Join(home, "shared")
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := replace(path); err != nil {
				t.Fatal(err)
			}
			h := header(rootID)
			var e fuse.EntryOut
			if st := f.Lookup(nil, &h, "shared", &e); e.NodeId != 0 {
				t.Errorf("looked up: %v, node %d", st, e.NodeId)
			}
			if st := f.Open(nil, &fuse.OpenIn{InHeader: header(old)}, &fuse.OpenOut{}); st == fuse.OK {
				t.Error("the old node leads to it")
			}
			if st := f.OpenDir(nil, &fuse.OpenIn{InHeader: header(old)}, &fuse.OpenOut{}); st == fuse.OK {
				t.Error("the old node leads to a directory")
			}
		})
	}
}

// TestASavedShareOfOneFileLeadsNowhereElse is an attack by a guest that has taken over the
// server: the state that it saves names the files beside the shared one.
func TestASavedShareOfOneFileLeadsNowhereElse(t *testing.T) {
	home, o := homeWithFile(t)
	saved := func(name string) savedNode {
		var st unix.Stat_t
		path := filepath.Join(home, name)
		if err := unix.Lstat(path, &st); err != nil {
			t.Fatal(err)
		}
		whole, err := statAt(unix.AT_FDCWD, path)
		if err != nil {
			t.Fatal(err)
		}
		k := keyOf(whole)
		return savedNode{Parent: rootID, Name: []byte(name), Dev: k.dev, Ino: k.ino, Birth: k.birth, Type: uint16(st.Mode & unix.S_IFMT), Lookups: 1}
	}
	nodes := []savedNode{{ID: rootID, Dev: saved("shared").Dev, Type: unix.S_IFDIR}}
	for i, name := range []string{"shared", "secret", ".ssh"} {
		n := saved(name)
		n.ID = uint64(i + 2)
		nodes = append(nodes, n)
	}
	handles := []savedHandle{{ID: 1, Node: rootID}, {ID: 2, Node: 2}, {ID: 3, Node: 3}, {ID: 4, Node: 4}}
	f := newTest(t, o)
	if err := f.load(&Saved{Next: 10, Nodes: nodes, Handles: handles, Handle: 4}, false); err != nil {
		t.Fatal(err)
	}
	if got := read(t, f, 2); got != "text" {
		t.Errorf("the shared file: %q", got)
	}
	for _, fh := range []uint64{1, 3, 4} {
		if _, err := f.handle(fh); !errors.Is(err, unix.ESTALE) {
			t.Errorf("open file %d: %v", fh, err)
		}
	}
	for _, id := range []uint64{3, 4} {
		if st := f.Open(nil, &fuse.OpenIn{InHeader: header(id)}, &fuse.OpenOut{}); st != fuse.Status(unix.ESTALE) {
			t.Errorf("node %d: %v", id, st)
		}
	}
}

// mountHere mounts a share with the kernel's own FUSE client.
func mountHere(t *testing.T, f *fileSystem) string {
	t.Helper()
	at := t.TempDir()
	s, err := fuse.NewServer(f, at, &fuse.MountOptions{DirectMountStrict: true, MaxWrite: 128 << 10, Options: []string{"default_permissions"}})
	if err != nil {
		t.Skipf("FUSE cannot be mounted here: %v", err)
	}
	go s.Serve()
	if err := s.WaitMount(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return at
}

// TestOneFileThroughTheKernel is the same attack by programs of a guest with an honest
// kernel, and what an honest guest does with the file works.
func TestOneFileThroughTheKernel(t *testing.T) {
	home, o := homeWithFile(t)
	at := mountHere(t, newTest(t, o))
	before := stateOf(t, home)
	for name, err := range map[string]error{
		"chmod":   os.Chmod(at, 0o777),
		"chtimes": os.Chtimes(at, time.Unix(1, 0), time.Unix(1, 0)),
		"list":    func() error { _, err := os.ReadDir(at); return err }(),
		"read":    func() error { _, err := os.ReadFile(at + "/secret"); return err }(),
		"write":   os.WriteFile(at+"/new", nil, 0o644),
		"over":    os.WriteFile(at+"/secret", nil, 0o644),
		"mkdir":   os.Mkdir(at+"/new", 0o755),
		"remove":  os.Remove(at + "/shared"),
		"setx":    unix.Setxattr(at, "user.x", []byte("y"), 0),
		"getx":    func() error { _, err := unix.Getxattr(at, "user.of-the-host", make([]byte, 100)); return err }(),
	} {
		if err == nil {
			t.Errorf("%s: allowed", name)
		}
	}
	if after := stateOf(t, home); after != before {
		t.Errorf("the directory was changed:\n%s\n%s", before, after)
	}
	fd, err := os.OpenFile(at+"/shared", os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = fd.WriteString(" more")
	if err := errors.Join(err, fd.Chmod(0o600), fd.Close()); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(home + "/shared"); err != nil || string(b) != "text more" {
		t.Errorf("%q, %v", b, err)
	}
}

// confinedFile is the variable that makes this test program a share's server that reports
// what it can open.
const confinedFile = "BAWN_TEST_CONFINED_FILE"

// TestTheServerOfOneFileIsConfinedToIt: Landlock's rule is for the file alone.
func TestTheServerOfOneFileIsConfinedToIt(t *testing.T) {
	if home := os.Getenv(confinedFile); home != "" {
		// As Prepare does, which also drops capabilities, what a program with cgo cannot.
		level, err := confine.Apply(Options{Root: home, File: "shared"}.profile())
		if err != nil || level.ABI == 0 {
			fmt.Printf("no confinement: %v\n", err)
			os.Exit(0)
		}
		_, own := os.ReadFile(filepath.Join(home, "shared"))
		_, beside := os.ReadFile(filepath.Join(home, "secret"))
		_, list := os.ReadDir(home)
		made := os.WriteFile(filepath.Join(home, "new"), nil, 0o644)
		fmt.Println("own", own == nil, "beside", beside == nil, "list", list == nil, "made", made == nil)
		os.Exit(0)
	}
	home, _ := homeWithFile(t)
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	c.Env = append(os.Environ(), confinedFile+"="+home)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if strings.HasPrefix(string(out), "no confinement") {
		t.Skip(string(out))
	}
	if got := strings.Fields(string(out)); !reflect.DeepEqual(got, strings.Fields("own true beside false list false made false")) {
		t.Errorf("%s", out)
	}
}
