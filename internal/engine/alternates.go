package engine

import (
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/regular"
)

// A repository may borrow objects of others (git clone --reference and --shared;
// gitrepository-layout(5), objects/info/alternates). The guest has them only if they are shared.
// The file comes with the project, so a path in it is shown only where it leads to the objects of
// a repository: else a project could make bawn advise to share ~/.ssh.

// maxAlternates bounds the file, in bytes.
const maxAlternates = 64 << 10

// warnAlternates reports that git will miss objects in a new sandbox.
func (e *Engine) warnAlternates(spec *sandbox.Spec) {
	objects := filepath.Join(spec.Project.Host, ".git", "objects")
	if l, ok := readGitLink(spec.Project.Host); ok {
		objects = filepath.Join(l.need, "objects")
	}
	for _, from := range borrowedFrom(objects) {
		if slices.ContainsFunc(spec.Shared(), func(m sandbox.Source) bool { return m.Host == m.Guest && sandbox.Beneath(m.Host, from) }) {
			continue
		}
		e.notify(Notice{Reason: ObjectsOutside, Sandbox: spec.Name, Path: from,
			Text: fmt.Sprintf("git will miss objects in the sandbox, because the project's repository borrows them from %s, which is not shared", from)})
	}
}

// borrowedFrom returns the directories of repositories whose objects a directory of objects borrows.
func borrowedFrom(objects string) (list []string) {
	f, err := regular.Open(filepath.Join(objects, "info", "alternates"), regular.NoFollow)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxAlternates))
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" || strings.HasPrefix(line, "#") || strings.ContainsRune(line, 0) {
			continue
		}
		at := absolute(objects, line)
		if dir := filepath.Dir(at); filepath.Base(at) == "objects" && isRepository(dir) {
			list = append(list, dir)
		}
	}
	return list
}
