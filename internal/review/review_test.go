package review

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/undo"
)

// files is a Source.
type files map[string][2]string

func (f files) Before(c *undo.Change, _ int64) ([]byte, bool) { return []byte(f[c.Path][0]), true }
func (f files) Now(c *undo.Change, _ int64) ([]byte, bool)    { return []byte(f[c.Path][1]), true }

func made(path string, mode uint32) undo.Change {
	return undo.Change{Path: path, Was: undo.State{Kind: undo.Absent}, Now: undo.State{Kind: undo.File, Mode: mode, Size: 1}}
}

func changed(path string, was, now uint32) undo.Change {
	return undo.Change{Path: path, Was: undo.State{Kind: undo.File, Mode: was, Size: 1, Blob: "f1"}, Now: undo.State{Kind: undo.File, Mode: now, Size: 1}}
}

// TestFind: each class by name, permissions and contents.
func TestFind(t *testing.T) {
	src := files{
		"a/package.json":      {`{"scripts":{"a":"1"},"version":"1"}`, `{"scripts":{"a":"1","b":"2"},"version":"2","dependencies":{"x":"1"}}`},
		"package.json":        {`{"version":"1"}`, `{"version":"2"}`},
		"broken/package.json": {``, `{`},
		"key":                 {"", "-----BEGIN OPENSSH PRIVATE KEY-----\n"},
		"had":                 {"AKIAABCDEFGHIJKLMNOP x", "AKIAABCDEFGHIJKLMNOP y"},
		"text":                {"", "nothing of that kind: sk-ant"},
	}
	f := &Finder{Src: src, LeadsOut: func(_, target string) bool { return strings.HasPrefix(target, "/") }, Guarded: func(_, target string) bool { return target == ".git/config" }}
	link := func(target string) undo.Change {
		return undo.Change{Path: "l", Was: undo.State{Kind: undo.Absent}, Now: undo.State{Kind: undo.Link, Target: []byte(target)}}
	}
	accepted := made("Makefile", 0o644)
	accepted.Accepted = true
	for _, test := range []struct {
		change undo.Change
		want   string
	}{
		{made("main.go", 0o644), ""},
		{made("bin/x", 0o755), "executable: new executable"},
		{changed("bin/x", 0o755, 0o755), "executable: executable with new contents"},
		{changed("bin/x", 0o644, 0o755), "executable: was made executable"},
		{changed("bin/x", 0o755, 0o644), "mode: mode 0644, was 0755"},
		{changed("x", 0o600, 0o644), "mode: mode 0644, was 0600"},
		{made("sub/Makefile", 0o644), "build: new; make and its like run it"},
		{changed("sub/makefile", 0o644, 0o644), "build: make and its like run it"},
		{made("MAKEFILE", 0o644), "build: new; make and its like run it"},
		{made("Makefile.txt/x", 0o644), ""},
		{made(".github/workflows/x.yml", 0o644), "ci: new; runs in CI"},
		{made("sub/.github/workflows/x.yml", 0o644), "ci: new; runs in CI"},
		{made("workflows/x.yml", 0o644), ""},
		{made("go.sum", 0o644), "lock: new; chooses the packages that the host installs"},
		{made("vite.config.ts", 0o644), "build: new; tests, linters and editors run it"},
		{changed("a/package.json", 0o644, 0o644), "script: scripts: b; dependencies"},
		{changed("package.json", 0o644, 0o644), ""},
		{changed("broken/package.json", 0o644, 0o644), "script: its scripts cannot be read"},
		{made("key", 0o644), "secret: holds what looks like a key or a token"},
		{changed("had", 0o644, 0o644), ""},
		{made("text", 0o644), ""},
		{link("/etc"), "link: leads to /etc"},
		{link("x"), ""},
		{link(".git/config"), "link: leads to .git/config, which is guarded or hidden"},
		{made(".git/rebase-merge/git-rebase-todo", 0o644), "git: has commands that git runs when the rebase is continued"},
		{made("sub/.git/objects/info/alternates", 0o644), "git: lends objects of another repository"},
		{made(".git/objects/ab/cd", 0o755), ""},
		{made(".git/refs/heads/Makefile", 0o644), ""},
		{accepted, ""},
		{undo.Change{Path: "b", From: "a", Was: undo.State{Kind: undo.Dir}, Now: undo.State{Kind: undo.Dir}}, "moved: was a"},
		{undo.Change{Path: "p", Was: undo.State{Kind: undo.Absent}, Now: undo.State{Kind: undo.Other}}, "mode: a FIFO or a socket: what opens it waits"},
		{undo.Change{Path: "Makefile", Was: undo.State{Kind: undo.File}, Now: undo.State{Kind: undo.Absent}}, ""},
	} {
		var got []string
		for _, v := range f.Find(&test.change) {
			got = append(got, string(v.Class)+": "+v.Why)
		}
		if strings.Join(got, "; ") != test.want {
			t.Errorf("%s: %q, want %q", test.change.Path, got, test.want)
		}
	}
}

// TestFold: many findings below a new directory, or one of installed packages, are one; links and
// secrets stay.
func TestFold(t *testing.T) {
	list := []Finding{{Path: "node_modules/l", Class: LinkOut}}
	for i := range 20 {
		list = append(list, Finding{Path: fmt.Sprintf("a/node_modules/%d", i), Class: Executable}, Finding{Path: fmt.Sprintf("new/x/%d", i), Class: Build}, Finding{Path: fmt.Sprintf("old/%d", i), Class: Build})
	}
	got := fold(list, map[string]bool{"new": true, "new/x": true})
	if len(got) != 23 || !slices.Contains(got, list[0]) {
		t.Errorf("%d: %v", len(got), got)
	}
	for _, want := range []Finding{
		{Path: "a/node_modules/", Class: Executable, Why: "in this directory, such as 0", Paths: 20},
		{Path: "new/", Class: Build, Why: "in this directory, such as 0", Paths: 20},
	} {
		if !slices.Contains(got, want) {
			t.Errorf("no %+v", want)
		}
	}
}

// TestDiff: the difference is bounded, and is none of what is no text.
func TestDiff(t *testing.T) {
	if text, cut, note := Diff([]byte("a\nb\n"), []byte("a\nc\n")); text != "@@ -1,2 +1,2 @@\n a\n-b\n+c\n" || cut || note != "" {
		t.Errorf("%q, %v, %q", text, cut, note)
	}
	if _, _, note := Diff([]byte("a"), []byte{0}); note == "" {
		t.Error("binary contents have a difference")
	}
	text, cut, _ := Diff(nil, []byte(strings.Repeat("line\n", 100_000)))
	if !cut || len(text) > diffKept || !strings.HasSuffix(text, "\n") {
		t.Errorf("%d bytes, %v", len(text), cut)
	}
}
