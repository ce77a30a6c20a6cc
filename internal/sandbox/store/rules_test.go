package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sandbox"
)

// TestAttackRulesBehindALink: rules are read and written through links; a link that leads
// nowhere, and what is no file, is never taken for "no rules".
func TestAttackRulesBehindALink(t *testing.T) {
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		make func(dir, file string) // the folder of file is not there yet
		want int                    // rules
		say  string                 // of the error
	}{
		"nothing":        {func(string, string) {}, 0, ""},
		"an empty place": {func(_, file string) { do(os.Mkdir(filepath.Dir(file), 0o700)) }, 0, ""},
		"a link": {func(dir, file string) {
			do(os.Mkdir(filepath.Dir(file), 0o700))
			do(os.WriteFile(filepath.Join(dir, "dotfile"), []byte("deny a.test\n"), 0o644))
			do(os.Symlink("../dotfile", file))
		}, 1, ""},
		"a link to a link": {func(dir, file string) {
			do(os.Mkdir(filepath.Dir(file), 0o700))
			do(os.WriteFile(filepath.Join(dir, "dotfile"), []byte("deny a.test\n"), 0o644))
			do(os.Symlink("dotfile", filepath.Join(dir, "second")))
			do(os.Symlink("../second", file))
		}, 1, ""},
		"a linked folder": {func(dir, file string) {
			do(os.Mkdir(filepath.Join(dir, "dots"), 0o700))
			do(os.WriteFile(filepath.Join(dir, "dots", "policy"), []byte("deny a.test\n"), 0o644))
			do(os.Symlink("dots", filepath.Dir(file)))
		}, 1, ""},
		"a dangling link": {func(_, file string) {
			do(os.Mkdir(filepath.Dir(file), 0o700))
			do(os.Symlink("../dotfile", file))
		}, 0, "does not exist"},
		"a link to a dangling link": {func(dir, file string) {
			do(os.Mkdir(filepath.Dir(file), 0o700))
			do(os.Symlink("gone", filepath.Join(dir, "second")))
			do(os.Symlink("../second", file))
		}, 0, "does not exist"},
		"a dangling folder": {func(_, file string) { do(os.Symlink("gone", filepath.Dir(file))) }, 0, "does not exist"},
		"a loop": {func(_, file string) {
			do(os.Mkdir(filepath.Dir(file), 0o700))
			do(os.Symlink("policy", file))
		}, 0, "too many"},
		"a pipe": {func(_, file string) {
			do(os.Mkdir(filepath.Dir(file), 0o700))
			do(unix.Mkfifo(file, 0o600))
		}, 0, "not a regular file"},
		"a link to a pipe": {func(dir, file string) {
			do(os.Mkdir(filepath.Dir(file), 0o700))
			do(unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
			do(os.Symlink("../pipe", file))
		}, 0, "not a regular file"},
		"a link to a folder": {func(_, file string) {
			do(os.Mkdir(filepath.Dir(file), 0o700))
			do(os.Symlink(".", file))
		}, 0, "not a regular file"},
	} {
		dir := t.TempDir()
		file := filepath.Join(dir, "bawn", "policy")
		c.make(dir, file)
		rules, err := RulesIn(file)
		if len(rules) != c.want || (err == nil) != (c.say == "") || err != nil && !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v, %v", name, rules, err)
		}
		link, _ := os.Readlink(file)
		target, terr := filepath.EvalSymlinks(file)
		werr := errors.Join(MakeRulesFolder(file), WriteRules(file, []byte("deny b.test\n")))
		if (c.say == "does not exist" || c.say != "" && link != "") && werr == nil {
			t.Errorf("%s: written", name)
		}
		if now, _ := os.Readlink(file); link != now && c.say == "does not exist" || c.want > 0 && link != now {
			t.Errorf("%s: the link %q became %q", name, link, now)
		}
		if c.want > 0 {
			b, err := os.ReadFile(target)
			fi, serr := os.Stat(target)
			if terr != nil || werr != nil || err != nil || serr != nil || string(b) != "deny b.test\n" || link != "" && fi.Mode().Perm() != 0o644 {
				t.Errorf("%s: %q %v, %v %v %v %v", name, b, fi.Mode(), terr, werr, err, serr)
			}
		}
	}
}

// TestRemoveRules: after it there are no rules, and a link that leads somewhere stays.
func TestRemoveRules(t *testing.T) {
	dir := t.TempDir()
	target, link, dangling := filepath.Join(dir, "dotfile"), filepath.Join(dir, "link"), filepath.Join(dir, "dangling")
	if err := errors.Join(os.WriteFile(target, []byte("deny a.test\n"), 0o644), os.Symlink("dotfile", link), os.Symlink("gone", dangling)); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{link, dangling, target, filepath.Join(dir, "none")} {
		if err := RemoveRules(file); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if rules, err := RulesIn(file); file != link && (err != nil || len(rules) != 0) {
			t.Errorf("%s: %v, %v", file, rules, err)
		}
	}
	if to, err := os.Readlink(link); err != nil || to != "dotfile" {
		t.Errorf("the link: %q, %v", to, err)
	}
	if _, err := os.Lstat(dangling); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the dangling link: %v", err)
	}
}

// TestAGuestDoesNotWriteItsOwnRules: a link leads the rules into a directory that is shared
// with a guest, or through a link that lies in one.
func TestAGuestDoesNotWriteItsOwnRules(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	shared, own := filepath.Join(dir, "shared"), filepath.Join(dir, "own")
	for _, d := range []string{filepath.Join(shared, "sub"), own} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for f, text := range map[string]string{shared + "/sub/rules": "allow **\n", own + "/rules": "allow a.test\n"} {
		if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{
		os.Symlink(own+"/rules", shared+"/link"), os.Symlink(own, shared+"/folder"), os.Symlink("../shared/sub", own+"/into"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		mode sandbox.Mode
		link string
		held bool
	}{
		"a file in a share":           {sandbox.ReadWrite, shared + "/sub/rules", true},
		"by a link of a folder":       {sandbox.ReadWrite, own + "/into/rules", true},
		"through a link in a share":   {sandbox.ReadWrite, shared + "/link", true},
		"through a folder in a share": {sandbox.ReadWrite, shared + "/folder/rules", true},
		"a file that is not shared":   {sandbox.ReadWrite, own + "/rules", false},
		"a share that is only read":   {sandbox.ReadOnly, shared + "/sub/rules", false},
		"no link at all":              {sandbox.ReadWrite, "", false},
	} {
		s := store(t)
		other := &sandbox.Spec{ID: sandbox.NewID(), Name: "other", Dir: shared, Project: sandbox.Source{Host: shared, Guest: shared, Mode: c.mode}}
		mine := &sandbox.Spec{ID: sandbox.NewID(), Name: "mine", Dir: own + "/none", Project: sandbox.Source{Host: own + "/none", Guest: own}}
		for _, spec := range []*sandbox.Spec{other, mine} {
			if _, err := s.Create(spec); err != nil {
				t.Fatal(err)
			}
		}
		d := s.Dir("mine")
		if c.link != "" {
			if err := os.Symlink(c.link, d.File(PolicyFile)); err != nil {
				t.Fatal(err)
			}
		}
		rules, err := d.Rules()
		if c.held != (err != nil) || c.held && (len(rules) > 0 || !strings.Contains(err.Error(), "guest of sandbox other can write")) {
			t.Errorf("%s: %v, %v", name, rules, err)
		}
	}
}
