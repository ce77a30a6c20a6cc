package engine

import (
	"os"
	"path/filepath"
	"strings"

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
