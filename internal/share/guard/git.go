package guard

import (
	"slices"
	"strings"
)

// gitNames are names, folded, that matter in a directory of git.
var gitNames = map[string]bool{
	"head": true, "config": true, "config.worktree": true, "hooks": true, "commondir": true, "gitdir": true,
	"attributes": true, ".git": true, "objects": true, "alternates": true, "http-alternates": true, "remotes": true, "branches": true,
	"rebase-merge": true, "rebase-apply": true, "sequencer": true, "worktrees": true,
	"bisect_names": true, "bisect_start": true, "bisect_log": true, "bisect_terms": true, "bisect_run": true,
	"bisect_first_parent": true, "bisect_ancestors_ok": true, "bisect_expected_rev": true, "bisect_head": true,
}

// bisection begins the names of those of gitNames that are the state of a bisection.
const bisection = "bisect_"

// belowGit reports whether a directory is one named .git or lies below one, and the way from
// there.
func belowGit(dir []string) (git bool, below []string) {
	for i := len(dir) - 1; i >= 0; i-- {
		if dir[i] == ".git" {
			return true, dir[i+1:]
		}
	}
	return false, nil
}

// inGit reports whether git's rules guard a name, which is folded as its directory is.
func (r *Rules) inGit(p Place, dir []string, name string) bool {
	git, below := belowGit(dir)
	area := ""
	if len(below) > 0 {
		area = below[0]
	}
	switch {
	case name == ".git":
		// A file that leads to a repository: any of the host's, whose configuration git then obeys with the
		// directory as the working tree. It runs what is named there relative to its top (core.hooksPath,
		// filters), and it reads and writes that repository.
		return !p.IsDir()
	case name == "alternates", name == "http-alternates":
		return endsWith(dir, "objects", "info")
	case !git || area == "objects":
		return lookAlike(p, name)
	case name == "head":
		return false // git moves it on every switch
	case area == "refs" || area == "logs":
		// Names are those of branches here, config and hooks among them. So there must be no
		// repository: git takes a directory for one only with objects, which need not be a
		// directory (is_git_directory in git's setup.c asks for no more than access(2)).
		return name == "commondir" || name == "objects"
	case name == "config", name == "config.worktree", name == "hooks", name == "commondir":
		return true
	case name == "remotes", name == "branches", name == "rebase-merge", name == "rebase-apply", name == "sequencer", strings.HasPrefix(name, bisection):
		return !inReferences(p, below)
	case name == "worktrees": // else the host's git prunes those of the guest, whose file .git it does not see
		return !p.Has(p.Name) && !inReferences(p, below)
	case name == "gitdir": // that of a new worktree is the host's to see, or its git prunes the worktree
		return p.Has(p.Name) && !p.Made()
	case name == "attributes":
		return slices.Equal(below[max(len(below)-1, 0):], []string{"info"})
	}
	return false
}

// inReferences reports whether names in a directory below .git are those of branches and tags. The git
// directory of a submodule has the submodule's name, in which refs and logs may occur, and is known by its
// configuration, or that of its worktree by commondir: a guest can neither make nor remove these.
func inReferences(p Place, below []string) bool {
	if !slices.Contains(below, "refs") && !slices.Contains(below, "logs") {
		return false
	}
	return !p.Has("commondir") && (p.HasConfig == nil || !p.HasConfig())
}

// lookAlike is inGit in a directory that is no repository by its name.
func lookAlike(p Place, name string) bool {
	if strings.HasPrefix(name, bisection) {
		name = "sequencer" // the same holds
	}
	switch name {
	case "head":
		exact := p.Name == "HEAD" || p.Folds
		return exact && !p.Has("HEAD")
	case "gitdir":
		return p.Has("HEAD") && p.Has(p.Name) && !p.Made()
	case "config", "config.worktree", "hooks", "commondir", "remotes", "branches", "rebase-merge", "rebase-apply", "sequencer":
		return p.Has("HEAD") || p.HasConfig != nil && p.HasConfig() // a guest can remove HEAD, and somebody put it back later
	case "attributes":
		return false // of info below it: without a configuration it names no program
	}
	return false
}

// endsWith reports whether the last components of a directory are these.
func endsWith(dir []string, last ...string) bool {
	return len(dir) >= len(last) && slices.Equal(dir[len(dir)-len(last):], last)
}

// gitRule returns the documented rule of a name in a directory of git.
func gitRule(name string) *Rule {
	for i := range Git {
		if fold(Git[i].Path) == name {
			return &Git[i]
		}
	}
	return nil
}
