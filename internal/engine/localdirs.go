package engine

import (
	"fmt"
	"io/fs"
	"path/filepath"

	"bawn.dev/bawn/internal/sandbox"
)

// LocalDirUseful is the reason of a notice about a directory of the project that is faster on the
// sandbox's own disk (Fields has its name).
const LocalDirUseful Reason = "local-dir-useful"

// usualLocalDirs are names of directories that package managers and compilers fill, and that can
// be made again.
var usualLocalDirs = []string{"node_modules", "target", ".venv", ".gradle"}

// manyFiles is how many files and directories must lie in a directory for a notice about it. No more
// are counted.
const manyFiles = 2000

// sayLocalDirs suggests local directories at the first start of a sandbox that has none.
func (e *Engine) sayLocalDirs(spec *sandbox.Spec) {
	if !spec.Fresh || spec.Throwaway || len(spec.LocalDirs) > 0 {
		return
	}
	for _, name := range usualLocalDirs {
		if hasManyFiles(filepath.Join(spec.Project.Host, name)) {
			e.notify(Notice{Reason: LocalDirUseful, Sandbox: spec.Name, Fields: []string{name},
				Text: fmt.Sprintf("%s has many files, which are faster on the sandbox's own disk, where the host does not see them", name)})
			return
		}
	}
}

// hasManyFiles reports whether a directory has manyFiles. It follows no link.
func hasManyFiles(dir string) bool {
	n := 0
	_ = filepath.WalkDir(dir, func(_ string, _ fs.DirEntry, err error) error {
		if err != nil {
			return fs.SkipDir // not there, or not readable
		}
		if n++; n > manyFiles {
			return fs.SkipAll
		}
		return nil
	})
	return n > manyFiles
}
