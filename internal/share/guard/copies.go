package guard

import (
	"path"
	"strings"
)

// Editors and tools leave copies of a file beside it while it is edited, or for good. A copy of a
// hidden file is hidden too.

// copyEnds are what stands after the name of the file: of vim, emacs, nano, Kate, IDEs of JetBrains,
// git's merge tools and sed -i.
var copyEnds = []string{"~", ".swp", ".swo", ".swn", ".swx", ".kate-swp", ".bak", ".backup", ".orig", ".old", ".save", "___jb_tmp___", "___jb_old___"}

// copyTypes are those of copyEnds that begin with a dot, and have no other.
var copyTypes = func() map[string]bool {
	types := map[string]bool{}
	for _, end := range copyEnds {
		if end[0] == '.' {
			types[end] = true
		}
	}
	return types
}()

// mayBeCopy reports whether originals may find something. Names of all files of a project are looked up, and
// nearly all are no copies.
func mayBeCopy(name string) bool {
	if name == "" {
		return false
	}
	last := name[len(name)-1]
	return last == '~' || last == '_' || name[0] == '#' || strings.HasPrefix(name, ".#") || copyTypes[path.Ext(name)]
}

// originals returns the names of files, folded, of which one with a folded name may be a copy.
func originals(name string) []string {
	if !mayBeCopy(name) {
		return nil
	}
	var list []string
	for _, end := range copyEnds {
		if of, ok := strings.CutSuffix(name, end); ok && of != "" {
			list = append(list, of)
			if visible, ok := strings.CutPrefix(of, "."); ok && strings.Contains(end, "sw") {
				list = append(list, visible) // vim and Kate put a dot before the name
			}
		}
	}
	if of, ok := strings.CutPrefix(name, ".#"); ok {
		list = append(list, of)
	}
	if of, ok := strings.CutPrefix(name, "#"); ok && strings.HasSuffix(of, "#") {
		list = append(list, strings.TrimSuffix(of, "#"))
	}
	return list
}

// savedEnds are what stands after the name of a file while a program writes what is then renamed to it: git's
// and Mercurial's locks, and the names of IDEs of JetBrains and of many libraries. Who writes there writes the file.
// Names with something random in them are not known.
var savedEnds = []string{".lock", ".tmp", ".temp", ".new", "___jb_tmp___", ".__jb_tmp__"}

// saves returns the names of files, folded, of which one with a folded name may be the next contents. HEAD, which
// git saves with each commit, names no program.
func saves(name string) []string {
	var list []string
	for _, end := range savedEnds {
		if of, ok := strings.CutSuffix(name, end); ok && of != "" && of != "head" {
			list = append(list, of)
		}
	}
	return list
}
