package engine

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

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

// hasManyFiles reports whether a directory has manyFiles. It follows no link, and reads no more than that of a
// directory that a guest has filled.
func hasManyFiles(dir string) bool {
	n, dirs := 0, []string{dir}
	for ; len(dirs) > 0 && n < manyFiles; dirs = dirs[1:] {
		f, err := os.OpenFile(dirs[0], os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if err != nil {
			continue // not there, or not readable
		}
		list, _ := f.ReadDir(manyFiles - n) // what cannot be read does not count
		f.Close()
		n += len(list)
		for _, e := range list {
			if e.IsDir() {
				dirs = append(dirs, filepath.Join(dirs[0], e.Name()))
			}
		}
	}
	return n >= manyFiles
}
