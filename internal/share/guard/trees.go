package guard

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Bounds of workingTrees. maxLevels bounds the depth.
const (
	maxTreesLooked = 100_000 // entries of directories, about half a second
	maxTrees       = 256
)

// workingTrees returns a project's root and the other working trees of git that its files are in, the root first: that
// which the project lies in, repositories and submodules below it, and linked ones. Git runs what the
// configuration names relative to the top of each. It does not look into .git and node_modules, nor deeper than
// maxLevels; those linked ones that git knows of count at any depth.
func workingTrees(root string) []string {
	list := []string{root}
	for up := root; filepath.Dir(up) != up; {
		up = filepath.Dir(up)
		if isTree(up) {
			list = append(list, up)
			break
		}
	}
	looked := 0
	_ = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == root {
			return nil //nolint:nilerr // what cannot be read is left out
		}
		if looked++; looked > maxTreesLooked || len(list) > maxTrees {
			return filepath.SkipAll
		}
		switch {
		case e.Name() == ".git":
			list = append(list, filepath.Dir(path))
			list = append(list, linkedTrees(filepath.Dir(path))...)
		case e.IsDir() && strings.Count(path[len(root):], "/") <= maxLevels && e.Name() != "node_modules":
			return nil
		}
		if e.IsDir() {
			return filepath.SkipDir
		}
		return nil
	})
	slices.Sort(list[1:])
	return slices.Compact(list)
}

// isTree reports whether a directory is the top of a working tree.
func isTree(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, ".git"))
	return err == nil
}

// linkedTrees returns the linked working trees that the repository of another one has
// (gitrepository-layout(5), worktrees).
func linkedTrees(tree string) (list []string) {
	_, common := gitDirOf(tree)
	eachFile(common, []string{"worktrees/*/gitdir"}, func(text string) {
		if at := strings.TrimSpace(text); filepath.IsAbs(at) && isTree(filepath.Dir(at)) {
			list = append(list, filepath.Dir(at))
		}
	})
	return list
}
