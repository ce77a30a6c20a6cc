package sandbox

import (
	"fmt"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxLocalDirs bounds the local directories of a sandbox: each is a mount in the guest.
const MaxLocalDirs = 64

// ParseLocalDir reads a directory of the project that is to be on the sandbox's own disk. The
// result is relative to the project, and clean.
func ParseLocalDir(s string) (string, error) {
	switch dir := filepath.Clean(s); {
	case !utf8.ValidString(s) || strings.IndexFunc(s, unicode.IsControl) >= 0:
		return "", fmt.Errorf("local directory %q: it has characters that cannot be printed", s)
	case s == "" || !filepath.IsLocal(dir) || dir == ".":
		return "", fmt.Errorf("local directory %q: write the path of a directory below the project, such as node_modules", s)
	case dir == ".git" || strings.HasPrefix(dir, ".git/"):
		return "", fmt.Errorf("local directory %q: the host needs the repository too", s)
	default:
		return dir, nil
	}
}

// OverlappingDirs reports whether two local directories are the same, or one lies in the other.
func OverlappingDirs(a, b string) bool {
	return Beneath("/"+a, "/"+b) || Beneath("/"+b, "/"+a)
}

func checkLocalDirs(list []string) error {
	if len(list) > MaxLocalDirs {
		return badField("localDirs", "%d directories: must be at most %d", len(list), MaxLocalDirs)
	}
	for i, d := range list {
		if dir, err := ParseLocalDir(d); err != nil || dir != d {
			return badField("localDirs", "%q: must be a path below the project", d)
		}
		for _, o := range list[:i] {
			if OverlappingDirs(o, d) {
				return badField("localDirs", "%q lies in, or is the same as, %q", d, o)
			}
		}
	}
	return nil
}
