package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"bawn.dev/bawn/internal/sys/proc"
	"bawn.dev/bawn/internal/wire"
)

// maxLinks bounds the symbolic links of a path. The kernel follows as many
// (path_resolution(7)).
const maxLinks = 40

// LogicalDir returns the working directory as the person's shell names it (PWD), which may go
// through symbolic links. ok is false where the variable names no directory or another one.
func LogicalDir() (dir string, ok bool) {
	dir = os.Getenv("PWD")
	if !filepath.IsAbs(dir) || filepath.Clean(dir) != dir {
		return "", false
	}
	named, err1 := os.Stat(dir)
	here, err2 := os.Stat(".")
	return dir, err1 == nil && err2 == nil && os.SameFile(named, here)
}

// Links returns the symbolic links that the kernel meets on the way along an absolute path,
// each by a path that has none but earlier ones. It ends at what does not exist.
func Links(path string) []wire.Link {
	var links []wire.Link
	at, rest := "/", strings.Split(path, "/")
	for len(rest) > 0 && len(links) < maxLinks {
		name := rest[0]
		rest = rest[1:]
		next := filepath.Join(at, name) // also for . and ..: at has no links
		target, err := os.Readlink(next)
		if err != nil {
			at = next
			continue
		}
		links = append(links, wire.Link{Path: next, Target: target})
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return links
}

// LinkOfGuest is the reason of an error: a path that a person named goes over a symbolic link that a guest can
// have made (Path of where it leads).
const LinkOfGuest Reason = "link-of-guest"

// realPath returns an absolute path without symbolic links. What it returns is shared with a guest. So a link that a
// guest can have made is LinkOfGuest: it would choose what is shared. Unless it is strict, a link may stay in the
// directory that the guest has in any case.
func realPath(abs string, strict bool) (string, error) {
	end, l, err := proc.Follow(abs)
	switch {
	case err != nil || l == nil || !strict && !l.Out:
		return end, err
	case l.Out:
		err = fmt.Errorf("%s leads to %s over the symbolic link %s, and %s: write the path that you mean", abs, end, l.Link, l.Why)
	default:
		err = fmt.Errorf("%s contains the symbolic link %s and leads to %s, and %s: write the path that you mean", abs, l.Link, end, l.Why)
	}
	return "", &Error{Reason: LinkOfGuest, Path: end, Err: err}
}
