package sandbox

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Volume is the place of a named volume in a guest. The volume itself is a directory of the host
// that bawn owns (package volume); it outlasts the sandboxes that use it.
type Volume struct {
	Name  string `json:"name"`
	Guest string `json:"guest"` // path in the guest, absolute in a Spec
	Mode  Mode   `json:"mode,omitempty"`
}

// VolumeData is the directory of a volume's folder that guests see.
const VolumeData = "data"

// ReadOnly reports whether the guest may only read the volume.
func (v Volume) ReadOnly() bool { return v.Mode == ReadOnly }

func (v Volume) String() string {
	s := v.Name + ":" + v.Guest
	if v.ReadOnly() {
		s += ":ro"
	}
	return s
}

// CheckVolumeName returns an error unless a volume can have the name. The rule is that of
// CheckName.
func CheckVolumeName(name string) error { return checkName("volume", name) }

// ParseVolume reads NAME:PATH[:ro]. The path is absolute, or begins with ~/ for the home directory
// of the guest's user, which InHome resolves.
func ParseVolume(s string) (Volume, error) {
	name, rest, _ := strings.Cut(s, ":")
	v := Volume{Name: name}
	if strings.ContainsAny(name, "/~.") {
		return v, fmt.Errorf("volume %q: a volume has a name, not a path; to share a directory of the host write --mount %s", s, s)
	}
	path, mode, hasMode := strings.Cut(rest, ":")
	if hasMode && mode != "ro" && mode != "rw" || path == "" {
		return v, fmt.Errorf("volume %q: write NAME:/PATH or NAME:/PATH:ro", s)
	}
	if mode == "ro" {
		v.Mode = ReadOnly
	}
	if err := CheckVolumeName(name); err != nil {
		return v, fmt.Errorf("volume %q: %w", s, err)
	}
	if inHome, ok := strings.CutPrefix(path, "~/"); ok && filepath.IsLocal(inHome) {
		v.Guest = "~/" + filepath.Clean(inHome)
		return v, nil
	}
	if v.Guest = filepath.Clean(path); !filepath.IsAbs(v.Guest) || v.Guest == "/" {
		return v, fmt.Errorf("volume %q: the path in the guest must be absolute and below /, or below ~/", s)
	}
	return v, nil
}

// InHome returns the volume with its path resolved if that begins with ~/. home is that of the guest's
// user.
func (v Volume) InHome(home string) Volume {
	if rest, ok := strings.CutPrefix(v.Guest, "~/"); ok {
		v.Guest = filepath.Join(home, rest)
	}
	return v
}

// volumeSources returns the directories of the volumes as the guest sees them, in the order in
// which they are mounted; none before a start has found the volumes.
func (s *Spec) volumeSources() (list []Source) {
	if s.Boot.Volumes == "" {
		return nil
	}
	for _, v := range s.Volumes {
		list = append(list, Source{Host: filepath.Join(s.Boot.Volumes, v.Name, VolumeData), Guest: v.Guest, Mode: v.Mode})
	}
	return list
}

// SortVolumes puts volumes into the order in which they are mounted: one that lies in another
// follows it.
func SortVolumes(list []Volume) {
	slices.SortStableFunc(list, func(a, b Volume) int { return strings.Compare(a.Guest+"/", b.Guest+"/") })
}

// checkVolumes is checkMounts for volumes, which are mounted after the mounts.
func (s *Spec) checkVolumes() error {
	names, places := map[string]bool{}, map[string]bool{}
	for _, v := range s.Volumes {
		if err := CheckVolumeName(v.Name); err != nil {
			return badField("volumes", "%s: %v", v, err)
		}
		if !filepath.IsAbs(v.Guest) {
			return badField("volumes", "%s: %s is not an absolute path", v, v.Guest)
		}
		if err := checkTarget(v.Guest); err != nil {
			return badField("volumes", "%s: %v", v, err)
		}
		if names[v.Name] {
			return badField("volumes", "%s: the volume %s is given twice", v, v.Name)
		}
		if places[v.Guest] {
			return badField("volumes", "%s: another volume is at %s", v, v.Guest)
		}
		names[v.Name], places[v.Guest] = true, true
		for _, m := range s.Shared() {
			if Beneath(v.Guest, m.Guest) {
				return badField("volumes", "%s: it would hide %s, which is shared at %s: choose another path in the guest", v, m.Host, m.Guest)
			}
		}
	}
	return nil
}
