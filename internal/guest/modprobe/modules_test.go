package modprobe

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestModulesInOrder(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/modules.dep", []byte("k/a-b.ko: k/c.ko k/d.ko\nk/c.ko: k/d.ko\nk/d.ko:\nk/e.ko.xz:\n"), 0o644))
	must(t, os.WriteFile(dir+"/modules.alias", []byte("# comment\nalias net-pf-10 c\nalias pci:v00001AF4d*sv* e\nalias char-major-10-[0-9] d\n"), 0o644))
	for name, want := range map[string]string{
		"a_b":                   "k/d.ko k/c.ko k/a-b.ko",
		"a-b":                   "k/d.ko k/c.ko k/a-b.ko",
		"net-pf-10":             "k/d.ko k/c.ko",
		"pci:v00001AF4d1000sv1": "k/e.ko.xz",
		"char-major-10-7":       "k/d.ko",
	} {
		got, err := filesToLoad(dir, name)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := filesToLoad(dir, "unknown"); err == nil {
		t.Error("an unknown name was found")
	}
}

func TestDeviceNodes(t *testing.T) {
	for line, want := range map[string]deviceNode{
		"tun net/tun c10:200":    {"net/tun", unix.S_IFCHR | 0o666, 10, 200},
		"loop loop-control b7:1": {"loop-control", unix.S_IFBLK | 0o600, 7, 1},
	} {
		if got, ok := parseNode(line); !ok || got != want {
			t.Errorf("%s: %+v, %v", line, got, ok)
		}
	}
	for _, line := range []string{"", "# Device nodes to trigger on-demand module loading.", "x ../x c1:2", "x y c1", "x y p1:2", "x y c1:z", "x /abs c1:2"} {
		if got, ok := parseNode(line); ok {
			t.Errorf("%q: %+v", line, got)
		}
	}
}

// TestNodesForAll: everyone may open /dev/fuse, also where the kernel has its driver built in, and no
// file that is no device gets other permissions.
func TestNodesForAll(t *testing.T) {
	dev := t.TempDir()
	if err := unix.Mknod(dev+"/fuse", unix.S_IFCHR|0o600, int(unix.Mkdev(10, 229))); err != nil {
		t.Skip("no device files can be made here: ", err)
	}
	must(t, os.Mkdir(dev+"/net", 0o755))
	must(t, os.WriteFile(dev+"/net/tun", nil, 0o600))
	must(t, MakeNodes(dev, dev))
	for name, want := range map[string]os.FileMode{"fuse": 0o666, "net/tun": 0o600} {
		if fi, err := os.Lstat(dev + "/" + name); err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, fi, err)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
