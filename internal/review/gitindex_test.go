package review

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// gitIn runs a script with git in a new repository, and returns a function that reads its files.
func gitIn(t *testing.T, script string) (read func(name string) string) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git")
	}
	dir := t.TempDir()
	c := exec.CommandContext(t.Context(), "/bin/sh", "-ec", script)
	c.Dir = dir
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@x.test", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@x.test"}
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
}

// TestAttackFilesThatGitStatusLeavesOut: the guest marks files in the index, in each of its forms, as unchanged or as
// not checked out, so that git on the host shows no change of them. The review tells them.
func TestAttackFilesThatGitStatusLeavesOut(t *testing.T) {
	const repository = `; mkdir -p deep/er; for i in 1 2 3 4 5 6 7 8 9 10; do echo $i >f$i; echo $i >deep/er/f$i; done; touch Makefile "$(printf %0300d 1 | cut -c1-250)"; git add .; git commit -qm one; cp .git/index before; `
	for name, begin := range map[string]string{
		"version 2": `git init -q .`, "version 3": `git init -q .; git config index.version 3`, "version 4": `git init -q .; git config index.version 4`,
		"SHA-256": `git init -q --object-format=sha256 .`, "SHA-256, version 4": `git init -q --object-format=sha256 .; git config index.version 4`,
		"untracked cache": `git init -q .; git config core.untrackedCache true`,
	} {
		for how, mark := range map[string]string{"--assume-unchanged": "assume", "--skip-worktree": "skip"} {
			t.Run(name+", "+mark, func(t *testing.T) {
				read := gitIn(t, begin+repository+`git update-index --skip-worktree f1; git update-index --no-split-index; cp .git/index before
					git update-index `+how+` Makefile deep/er/f7; echo evil >Makefile; git status --porcelain -uno >status; test ! -s status`)
				f := &Finder{Src: files{".git/index": {read("before"), read(".git/index")}}}
				c := changed(".git/index", 0o644, 0o644)
				var got []string
				for _, v := range f.Find(&c) {
					got = append(got, v.Why)
				}
				if want := "git status leaves out changes of Makefile, deep/er/f7 ("; len(got) != 1 || !strings.HasPrefix(got[0], want) {
					t.Errorf("%q, want %q", got, want)
				}
				// Ordinary work tells nothing.
				f = &Finder{Src: files{".git/index": {read(".git/index"), read("before")}}}
				if got := f.Find(&c); len(got) != 0 {
					t.Errorf("ordinary work: %v", got)
				}
			})
		}
	}
}

// TestAttackFilesOfASplitIndex: the same where most of the index lies in a second file (git-update-index(1), SPLIT INDEX).
func TestAttackFilesOfASplitIndex(t *testing.T) {
	for _, how := range []string{"--assume-unchanged", "--skip-worktree"} {
		read := gitIn(t, `git init -q .; for i in $(seq 200); do echo $i >f$i; done; touch Makefile; git add .; git commit -qm one; git update-index --split-index; git update-index --skip-worktree f3
			cp .git/index before; ls .git/sharedindex.* >shared; git update-index `+how+` Makefile f7; ls .git/sharedindex.* >>shared; echo evil >Makefile; git status --porcelain -uno >status; test ! -s status`)
		src, old := files{".git/index": {read("before"), read(".git/index")}}, strings.Fields(read("shared"))[0]
		for _, name := range strings.Fields(read("shared")) {
			if name != old {
				src[name] = [2]string{"", read(name)}
			}
		}
		f := &Finder{Src: src}
		var got string
		for name := range src {
			c := changed(name, 0o644, 0o644)
			for _, v := range f.Find(&c) {
				got += v.Why
			}
		}
		if !strings.Contains(got, "git status leaves out changes of ") || !strings.Contains(got, "Makefile") && !strings.Contains(got, "files of its shared part") {
			t.Errorf("%s: %q", how, got)
		}
	}
}

// TestAttackReplacedCommits: the guest replaces a commit, and packs the reference into the list of all.
func TestAttackReplacedCommits(t *testing.T) {
	read := gitIn(t, `git init -q .; for i in 1 2 3; do echo $i >f; git add f; git commit -qm $i; done; git pack-refs --all; cp .git/packed-refs before
		git replace HEAD~1 HEAD~2; git pack-refs --all; test -z "$(find .git/refs -type f)"; git log --format=%s >log; ! grep -qx 2 log; git branch more; cp .git/packed-refs mid; git pack-refs --all`)
	c := changed(".git/packed-refs", 0o644, 0o644)
	for name, test := range map[string]struct {
		was, now string
		want     int
	}{
		"replaced": {read("before"), read(".git/packed-refs"), 1}, "a new list": {"", read(".git/packed-refs"), 1}, "a branch more": {read("mid"), read(".git/packed-refs"), 0}, "ordinary": {read("before"), read("before"), 0},
	} {
		f := &Finder{Src: files{".git/packed-refs": {test.was, test.now}}}
		if got := f.Find(&c); len(got) != test.want || test.want == 1 && got[0].Why != replaced {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestAnIndexThatCannotBeRead: of a hostile guest, is told and takes no time.
func TestAnIndexThatCannotBeRead(t *testing.T) {
	read := gitIn(t, `git init -q .; for i in 1 2 3 4 5 6; do echo >f$i; done; git add .; git update-index --assume-unchanged f2; cp .git/index index; git update-index --index-version 4`)
	for _, data := range []string{read("index"), read(".git/index")} {
		if names, ok := skippedIn([]byte(data)); !ok || !slices.Equal(names, []string{"f2"}) {
			t.Errorf("%q, %v", names, ok)
		}
		for n := range len(data) - 32 { // the end is a sum
			b := []byte(data)[:n]
			_, _ = skippedIn(b)
		}
		if _, ok := skippedIn([]byte(data)[:200]); ok {
			t.Error("what is cut off is an index")
		}
		b := []byte(data)
		copy(b[8:], "\xff\xff\xff\xff")
		if _, ok := skippedIn(b); ok {
			t.Error("it has four thousand million entries")
		}
	}
	c := changed(".git/index", 0o644, 0o644)
	for _, data := range []string{"", "x", "DIRC", "DIRC\x00\x00\x00\x09\x00\x00\x00\x00"} {
		f := &Finder{Src: files{".git/index": {"", data}}}
		if got := f.Find(&c); len(got) != 1 || !strings.Contains(got[0].Why, "cannot be read") {
			t.Errorf("%q: %v", data, got)
		}
	}
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte("DIRC\x00\x00\x00\x02\x00\x00\x00\x01" + strings.Repeat("\x00", 60) + "\x80\x01a\x00\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte("DIRC\x00\x00\x00\x04\x00\x00\x00\x01" + strings.Repeat("\x00", 60) + "\x80\x01\x00a\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		names, ok := skippedIn(b)
		if ok && !slices.IsSorted(names) || !ok && names != nil {
			t.Errorf("%q, %v", names, ok)
		}
		for _, name := range names {
			if name != "" && !bytes.Contains(b, []byte(name[len(name)-1:])) {
				t.Error(errors.New(fmt.Sprint("made up: ", name)))
			}
		}
	})
}
