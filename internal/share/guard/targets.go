package guard

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bawn.dev/bawn/internal/sys/pathwalk"
	"bawn.dev/bawn/internal/sys/regular"
)

// maxConfig bounds the configuration of git that is read, in bytes.
const maxConfig = 1 << 20

// Targets returns paths of a project, from its root, that the host's own configuration runs or
// reads: what the project's .git/config names (core.hooksPath, core.fsmonitor, included
// files, filters), what hooks of agents and .envrc run or load (named.go), and where guarded paths of its root lead that are symbolic links; and
// where hidden ones lead. It reads the host's files, before a guest runs. What it cannot
// read names nothing.
func Targets(root string) (guarded, hidden []string) {
	inside := func(path string) (rel string, ok bool) {
		for _, form := range []string{path, resolved(path)} {
			rel, err := filepath.Rel(root, form)
			if err == nil && rel != "." && rel != ".." && !strings.HasPrefix(rel, "../") && rel != ".git" {
				return rel, true
			}
		}
		return "", false
	}
	for _, tree := range workingTrees(root) {
		for _, named := range slices.Concat(namedByGit(tree), namedByConfig(tree)) {
			if rel, ok := inside(named); ok {
				guarded = append(guarded, rel)
			}
		}
	}
	for _, rules := range [][]Rule{Defaults, gitPaths} {
		for _, r := range rules {
			rel, ok := inside(linkTarget(filepath.Join(root, r.Path)))
			switch {
			case ok && r.Kind == Guarded:
				guarded = append(guarded, rel)
			case ok && r.Kind == Hidden:
				hidden = append(hidden, rel)
			}
		}
	}
	slices.Sort(guarded)
	return slices.Compact(guarded), hidden
}

// linkTarget returns where a symbolic link leads, and "" for anything else.
func linkTarget(path string) string {
	if fi, err := os.Lstat(path); err != nil || fi.Mode()&os.ModeSymlink == 0 {
		return ""
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return ""
	}
	return real
}

var gitPaths = []Rule{
	{Path: ".git/config", Kind: Guarded}, {Path: ".git/hooks", Kind: Guarded}, {Path: ".git/info", Kind: Guarded},
	{Path: ".git/info/attributes", Kind: Guarded}, {Path: ".git/config.worktree", Kind: Guarded},
	{Path: ".claude", Kind: Guarded}, {Path: ".codex", Kind: Guarded}, {Path: ".gemini", Kind: Guarded}, {Path: ".cursor", Kind: Guarded},
}

// resolved returns a path without symbolic links in its directory, which need not exist. Its last
// component stays: it may be made later.
func resolved(path string) string {
	dir, _ := pathwalk.Walk(filepath.Dir(path), func(string, fs.FileInfo) error { return nil }) // what exists of it
	return filepath.Join(dir, filepath.Base(path))
}

// maxIncludes bounds the files of configuration that are read.
const maxIncludes = 64

// namedByGit returns the paths that the host's configuration of git names for a project: that of
// the project, of its user and of the host, and what they include (git-config(1), FILES).
func namedByGit(root string) []string {
	var list []string
	type source struct{ file, dir string } // dir is that of relative paths of included files
	own, git := gitDirOf(root)
	files := []source{{filepath.Join(git, "config"), git}, {filepath.Join(own, "config.worktree"), own}, {"/etc/gitconfig", "/etc"}}
	if home, err := os.UserHomeDir(); err == nil {
		files = append(files, source{filepath.Join(home, ".gitconfig"), home})
	}
	if conf, err := os.UserConfigDir(); err == nil {
		files = append(files, source{filepath.Join(conf, "git/config"), filepath.Join(conf, "git")})
	}
	for i := 0; i < len(files) && i < maxIncludes; i++ {
		named, included := namedIn(files[i].file, root, files[i].dir)
		list = append(list, named...)
		for _, file := range included {
			list = append(list, file)
			files = append(files, source{file, filepath.Dir(file)})
		}
	}
	return list
}

// gitDirOf returns a project's own directory of git, and the one with the configuration. Those of a
// linked working tree lie elsewhere (gitrepository-layout(5), commondir).
func gitDirOf(root string) (own, common string) {
	git := filepath.Join(root, ".git")
	text, err := readSmall(git)
	if err != nil {
		return git, git // a directory
	}
	to, ok := strings.CutPrefix(string(text), "gitdir:")
	if !ok {
		return git, git
	}
	git = from(root, strings.TrimSpace(to))
	if common, err := readSmall(filepath.Join(git, "commondir")); err == nil {
		return git, from(git, strings.TrimSpace(string(common)))
	}
	return git, git
}

// readSmall reads a regular file, up to maxConfig bytes. It does not wait for the writer of a FIFO.
func readSmall(path string) ([]byte, error) {
	b, err := regular.Read(path, maxConfig, 0)
	if errors.Is(err, regular.ErrTooLarge) {
		return b, nil
	}
	return b, err
}

// namedIn returns the paths that one file of configuration names, and the files that it includes,
// relative to a directory. Files that are there count whatever names them: git gets new variables that run
// programs.
func namedIn(file, root, dir string) (list, included []string) {
	text, err := readSmall(file)
	if err != nil {
		return nil, nil
	}
	for _, v := range variables(string(text)) {
		switch {
		case v.value == "":
		case v.section == "core" && v.name == "hookspath", v.section == "init" && v.name == "templatedir":
			list = append(list, from(root, v.value))
		case (v.section == "include" || v.section == "includeif") && v.name == "path":
			included = append(included, from(dir, v.value))
		default:
			list = append(list, filesIn(root, v.value, runs(v.section, v.name))...)
		}
	}
	return list, included
}

// from returns a path that the configuration names, which may begin with the user's home.
func from(dir, path string) string {
	if below, ok := strings.CutPrefix(path, "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, below)
		}
	}
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

// runs reports whether the value of a variable of git's configuration may be a command, or a file that leads
// to one (git-config(1)): it is not one of those that name branches and other repositories.
func runs(section, option string) bool {
	switch section {
	case "branch", "url", "user", "author", "committer", "color", "svn-remote":
		return false
	case "remote":
		return option == "uploadpack" || option == "receivepack" || option == "vcs"
	case "submodule":
		return option == "update"
	}
	return true
}
