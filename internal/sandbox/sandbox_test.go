package sandbox

import (
	"strings"
	"testing"
)

func TestNameFor(t *testing.T) {
	for dir, want := range map[string]string{
		"/a/My Project": "my-project", "/": "sandbox", "/x/...": "sandbox", "/x/_api_v2_": "api-v2",
		"/x/" + strings.Repeat("a", 200): strings.Repeat("a", 50), "/x/日本": "sandbox",
	} {
		got := NameFor(dir)
		if got != want {
			t.Errorf("NameFor(%q) = %q, want %q", dir, got, want)
		}
		if err := CheckName(got); err != nil {
			t.Error(err)
		}
	}
}

func TestParsePort(t *testing.T) {
	for in, want := range map[string]Port{
		"3000": {Host: 3000, Guest: 3000}, "8080:80": {Host: 8080, Guest: 80}, "0:80": {Guest: 80},
	} {
		if got, err := ParsePort(in); err != nil || got != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	for _, bad := range []string{"", "0", "80:", ":80", "80:0", "65536", "-1", "http", "1:2:3", " 80"} {
		if got, err := ParsePort(bad); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

// TestProjectIsASource: where the project is in the guest is not where it is on the
// host, and both must be there for a spec to be right.
// TestPathsAreText: any path that JSON can hold is accepted, and no other.
func TestPathsAreText(t *testing.T) {
	for path, ok := range map[string]bool{
		"/src/it's \"odd\" $(x) `y` \\ %s,:;=#\n\t\x1b ü 日本 \u202e": true,
		"/src/l\xe9gume": false,
		"/src/\xff":      false,
		"/src/a\xc0\xaf": false,
	} {
		plain := Source{Host: "/plain", Guest: "/plain"}
		for _, m := range []Source{{Host: path, Guest: "/plain/x"}, {Host: "/plain/x", Guest: path}, {Host: path, Guest: path}} {
			for _, s := range []Spec{{Dir: m.Host, Project: m}, {Dir: "/plain", Project: plain, Mounts: []Source{m}}} {
				s.Name, s.CPUs, s.Memory, s.Disk = "box", 1, MinMemory, MinDisk
				if err := s.Check(); (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "not UTF-8") {
					t.Errorf("%q: %v", m, err)
				}
			}
		}
	}
}

func TestProjectIsASource(t *testing.T) {
	spec := func(host, guest string) *Spec {
		return &Spec{
			ID: "1", Name: "shop", Dir: "/src/shop", CPUs: 1, Memory: MinMemory, Disk: MinDisk,
			Project: Source{Host: host, Guest: guest},
			Mounts:  []Source{{Host: "/data", Guest: "/data", Mode: ReadOnly}},
		}
	}
	s := spec("/src/shop-copy", "/src/shop")
	if err := s.Check(); err != nil {
		t.Error(err)
	}
	if all := s.Sources(); len(all) != 2 || all[0] != s.Project || all[0].ReadOnly() || !all[1].ReadOnly() {
		t.Errorf("sources %+v", all)
	}
	for _, p := range []*Spec{spec("", "/src/shop"), spec("/src/shop", ""), spec("src", "/src/shop"), spec("/src/data", "/data")} {
		if err := p.Check(); err == nil {
			t.Errorf("%+v passes", p.Project)
		}
	}
}
