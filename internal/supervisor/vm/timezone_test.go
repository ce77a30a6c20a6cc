package vm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/qemu"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/wire"
)

func TestTimezone(t *testing.T) {
	const berlin = "/usr/share/zoneinfo/Europe/Berlin"
	for name, c := range map[string]struct{ tz, localtime, timezone, want string }{
		"the variable":           {"Asia/Tokyo", "Europe/Berlin", "UTC\n", "Asia/Tokyo"},
		"with a colon":           {":Asia/Tokyo", "", "", "Asia/Tokyo"},
		"a file":                 {":" + berlin, "", "", "Europe/Berlin"},
		"a rule":                 {"CET-1CEST,M3.5.0,M10.5.0/3", "Europe/Berlin", "", "Europe/Berlin"},
		"a rule in brackets":     {"<+03>-3", "Europe/Berlin", "", "Europe/Berlin"},
		"leads elsewhere":        {"../../etc/passwd", "Europe/Berlin", "", "Europe/Berlin"},
		"a path":                 {"/etc/localtime", "Europe/Berlin", "", "Europe/Berlin"},
		"the link":               {"", "Etc/GMT+5", "Asia/Tokyo\n", "Etc/GMT+5"},
		"the file of the name":   {"", "", "America/Argentina/Buenos_Aires\n", "America/Argentina/Buenos_Aires"},
		"a copy and the name":    {"", "copy", " Europe/Berlin \n", "Europe/Berlin"},
		"a name that is no name": {"", "", "Europe/Berlin; x\n", ""},
		"long":                   {"", "", strings.Repeat("a", 500) + "/\n", ""},
		"nothing":                {"", "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			etc := t.TempDir()
			zones := filepath.Join(t.TempDir(), "zoneinfo")
			write := func(path, text string) {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			switch c.localtime {
			case "":
			case "copy":
				write(etc+"/localtime", "TZif2")
			default:
				write(filepath.Join(zones, c.localtime), "TZif2")
				if err := os.Symlink(filepath.Join(zones, c.localtime), etc+"/localtime"); err != nil {
					t.Fatal(err)
				}
			}
			if c.timezone != "" {
				write(etc+"/timezone", c.timezone)
			}
			if got := timezone(c.tz, etc); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// TestKindHasNoTimezone: a sandbox that was suspended is resumed in another time zone.
func TestKindHasNoTimezone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	spec := &sandbox.Spec{}
	spec.Boot.Image, spec.Boot.Modules = file, file
	kind := func(setup wire.SetupRequest) string {
		t.Helper()
		k, err := Kind(qemu.Binary{Path: file}, &qemu.Machine{Kernel: file, Initrd: file}, spec, setup)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	at := kind(wire.SetupRequest{Timezone: "Europe/Berlin"})
	if kind(wire.SetupRequest{Timezone: "Asia/Tokyo"}) != at {
		t.Error("the time zone counts")
	}
	if kind(wire.SetupRequest{Timezone: "Europe/Berlin", User: wire.User{Name: "other"}}) == at {
		t.Error("the user does not count")
	}
}
