package guard

import (
	"slices"
	"strings"
)

// # Theory of operation: a git directory that several working trees have in common
//
// The git directory of a repository has what all its working trees share (objects, refs, logs of
// branches, configuration), what belongs to the main one (HEAD, index, and the state of merges
// and rebases), and below worktrees/ a folder of each linked one (gitrepository-layout(5)). The
// guest of one linked worktree gets the first and its own folder. The folders of the others, and
// what belongs to the main one, are hidden: the guest can make files of these names, which only
// it has. HEAD of the main one can be read, since git asks for it in a directory that it is to
// take for a repository.

// common are the names, folded, in a common git directory that all working trees use, as a
// prefix if they end in "*": git writes to NAME.lock first.
var common = []string{
	"objects", "refs", "logs", "info", "lfs", "worktrees", "packed-refs*", "shallow*", "reftable",
	"config*", "hooks", "head*", "description", "commondir", "gc.pid*", "gc.log*", "maintenance.lock", "branches", "remotes", "svn", "annex",
}

// ofMain reports whether a name in a common git directory belongs to the main working tree or
// decides what the directory is, and can be read.
func (r *Rules) ofMain(p Place) bool {
	if r.own == "" {
		return false
	}
	name := foldOn(p.Folds, p.Name)
	switch len(p.Dir) {
	case 0:
		return name == "head" || name == "description" || name == "objects" && !p.IsDir() || name == "refs" && !p.IsDir()
	case 1:
		area := foldOn(p.Folds, p.Dir[0])
		return area == "logs" && p.Name == "HEAD" || area == "refs" && slices.Contains([]string{"bisect", "worktree", "rewritten"}, name)
	}
	return false
}

// ofOthers reports whether a name in a common git directory belongs to another working tree.
func (r *Rules) ofOthers(p Place) bool {
	if r.own == "" || len(p.Dir) > 1 {
		return false
	}
	name := foldOn(p.Folds, p.Name)
	if len(p.Dir) == 1 {
		return foldOn(p.Folds, p.Dir[0]) == "worktrees" && p.Name != r.own
	}
	return !slices.ContainsFunc(common, func(c string) bool {
		prefix, wild := strings.CutSuffix(c, "*")
		return name == c || wild && strings.HasPrefix(name, prefix)
	})
}
