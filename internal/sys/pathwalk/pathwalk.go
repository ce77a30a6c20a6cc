// Package pathwalk follows a path one name at a time, as the kernel does
// (path_resolution(7)), so that each link and directory on the way can be judged: whoever can
// change one of them decides where the path leads.
package pathwalk

import (
	"errors"
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
	return walk(path, func(at string, fi fs.FileInfo, _ []string) error { return visit(at, fi) })
}

// errEntered ends the walk of Enter.
var errEntered = errors.New("entered")

// Enter follows an absolute path as Walk does, up to the first directory that inside accepts. It returns
// that directory, and the names that are left to follow from there, of which none was looked at: "." if
// there are none. entered is false if the path leads to no such directory as far as it exists.
//
// Names ".." that follow at once lead out of the directory again, and the walk goes on; later ones are
// left, since what is before them may be a link.
func Enter(path string, inside func(at string, fi fs.FileInfo) bool) (dir, rest string, entered bool, err error) {
	_, err = walk(path, func(at string, fi fs.FileInfo, left []string) error {
		if !fi.IsDir() || len(left) > 0 && left[0] == ".." || !inside(at, fi) {
			return nil
		}
		dir, rest = at, "."
		if len(left) > 0 {
			rest = strings.Join(left, "/")
		}
		return errEntered
	})
	switch {
	case errors.Is(err, errEntered):
		return dir, rest, true, nil
	case errors.Is(err, fs.ErrNotExist):
		return "", "", false, nil
	}
	return "", "", false, err
}

// walk is Walk, with the names that are left to follow after each step.
func walk(path string, visit func(at string, fi fs.FileInfo, left []string) error) (end string, err error) {
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
		if err := visit(next, fi, rest); err != nil {
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
