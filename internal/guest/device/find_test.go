package device

import (
	"os"
	"testing"

	"bawn.dev/bawn/internal/wire"
)

// fakeClass makes a folder as sysfs has them: a device each, with one attribute.
func fakeClass(t *testing.T, attribute string, devices map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, value := range devices {
		must(t, os.Mkdir(dir+"/"+name, 0o755))
		must(t, os.WriteFile(dir+"/"+name+"/"+attribute, []byte(value), 0o644))
	}
	must(t, os.Mkdir(dir+"/other", 0o755))
	return dir
}

func TestDevicesAreFoundByName(t *testing.T) {
	ports := fakeClass(t, "name", map[string]string{"vport1p1": wire.PortMux + "\n", "vport1p2": wire.PortControl + "\n"})
	if got := findPort(ports, wire.PortControl); got != "/dev/vport1p2" {
		t.Errorf("port: %q", got)
	}
	disks := fakeClass(t, "serial", map[string]string{"vda": "bawn-image", "vdb": "bawn-disk\x00\x00"})
	if got := diskOf(disks, "bawn-disk"); got != "/dev/vdb" {
		t.Errorf("disk: %q", got)
	}
	tags := fakeClass(t, "tag", map[string]string{"0": "share0\n"})
	if !hasTag(tags, "share0") || hasTag(tags, "share") {
		t.Error("tags")
	}
	none := t.TempDir()
	if findPort(none, "x") != "" || diskOf(none, "x") != "" || hasTag(none+"/missing", "x") {
		t.Error("found what is not there")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
