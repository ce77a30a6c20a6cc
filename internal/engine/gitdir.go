package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/format/config"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/sys/regular"
)

// This file shares the git directory of a linked worktree or a submodule, which lies outside of
// the project (gitlink.go), at the same path, so that the file .git leads there in the guest too.
// A file .git may come with an archive, so both sides must name each other: the git directory
// of a worktree names its file .git, and the configuration of a submodule its working tree. What
// of a shared git directory the guest sees and changes, package guard decides (worktree.go).

// GitDirUnusable is the reason when the git directory of a project cannot be shared, or is not
// the one that was shared before.
const GitDirUnusable Reason = "git-dir-unusable"

// GitDir is a git directory outside of the project, which could be shared.
type GitDir struct {
	Path string // on the host
	What string // what the project is: "a linked worktree of /src/shop"
	// Outside means that it lies outside of the user's home directory, in which the project is.
	Outside bool
}

// GitOutside returns the git directory that a request's new sandbox lacks and that the user was
// not asked about, or nil.
func (e *Engine) GitOutside(r *Request) *GitDir {
	if _, err := e.existing(r); r.Change.ShareGit != nil || !store.IsNotFound(err) {
		return nil
	}
	m, what, err := gitDirOf(r.Dir)
	if err != nil || r.Change.Mounts != nil && covered(*r.Change.Mounts, m) {
		return nil
	}
	home, err := os.UserHomeDir()
	return &GitDir{Path: m.Host, What: what, Outside: err == nil && sandbox.Beneath(home, r.Dir) && !sandbox.Beneath(home, m.Host)}
}

// covered reports whether mounts hold what another one does, at the same place.
func covered(mounts []sandbox.Source, m sandbox.Source) bool {
	return slices.ContainsFunc(mounts, func(o sandbox.Source) bool {
		return !o.Git && o.Host == o.Guest && sandbox.Beneath(o.Host, m.Host) && !o.ReadOnly()
	})
}

// setMounts puts the mounts and the git directory of the change into the spec.
func (c *SpecChange) setMounts(s *sandbox.Spec) error {
	git := gitMounts(s.Mounts)
	if c.Mounts != nil {
		s.Mounts = slices.Concat(*c.Mounts, git)
	}
	if c.ShareGit == nil {
		return nil
	}
	s.NoShareGit = !*c.ShareGit
	s.Mounts = otherMounts(s.Mounts)
	if s.NoShareGit {
		return nil
	}
	m, _, err := gitDirOf(s.Project.Host)
	if err != nil {
		return &Error{Reason: GitDirUnusable, Sandbox: s.Name, Path: s.Project.Host, Err: fmt.Errorf("the git directory cannot be shared: %w", err)}
	}
	if !covered(s.Mounts, m) {
		s.Mounts = append(s.Mounts, m)
	}
	return nil
}

func gitMounts(list []sandbox.Source) []sandbox.Source {
	return slices.DeleteFunc(slices.Clone(list), func(m sandbox.Source) bool { return !m.Git })
}

func otherMounts(list []sandbox.Source) []sandbox.Source {
	return slices.DeleteFunc(slices.Clone(list), func(m sandbox.Source) bool { return m.Git })
}

// checkGitDir returns an error unless a git directory that is shared still belongs to the project.
func checkGitDir(spec *sandbox.Spec, m sandbox.Source) error {
	if spec.ProjectCopy() { // a fork's: its file .git is a copy of the one that was looked at
		return nil
	}
	now, _, err := gitDirOf(spec.Project.Host)
	if err == nil && now != m {
		err = fmt.Errorf("it is now %s: --share-git shares that", now.Host)
	}
	if err != nil {
		return &Error{Reason: GitDirUnusable, Sandbox: spec.Name, Path: m.Host, Err: fmt.Errorf("%s, which the sandbox shares, is not the git directory of %s any more: %w", m.Host, spec.Project.Host, err)}
	}
	return nil
}

// gitDirOf returns the git directory of a linked worktree or a submodule as a share, and what the
// project is. The error says why there is none that can be shared.
func gitDirOf(dir string) (m sandbox.Source, what string, err error) {
	l, ok := readGitLink(dir)
	if !ok {
		return m, "", fmt.Errorf("%s has no file .git that leads to a repository", dir)
	}
	real, err := filepath.EvalSymlinks(l.dir)
	if err != nil {
		return m, "", err
	}
	if real != filepath.Clean(l.dir) {
		return m, "", fmt.Errorf("%s/.git names it through a symbolic link: %s is %s (git worktree repair writes the right path)", dir, l.dir, real)
	}
	if sandbox.Beneath(dir, l.need) {
		return m, "", fmt.Errorf("%s lies in the project and is shared with it", l.need)
	}
	m = sandbox.Source{Host: l.need, Guest: l.need, Git: true}
	if l.need != l.dir {
		m.Worktree = filepath.Base(l.dir)
		return m, "a linked worktree of " + l.repo, ofWorktree(dir, l)
	}
	return m, "a submodule of " + l.repo, ofSubmodule(dir, l.dir)
}

// ofWorktree returns an error unless the folder of a linked worktree names the project and the
// repository that its place says.
func ofWorktree(dir string, l gitLink) error {
	back, err := readLine(filepath.Join(l.dir, "gitdir"))
	if err != nil {
		return fmt.Errorf("%s does not say whose it is: %w", l.dir, err)
	}
	if absolute(l.dir, back) != filepath.Join(dir, ".git") {
		return fmt.Errorf("%s is of another working tree, %s (git worktree repair, if this one was moved)", l.dir, filepath.Dir(absolute(l.dir, back)))
	}
	common, err := readLine(filepath.Join(l.dir, "commondir"))
	if err != nil {
		return fmt.Errorf("%s does not say which repository it is of: %w", l.dir, err)
	}
	if absolute(l.dir, common) != l.need {
		return fmt.Errorf("%s is of another repository, %s", l.dir, absolute(l.dir, common))
	}
	return nil
}

// ofSubmodule returns an error unless the configuration of a git directory names the project.
func ofSubmodule(dir, gitDir string) error {
	none := fmt.Errorf("the configuration of %s does not name %s as its working tree (core.worktree): share it with --mount, if it is yours", gitDir, dir)
	f, err := regular.Open(filepath.Join(gitDir, "config"), regular.NoFollow)
	if err != nil {
		return errors.Join(none, err)
	}
	defer f.Close()
	c := config.New()
	if err := config.NewDecoder(f).Decode(c); err != nil {
		return errors.Join(none, err)
	}
	tree := c.Section("core").Option("worktree")
	if tree == "" || absolute(gitDir, tree) != dir {
		return none
	}
	return nil
}

func absolute(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

// readLine reads a file of one path, as git writes them.
func readLine(path string) (string, error) {
	b, err := regular.Read(path, maxGitLink, regular.NoFollow)
	if err != nil && !errors.Is(err, regular.ErrTooLarge) {
		return "", err
	}
	line := strings.TrimRight(string(b), "\r\n")
	if err != nil || line == "" || strings.ContainsAny(line, "\x00\n") {
		return "", errors.Join(err, fmt.Errorf("%s does not hold one path", path))
	}
	return line, nil
}
