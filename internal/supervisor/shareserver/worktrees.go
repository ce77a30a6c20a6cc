package shareserver

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/share"
	"bawn.dev/bawn/internal/sys/regular"
)

// maxLink bounds a file of git that holds one path, in bytes: PATH_MAX and its end.
const maxLink = unix.PathMax + 1

// otherWorktrees returns the folders, from the root of a share, of those linked working trees of its
// repository that the host has elsewhere (gitrepository-layout(5), worktrees). The guest has no such
// working tree: git there takes it for gone, and `git worktree prune` would remove the folder, with
// what is staged and with a rebase that is under way. Folders that the guest made are its own.
func otherWorktrees(root string, spec *sandbox.Spec) (list []string) {
	const at = ".git/worktrees"
	folders, err := os.ReadDir(filepath.Join(root, at))
	if err != nil {
		return nil // there are none
	}
	for _, e := range folders {
		folder := filepath.Join(root, at, e.Name())
		link := filepath.Join(folder, "gitdir")
		tree, ok := readLink(link)
		if !ok || share.MadeByGuest(link) {
			continue
		}
		if !filepath.IsAbs(tree) { // git worktree add --relative-paths
			tree = filepath.Join(folder, tree)
		}
		tree = filepath.Clean(tree)
		shared := func(m sandbox.Source) bool { return sandbox.Beneath(m.Host, tree) || sandbox.Beneath(m.Guest, tree) }
		if !slices.ContainsFunc(spec.Shared(), shared) {
			list = append(list, at+"/"+e.Name())
		}
	}
	return list
}

// readLink reads a file of one path, as git writes them.
func readLink(path string) (string, bool) {
	b, err := regular.Read(path, maxLink, regular.NoFollow)
	line := strings.TrimRight(string(b), "\r\n")
	return line, err == nil && line != "" && !strings.ContainsRune(line, 0)
}
