package guest

import (
	"os"
	"path/filepath"
	"testing"
)

// TestTimezoneIsTheHostsUntilOneIsChosen starts a system again and again.
func TestTimezoneIsTheHostsUntilOneIsChosen(t *testing.T) {
	const berlin, tokyo = zoneinfo + "/Europe/Berlin", zoneinfo + "/Asia/Tokyo"
	relink := func(target string) func(root string) error {
		return func(root string) error {
			_ = os.Remove(root + "/etc/localtime")
			return os.Symlink(target, root+"/etc/localtime")
		}
	}
	write := func(file, text string) func(root string) error {
		return func(root string) error {
			_ = os.Remove(root + file)
			return os.WriteFile(root+file, []byte(text), 0o644)
		}
	}
	for name, c := range map[string]struct {
		edit                func(root string) error // by the administrator, after the first start
		next                string                  // the host's zone at the second
		localtime, timezone string                  // after it
	}{
		"untouched":                       {nil, "Europe/Berlin", berlin, "Europe/Berlin\n"},
		"the host moved":                  {nil, "Asia/Tokyo", tokyo, "Asia/Tokyo\n"},
		"the host moved out of the image": {nil, "Mars/Olympus", berlin, "Europe/Berlin\n"},
		"a folder of zones":               {nil, "Asia", berlin, "Europe/Berlin\n"},
		"a path out of the folder":        {nil, "../../../etc/passwd", berlin, "Europe/Berlin\n"},
		"no zone":                         {nil, "", berlin, "Europe/Berlin\n"},
		"another link":                    {relink("../usr/share/zoneinfo/Asia/Tokyo"), "Europe/Berlin", "../usr/share/zoneinfo/Asia/Tokyo", "Europe/Berlin\n"},
		"another name":                    {write("/etc/timezone", "Etc/UTC\n"), "Asia/Tokyo", berlin, "Etc/UTC\n"},
		"a copy of a zone's file":         {write("/etc/localtime", "TZif2"), "Asia/Tokyo", "", "Europe/Berlin\n"},
		"an earlier bawn's":               {func(root string) error { return os.Remove(root + ownTimezone) }, "Asia/Tokyo", tokyo, "Asia/Tokyo\n"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for _, file := range []string{berlin, tokyo, "/etc/passwd"} {
				if err := os.MkdirAll(filepath.Dir(root+file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(root+file, []byte("TZif2"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if err := setTimezone(root, "Europe/Berlin"); err != nil {
				t.Fatal(err)
			}
			if c.edit != nil {
				if err := c.edit(root); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				if err := setTimezone(root, c.next); err != nil {
					t.Fatal(err)
				}
			}
			target, _ := os.Readlink(root + "/etc/localtime") // "" for a file
			name, err := os.ReadFile(root + "/etc/timezone")
			if target != c.localtime || string(name) != c.timezone || err != nil {
				t.Errorf("%q, %q, %v; want %q, %q", target, name, err, c.localtime, c.timezone)
			}
		})
	}
}
