package share

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sys/mounttest"
)

// mountAt mounts until the test ends, before its folders are removed.
func mountAt(t *testing.T, source, at, typ string, flags uintptr) error {
	t.Helper()
	err := unix.Mount(source, at, typ, flags, "")
	if err == nil {
		t.Cleanup(func() {
			if err := unix.Unmount(at, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
				panic(err) // nothing may be removed that is still mounted
			}
		})
	}
	return err
}

// TestFileSystemsOfTheKernelAreNotServed is an attack by a guest whose share holds a chroot,
// or anything else in which the host has mounted an interface of its kernel.
func TestFileSystemsOfTheKernelAreNotServed(t *testing.T) {
	if !mounttest.Own(t) {
		return
	}
	root := t.TempDir()
	dir := func(name string) string {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tried := 0
	for _, typ := range []string{
		"proc", "sysfs", "cgroup2", "cgroup", "debugfs", "tracefs", "securityfs", "bpf", "devpts", "devtmpfs",
		"mqueue", "binfmt_misc", "configfs", "fusectl", "hugetlbfs", "pstore", "efivarfs", "rpc_pipefs", "nfsd", "selinuxfs",
	} {
		at := dir("chroot/" + typ)
		if err := mountAt(t, "none", at, typ, 0); err != nil {
			t.Logf("%s cannot be mounted here: %v", typ, err)
			continue
		}
		tried++
		f := newTest(t, Options{Root: root})
		chroot := lookup(t, f, rootID, "chroot")
		h := header(chroot)
		if st := f.Lookup(nil, &h, typ, &fuse.EntryOut{}); st != fuse.EACCES {
			t.Errorf("%s: looked up: %v", typ, st)
		}
		if _, err := newFileSystem(Options{Root: at}); err == nil || !strings.Contains(err.Error(), "file system of the kernel, such as proc") {
			t.Errorf("%s as the root: %v", typ, err)
		}
		entries := listed(t, f, chroot)
		if id, there := entries[typ]; !there || id != 0 {
			t.Errorf("%s: a list of the directory above gives node %d, %v", typ, id, there)
		}
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
	if tried == 0 {
		t.Skip("nothing can be mounted here")
	}
}

// listed returns the nodes that READDIRPLUS gives for the names in a directory.
func listed(t *testing.T, f *fileSystem, dir uint64) map[string]uint64 {
	t.Helper()
	var o fuse.OpenOut
	if st := f.OpenDir(nil, &fuse.OpenIn{InHeader: header(dir)}, &o); st != fuse.OK {
		t.Fatal(st)
	}
	defer f.ReleaseDir(&fuse.ReleaseIn{Fh: o.Fh})
	buf := make([]byte, 64<<10)
	entries := fuse.NewDirEntryList(buf, 0)
	if st := f.ReadDirPlus(nil, &fuse.ReadIn{InHeader: header(dir), Fh: o.Fh}, entries); st != fuse.OK {
		t.Fatal(st)
	}
	names, outs, err := fuse.ParseDirLookupEntries(entries.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]uint64{}
	for i, e := range names {
		found[e.Name] = outs[i].NodeId
	}
	return found
}

// TestAMountThatComesLaterIsNotServed is an attack that waits: the guest knows a directory
// or a file before the host mounts an interface of its kernel over it, as a build of an
// image does.
func TestAMountThatComesLaterIsNotServed(t *testing.T) {
	if !mounttest.Own(t) {
		return
	}
	root := t.TempDir()
	for _, d := range []string{"proc", "deep/er/proc", "disk/proc"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	f := newTest(t, Options{Root: root})
	known := lookup(t, f, rootID, "proc")
	file := lookup(t, f, rootID, "file")
	above := lookup(t, f, lookup(t, f, rootID, "deep"), "er")
	opened := create(t, f, above, "open", uint32(os.O_RDWR), 0o644)
	for _, at := range []string{"proc", "deep/er/proc"} {
		if err := mountAt(t, "none", filepath.Join(root, at), "proc", 0); err != nil {
			t.Skipf("proc cannot be mounted here: %v", err)
		}
	}
	comm := filepath.Join(root, "proc", "self", "comm")
	if err := mountAt(t, comm, filepath.Join(root, "file"), "", unix.MS_BIND); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(comm)
	if err != nil {
		t.Fatal(err)
	}
	refused := []fuse.Status{fuse.EACCES, fuse.Status(unix.ESTALE)}
	h, above2 := header(known), header(above)
	for name, st := range map[string]fuse.Status{
		"below the known directory": f.Lookup(nil, &h, "version", &fuse.EntryOut{}),
		"opendir":                   f.OpenDir(nil, &fuse.OpenIn{InHeader: h}, &fuse.OpenOut{}),
		"create":                    f.Create(nil, &fuse.CreateIn{InHeader: h, Flags: uint32(os.O_RDWR)}, "version", &fuse.CreateOut{}),
		"the file":                  f.Open(nil, &fuse.OpenIn{InHeader: header(file), Flags: uint32(os.O_RDWR)}, &fuse.OpenOut{}),
		"the file by create":        f.Create(nil, &fuse.CreateIn{InHeader: header(rootID), Flags: uint32(os.O_RDWR | os.O_TRUNC)}, "file", &fuse.CreateOut{}),
		"deeper":                    f.Lookup(nil, &above2, "proc", &fuse.EntryOut{}),
	} {
		if !slices.Contains(refused, st) {
			t.Errorf("%s: %v", name, st)
		}
	}
	if after, err := os.ReadFile(comm); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the process is called %q now, %v", after, err)
	}
	if st := write(f, opened.Fh, 0, 0, "x"); st != fuse.OK {
		t.Errorf("what was open: %v", st)
	}
}

// TestOtherMountsAreServed: the person mounts what they like below a share.
func TestOtherMountsAreServed(t *testing.T) {
	if !mounttest.Own(t) {
		return
	}
	root, elsewhere := t.TempDir(), t.TempDir()
	if err := errors.Join(os.Mkdir(root+"/ram", 0o755), os.Mkdir(root+"/bound", 0o755), os.WriteFile(elsewhere+"/f", nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	if err := mountAt(t, "none", root+"/ram", "tmpfs", 0); err != nil {
		t.Skipf("tmpfs cannot be mounted here: %v", err)
	}
	if err := errors.Join(mountAt(t, elsewhere, root+"/bound", "", unix.MS_BIND), os.Mkdir(root+"/ram/proc", 0o755)); err != nil {
		t.Fatal(err)
	}
	f := newTest(t, Options{Root: root})
	ram := lookup(t, f, rootID, "ram")
	c := create(t, f, ram, "new", uint32(os.O_RDWR), 0o644)
	if st := write(f, c.Fh, 0, 0, "text"); st != fuse.OK {
		t.Error(st)
	}
	if id := listed(t, f, ram)["new"]; id != c.NodeId {
		t.Errorf("the list gives node %d, not %d", id, c.NodeId)
	}
	lookup(t, f, lookup(t, f, rootID, "bound"), "f")
	if err := mountAt(t, "none", root+"/ram/proc", "proc", 0); err != nil {
		t.Skipf("proc cannot be mounted here: %v", err)
	}
	h := header(ram)
	if st := f.Lookup(nil, &h, "proc", &fuse.EntryOut{}); st != fuse.EACCES {
		t.Errorf("below another mount: %v", st)
	}
}
