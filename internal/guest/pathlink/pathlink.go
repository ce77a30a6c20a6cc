// Package pathlink makes in the guest the symbolic links by which a person reached a shared
// directory on the host, so that paths that go through them mean the same in both.
package pathlink

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/wire"
)

// MaxLinks bounds the links of one request. The kernel follows as many (path_resolution(7)).
const MaxLinks = 40

// Make makes the links below root ("" is /) where nothing of the name exists, and the
// directories that they need; those in the user's home belong to the user. It makes nothing
// but on the sandbox's own disk: a link in a share would be one on the host. The links that
// can be made are made; the error has the reasons for the others.
func Make(root string, links []wire.Link, user wire.User) error {
	var failed []error
	for _, l := range links[:min(len(links), MaxLinks)] {
		if err := makeLink(root, l, user); err != nil {
			failed = append(failed, fmt.Errorf("link %s: %w", l.Path, err))
		}
	}
	return errors.Join(failed...)
}

func makeLink(root string, l wire.Link, user wire.User) error {
	if !filepath.IsAbs(l.Path) || filepath.Clean(l.Path) != l.Path || l.Target == "" {
		return errors.New("not a clean, absolute path")
	}
	path := root + l.Path
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err // it is there, or cannot be
	}
	missing, base := missingParents(path)
	if !ownDisk(base, root+"/") {
		return errors.New("not on the sandbox's own disk")
	}
	for _, dir := range missing {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if user.Home != "" && strings.HasPrefix(dir, root+user.Home+"/") {
			if err := os.Lchown(dir, int(user.UID), int(user.GID)); err != nil {
				return err
			}
		}
	}
	return os.Symlink(l.Target, path)
}

// missingParents returns the parents of a path that do not exist, the outermost first, and
// the nearest one that does.
func missingParents(path string) (missing []string, base string) {
	for base = filepath.Dir(path); base != "/"; base = filepath.Dir(base) {
		if _, err := os.Stat(base); err == nil {
			break
		}
		missing = append(missing, base)
	}
	slices.Reverse(missing)
	return missing, base
}

// ownDisk reports whether a directory is on the file system of root, or on another ext4 file
// system: the data directories (package datadir) are on the disk itself, root on an overlay
// over it. A share is FUSE.
func ownDisk(dir, root string) bool {
	var x, y unix.Stat_t
	if unix.Stat(dir, &x) == nil && unix.Stat(root, &y) == nil && x.Dev == y.Dev {
		return true
	}
	var fs unix.Statfs_t
	return unix.Statfs(dir, &fs) == nil && fs.Type == unix.EXT4_SUPER_MAGIC
}

// SameDirectory reports whether two paths lead to the same directory.
func SameDirectory(a, b string) bool {
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && x.IsDir() && os.SameFile(x, y)
}
