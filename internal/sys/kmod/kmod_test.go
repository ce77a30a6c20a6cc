package kmod

import (
	"slices"
	"strings"
	"testing"
)

const dep = `kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko
kernel/fs/jbd2/jbd2.ko: kernel/lib/crc16.ko
kernel/lib/crc16.ko:
kernel/drivers/block/virtio-blk.ko:
no colon
`

func TestNames(t *testing.T) {
	for file, want := range map[string]string{
		"kernel/drivers/virtio/virtio-pci.ko":    "virtio_pci",
		"kernel/drivers/virtio/virtio_pci.ko.xz": "virtio_pci",
		"ext4":                                   "ext4",
	} {
		if got := Name(file); got != want {
			t.Errorf("Name(%q) = %q", file, got)
		}
	}
	if got := Underscored("acpi*:a-b[0-9]-c"); got != "acpi*:a_b[0-9]_c" {
		t.Errorf("%q", got)
	}
}

func TestLoadOrder(t *testing.T) {
	deps, err := ReadDeps(strings.NewReader(dep))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ names, want string }{
		{"virtio_blk", "kernel/drivers/block/virtio-blk.ko"},
		{"ext4", "kernel/lib/crc16.ko kernel/fs/jbd2/jbd2.ko kernel/fs/ext4/ext4.ko"},
		{"jbd2 ext4", "kernel/lib/crc16.ko kernel/fs/jbd2/jbd2.ko kernel/fs/ext4/ext4.ko"},
		{"", ""},
	} {
		got, err := deps.LoadOrder(strings.Fields(c.names)...)
		if err != nil || !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("%s: %v, %v", c.names, got, err)
		}
	}
	if _, err := deps.LoadOrder("ext4", "none"); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("a module that is not there: %v", err)
	}
}

func TestReadBuiltin(t *testing.T) {
	got, err := ReadBuiltin(strings.NewReader("kernel/fs/fuse/fuse.ko\n\nkernel/drivers/virtio/virtio-ring.ko\n"))
	if err != nil || len(got) != 2 || !got["fuse"] || !got["virtio_ring"] {
		t.Errorf("%v, %v", got, err)
	}
}

func TestMatchAlias(t *testing.T) {
	const alias = `# Aliases
alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio-pci
alias fs-ext4 ext4
alias fs-ext[2-4] old
alias bad[ x
alias too few fields here
`
	for name, want := range map[string]string{
		"pci:v00001AF4d00001000sv0sd0bc2sc0i0": "virtio_pci",
		"fs-ext4":                              "ext4 old",
		"fs_ext3":                              "old",
		"none":                                 "",
	} {
		got, err := MatchAlias(strings.NewReader(alias), name)
		if err != nil || !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestLinesTooLong(t *testing.T) {
	if _, err := ReadDeps(strings.NewReader(strings.Repeat("x", 1<<20))); err == nil {
		t.Error("a line of a megabyte")
	}
}
