package packages

import (
	"regexp"
	"sync"
)

// pattern returns a regular expression that is compiled at its first use: names of bounded length make large ones, and all
// of them together took a millisecond and a megabyte of each process of bawn, of which few read lock files.
func pattern(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}
