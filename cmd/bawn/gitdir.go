package main

import (
	"fmt"
	"os"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/sys/text"
)

// askGitDir asks once, before a sandbox is made, whether it gets the git directory of a project
// that is a linked worktree or a submodule. Without a terminal nothing is shared, and the
// engine's notice says what to do.
func askGitDir(e *engine.Engine, r *engine.Request) {
	if !attended() {
		return
	}
	if g := e.GitOutside(r); g != nil {
		fmt.Fprint(os.Stderr, gitDirWords(r.Dir, g))
		yes := askYes("Share it?")
		r.Change.ShareGit = &yes
	}
}

// gitDirWords says what would be shared.
func gitDirWords(dir string, g *engine.GitDir) string {
	where := ""
	if g.Outside {
		where = ", which lies OUTSIDE OF YOUR HOME DIRECTORY"
	}
	return text.Block(fmt.Sprintf(`%s is %s.
Git works in the sandbox only if it has the git directory %s%s.
The guest could then change the repository's objects, branches and tags. Its hooks and settings
and what belongs to other working trees stay out of reach.
`, dir, g.What, g.Path, where))
}
