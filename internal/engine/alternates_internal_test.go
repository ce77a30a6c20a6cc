package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/sandbox"
)

// TestObjectsOutside: a new sandbox's start tells from which repository git will miss objects.
func TestObjectsOutside(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := func(p string) string { return filepath.Join(root, p) }
	for _, d := range []string{"shop/.git", "cache.git", "shop/vendor/x.git"} {
		makeRepository(t, at(d))
	}
	if err := os.MkdirAll(at(".ssh/objects"), 0o755); err != nil {
		t.Fatal(err)
	}
	source := func(dir string) sandbox.Source { return sandbox.Source{Host: at(dir), Guest: at(dir)} }
	for _, test := range []struct {
		name, text string
		mounts     []sandbox.Source
		want       string
	}{
		{"absolute", at("cache.git/objects") + "\n", nil, "cache.git"},
		{"relative, after a comment", "# x\n../../../cache.git/objects\n", nil, "cache.git"},
		{"shared", at("cache.git/objects"), []sandbox.Source{source("cache.git")}, ""},
		{"shared at another place", at("cache.git/objects"), []sandbox.Source{{Host: at("cache.git"), Guest: "/mnt"}}, "cache.git"},
		{"in the project", at("shop/vendor/x.git/objects"), nil, ""},
		{"of no repository", at(".ssh/objects"), nil, ""},
		{"nothing there", at("gone/objects") + "\n\n\x00\n", nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			info := at("shop/.git/objects/info")
			if err := os.MkdirAll(info, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(info, "alternates"), []byte(test.text), 0o644); err != nil {
				t.Fatal(err)
			}
			var got []string
			e := &Engine{events: func(ev Event) {
				n := ev.(Notice)
				if n.Reason != ObjectsOutside || !strings.Contains(n.Text, "git will miss objects") {
					t.Errorf("%+v", n)
				}
				got = append(got, n.Path)
			}}
			e.warnAlternates(&sandbox.Spec{Name: "box", Project: source("shop"), Mounts: test.mounts})
			if want := strings.TrimSuffix(at(test.want), "/"); test.want == "" && len(got) > 0 || test.want != "" && (len(got) != 1 || got[0] != want) {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}
