package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sandbox"
)

// A linked worktree (git-worktree(1)) and a submodule have no directory .git but a file, which
// names the directory that has the repository (gitrepository-layout(5)). It usually lies in
// another project, so the guest does not have it, and git does not work there. The file is
// the guest's to write: nothing is done with the path but to show it, and only where it leads
// to a repository. Else a project could make bawn advise to share ~/.ssh or the home directory.

// gitLink is what a file .git says.
type gitLink struct {
	dir  string // that is named
	need string // directory without which git does not work: dir, or a worktree's repository
	repo string // repository that it is a worktree or a submodule of
	what string // "a linked worktree", "a submodule" or "a working tree"
}

// maxGitLink bounds a file .git, in bytes: "gitdir: ", the longest path, and an end of line.
const maxGitLink = 8 + unix.PathMax + 2

// readGitLink reads the file .git of a directory. ok is false where there is none, where it is
// no regular file, and where what it names is not git's.
func readGitLink(dir string) (l gitLink, ok bool) {
	text, err := readLine(filepath.Join(dir, ".git"))
	if err != nil {
		return l, false
	}
	if l, ok = parseGitLink(dir, text); !ok {
		return l, false
	}
	fi, err := os.Lstat(l.dir)
	return l, err == nil && fi.IsDir() && isRepository(l.need)
}

// isRepository reports whether a directory has what git asks of a repository
// (gitrepository-layout(5)): HEAD, objects and refs.
func isRepository(dir string) bool {
	for _, name := range []string{"objects", "refs"} {
		if fi, err := os.Stat(filepath.Join(dir, name)); err != nil || !fi.IsDir() {
			return false
		}
	}
	_, err := os.Lstat(filepath.Join(dir, "HEAD"))
	return err == nil
}

// parseGitLink reads the text of a file .git in a directory.
func parseGitLink(dir, text string) (l gitLink, ok bool) {
	path, ok := strings.CutPrefix(text, "gitdir: ")
	path = strings.TrimRight(path, "\r\n")
	if !ok || path == "" || strings.ContainsAny(path, "\x00\n") {
		return l, false
	}
	l.dir = absolute(dir, path)
	l.need, l.repo, l.what = l.dir, l.dir, "a working tree"
	if main := filepath.Dir(filepath.Dir(l.dir)); filepath.Base(filepath.Dir(l.dir)) == "worktrees" && main != "/" {
		l.need, l.repo, l.what = main, main, "a linked worktree"
	} else if super, _, ok := strings.Cut(l.dir, "/.git/modules/"); ok && super != "" {
		l.repo, l.what = super, "a submodule"
	}
	l.repo = strings.TrimSuffix(l.repo, "/.git")
	return l, true
}

// warnGitLink reports that git will not work in a new sandbox, because the project's repository
// is not shared with it.
func (e *Engine) warnGitLink(spec *sandbox.Spec) {
	l, ok := readGitLink(spec.Project.Host)
	if !ok || spec.NoShareGit || slices.ContainsFunc(spec.Shared(), func(m sandbox.Source) bool { return m.Host == m.Guest && sandbox.Beneath(m.Host, l.need) }) {
		return
	}
	if m, _, err := gitDirOf(spec.Project.Host); err == nil {
		e.notify(Notice{Reason: GitDirOutside, Sandbox: spec.Name, Path: m.Host,
			Text: fmt.Sprintf("git will not work in the sandbox, because the project is %s of %s, whose git directory is not shared", l.what, l.repo)})
		return
	}
	e.notify(Notice{Reason: RepositoryOutside, Sandbox: spec.Name, Path: l.need,
		Text: fmt.Sprintf("git will not work in the sandbox, because the project is %s of %s, which is not shared", l.what, l.repo)})
}
