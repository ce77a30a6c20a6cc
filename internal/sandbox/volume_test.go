package sandbox

import (
	"slices"
	"strings"
	"testing"
)

func TestParseVolume(t *testing.T) {
	for text, want := range map[string]Volume{
		"cache:/var/cache":    {Name: "cache", Guest: "/var/cache"},
		"a:/b/../c/":          {Name: "a", Guest: "/c"},
		"npm:~/.npm/:ro":      {Name: "npm", Guest: "~/.npm", Mode: ReadOnly},
		"a:/b:ro":             {Name: "a", Guest: "/b", Mode: ReadOnly},
		"a:/b:rw":             {Name: "a", Guest: "/b"},
		"a:/with space/${b}x": {Name: "a", Guest: "/with space/${b}x"},
	} {
		if v, err := ParseVolume(text); err != nil || v != want {
			t.Errorf("%s: %+v, %v", text, v, err)
		}
	}
	for text, say := range map[string]string{
		"":                              "write NAME:/PATH",
		"cache":                         "write NAME:/PATH",
		"cache:":                        "write NAME:/PATH",
		":/x":                           "invalid volume name",
		"/data:/x":                      "--mount",
		"./data:/x":                     "--mount",
		"~/data:/x":                     "--mount",
		"Cache:/x":                      "invalid volume name",
		"a:b":                           "must be absolute",
		"a:/":                           "must be absolute",
		"a:~/":                          "must be absolute",
		"a:~/../x":                      "must be absolute",
		"a:~you/x":                      "must be absolute",
		"a:/..":                         "must be absolute",
		"a:/b:rx":                       "write NAME:/PATH",
		"a:/b:ro:ro":                    "write NAME:/PATH",
		"a\n:/b":                        "invalid volume name",
		strings.Repeat("a", 64) + ":/x": "invalid volume name",
	} {
		if v, err := ParseVolume(text); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("%s: %+v, %v; want %q", text, v, err, say)
		}
	}
}

func TestVolumeInHome(t *testing.T) {
	for path, want := range map[string]string{"~/.npm": "/home/me/.npm", "/x/~/y": "/x/~/y"} {
		if v := (Volume{Name: "a", Guest: path}).InHome("/home/me"); v.Guest != want {
			t.Errorf("%s: %s", path, v.Guest)
		}
	}
}

// TestVolumesOfSpec: volumes that would hide each other, a share or a place of the guest's own
// are errors, and those that lie in each other are mounted from the outside in.
func TestVolumesOfSpec(t *testing.T) {
	spec := func(volumes ...Volume) *Spec {
		return &Spec{
			Name: "a", Dir: "/home/me/p", Project: Source{Host: "/home/me/p", Guest: "/home/me/p"}, CPUs: 1, Memory: MinMemory, Disk: MinDisk,
			Mounts: []Source{{Host: "/srv/x", Guest: "/srv/x"}}, Volumes: volumes,
		}
	}
	for say, volumes := range map[string][]Volume{
		"invalid volume name":                      {{Name: "../a", Guest: "/x"}},
		"is not an absolute path":                  {{Name: "a", Guest: "~/x"}},
		"the guest needs its own /etc":             {{Name: "a", Guest: "/etc"}},
		"the guest needs its own /proc":            {{Name: "a", Guest: "/proc/x"}},
		"the guest needs its own /opt/bawn":        {{Name: "a", Guest: "/opt/bawn/home/claude"}},
		"is given twice":                           {{Name: "a", Guest: "/x"}, {Name: "a", Guest: "/y"}},
		"another volume is at /x":                  {{Name: "a", Guest: "/x"}, {Name: "b", Guest: "/x"}},
		"would hide /home/me/p":                    {{Name: "a", Guest: "/home/me"}},
		"would hide /home/me/p, which":             {{Name: "a", Guest: "/home/me/p"}},
		"would hide /srv/x, which is shared at /s": {{Name: "a", Guest: "/srv"}},
	} {
		if err := spec(volumes...).Check(); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("%v: %v, want %q", volumes, err, say)
		}
	}
	list := []Volume{{Name: "c", Guest: "/x/y/z"}, {Name: "d", Guest: "/x-y"}, {Name: "b", Guest: "/home/me/p/build"}, {Name: "a", Guest: "/x", Mode: ReadOnly}}
	SortVolumes(list)
	s := spec(list...)
	if err := s.Check(); err != nil {
		t.Error(err)
	}
	if n := len(s.Sources()); n != 2 {
		t.Errorf("%d sources before a start has found the volumes", n)
	}
	s.Boot.Volumes = "/state/volumes"
	s.Agents = []Agent{{Name: "claude", Programs: "/p", Home: "/h"}}
	var guests []string
	for _, m := range s.Sources() {
		guests = append(guests, m.Guest)
	}
	if at := slices.Index(guests, "/x"); at < 2 || at > slices.Index(guests, "/x/y/z") || guests[len(guests)-1] != AgentHomes+"/claude" {
		t.Errorf("mounted in the order %q", guests)
	}
	if m := s.Sources()[slices.Index(guests, "/x")]; m.Host != "/state/volumes/a/data" || !m.ReadOnly() {
		t.Errorf("%+v", m)
	}
}
