package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
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
