package kernel

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// TestBootModules: the modules that the guest loads first are copied in load order, what
// they need before them and what is built in left out.
func TestBootModules(t *testing.T) {
	lib, out := t.TempDir(), t.TempDir()
	write(t, filepath.Join(lib, "modules.dep"), "kernel/a/virtio-blk.ko: kernel/b/virtio_ring.ko\nkernel/b/virtio_ring.ko:\nkernel/c/overlay.ko:\n")
	write(t, filepath.Join(lib, "modules.builtin"), "kernel/d/virtio_net.ko\n")
	for _, m := range []string{"a/virtio-blk", "b/virtio_ring", "c/overlay"} {
		write(t, filepath.Join(lib, "kernel", m+".ko"), m)
	}
	if err := copyBootModules(lib, out); err != nil {
		t.Fatal(err)
	}
	des, err := os.ReadDir(out)
	var got []string
	for _, de := range des {
		got = append(got, de.Name())
	}
	if want := []string{"00-virtio_ring.ko", "01-virtio-blk.ko", "02-overlay.ko"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	write(t, filepath.Join(lib, "modules.builtin"), "")
	if err := copyBootModules(lib, out); err == nil || !strings.Contains(err.Error(), "virtio_net") {
		t.Errorf("a module that is not there: %v", err)
	}
}

// TestModulesDisk: the same modules make the same disk.
func TestModulesDisk(t *testing.T) {
	var disks [2][]byte
	for i := range disks {
		lib := t.TempDir()
		write(t, filepath.Join(lib, "kernel", "a.ko"), "module a")
		write(t, filepath.Join(lib, "modules.dep"), "kernel/a.ko:\n")
		if err := os.Symlink("/nowhere", filepath.Join(lib, "build")); err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(t.TempDir(), "disk")
		if err := modulesDisk(lib, "6.0", out); err != nil {
			t.Fatal(err)
		}
		var err error
		if disks[i], err = os.ReadFile(out); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(disks[0], disks[1]) {
		t.Error("the two disks differ")
	}
	if !bytes.Contains(disks[0], []byte("module a")) {
		t.Error("the module is not on the disk")
	}
}

// TestUnpackTar: modules are decompressed beneath the tree, whatever the package calls
// them, and everything else is left out.
func TestUnpackTar(t *testing.T) {
	var x, z, pack bytes.Buffer
	xw, err1 := xz.NewWriter(&x)
	zw, err2 := zstd.NewWriter(&z)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	_, err1 = xw.Write([]byte("by xz"))
	_, err2 = zw.Write([]byte("by zstd"))
	if err := errors.Join(err1, err2, xw.Close(), zw.Close()); err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(&pack)
	for _, f := range []struct{ name, content string }{
		{"./boot/vmlinuz-6.0", "the kernel"},
		{"./usr/lib/modules/6.0/x.ko.xz", x.String()},
		{"./lib/modules/6.0/z.ko.zst", z.String()},
		{"./lib/modules/6.0/plain.ko", "plain"},
		{"./lib/modules/../../../../../escape", "out"},
		{"./etc/passwd", "root"},
	} {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Size: int64(len(f.content)), Mode: 0o644, Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "./lib/modules/link", Linkname: "/etc", Typeflag: tar.TypeSymlink}), w.Close()); err != nil {
		t.Fatal(err)
	}
	tree := t.TempDir()
	vmlinuz, err := unpackTar(&pack, tree)
	if err != nil || string(vmlinuz) != "the kernel" {
		t.Fatalf("%q, %v", vmlinuz, err)
	}
	got := map[string]string{}
	if err := filepath.WalkDir(tree, func(p string, de os.DirEntry, err error) error {
		if err != nil || de.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		name, _ := filepath.Rel(tree, p)
		got[name] = string(b)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	dir := "usr/lib/modules/6.0/"
	want := map[string]string{dir + "x.ko": "by xz", dir + "z.ko": "by zstd", dir + "plain.ko": "plain"}
	if len(got) != len(want) {
		t.Errorf("unpacked: %q", got)
	}
	for name, content := range want {
		if got[name] != content {
			t.Errorf("%s is %q, want %q", name, got[name], content)
		}
	}
}
