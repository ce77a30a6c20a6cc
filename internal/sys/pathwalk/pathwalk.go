// Package pathwalk follows a path one name at a time, as the kernel does
// (path_resolution(7)), so that each link and directory on the way can be judged: whoever can
// change one of them decides where the path leads.
package pathwalk

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxSteps bounds the names that are followed, those in links included.
const maxSteps = 400

// Walk follows an absolute path and calls visit for each directory, link and file on the way,
// but not for the root. The folder of at has no links in it. Walk ends with the first error
// of visit or of lstat(2); ELOOP means too many names. It returns the path without links,
// whose last names need not exist (fs.ErrNotExist).
//
// Walk does not hold what it has passed: what another process changes meanwhile is not seen.
func Walk(path string, visit func(at string, fi fs.FileInfo) error) (end string, err error) {
	at, rest := "/", names(path)
	for range maxSteps {
		if len(rest) == 0 {
			return at, nil
		}
		next := filepath.Join(at, rest[0]) // at has no links in it, so ".." is the one before
		fi, err := os.Lstat(next)
		if err != nil {
			return filepath.Join(append([]string{at}, rest...)...), err
		}
		rest = rest[1:]
		if err := visit(next, fi); err != nil {
			return next, err
		}
		if fi.Mode()&fs.ModeSymlink == 0 {
			at = next
			continue
		}
		target, err := os.Readlink(next)
		if err != nil {
			return next, err
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(names(target), rest...)
	}
	return at, fmt.Errorf("%s: %w", path, syscall.ELOOP)
}

// names splits a path into its components.
func names(path string) (list []string) {
	for n := range strings.SplitSeq(path, "/") {
		if n != "" && n != "." {
			list = append(list, n)
		}
	}
	return list
}
