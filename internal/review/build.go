package review

import (
	"bytes"
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/diff"

	"bawn.dev/bawn/internal/undo"
)

// Bounds of a review.
const (
	diffFile  = 1 << 20  // bytes of a file whose lines are compared
	diffTotal = 64 << 20 // bytes of all of them
	diffKept  = 64 << 10 // bytes of a diff of one private version
	foldFrom  = 8        // findings below a new directory that are shown as one
	statMost  = 10_000   // paths in Changes
)

// Add adds the changes of a project to the review.
func (r *Review) Add(f *Finder, changes *undo.Changes) {
	r.Notes = append(r.Notes, changes.Notes...)
	made := map[string]bool{}
	left := int64(diffTotal)
	cut := false
	for i := range changes.List {
		c := &changes.List[i]
		r.Findings = append(r.Findings, f.Find(c)...)
		if _, ok := gitPath(c.Path); ok {
			r.InGit++
			continue
		}
		if c.Now.Kind == undo.Dir && c.Was.Kind == undo.Absent {
			made[c.Path] = true
		}
		if c.Now.Kind == undo.Dir && c.From == "" || c.Was.Kind == undo.Dir && c.Now.Kind == undo.Absent {
			continue
		}
		if len(r.Changes) == statMost {
			cut = true
			continue
		}
		r.Changes = append(r.Changes, statOf(f.Src, c, &left))
	}
	if cut {
		r.Notes = append(r.Notes, fmt.Sprintf("more than %d paths were changed: the list of all changes is not complete", statMost))
	}
	r.Findings = fold(r.Findings, made)
}

// folded are directories in which programs install what others wrote.
var folded = []string{"node_modules", ".venv", "venv", "vendor", "target", ".tox", "__pypackages__", "Pods", "bower_components"}

// fold replaces the findings of a class below a new directory, or below one of installed packages, by
// one finding, if there are at least foldFrom. Links that lead out, secrets and what concerns git
// stay.
func fold(list []Finding, made map[string]bool) []Finding {
	type key struct {
		dir   string
		class Class
	}
	groups := map[key][]Finding{}
	var rest []Finding
	for _, f := range list {
		dir := foldAt(f.Path, made)
		if dir == "" || f.Class == LinkOut || f.Class == Secret || f.Class == Git {
			rest = append(rest, f)
			continue
		}
		groups[key{dir, f.Class}] = append(groups[key{dir, f.Class}], f)
	}
	for k, g := range groups {
		if len(g) < foldFrom {
			rest = append(rest, g...)
			continue
		}
		rest = append(rest, Finding{Path: k.dir + "/", Class: k.class, Why: "in this directory, such as " + path.Base(g[0].Path), Paths: len(g)})
	}
	slices.SortStableFunc(rest, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(rank(a.Class), rank(b.Class)), cmp.Compare(a.Path, b.Path))
	})
	return rest
}

// rank is the order in which classes are shown.
func rank(c Class) int {
	return slices.Index([]Class{Secret, LinkOut, Git, CI, Script, Build, Executable, Mode, Lock, Moved}, c)
}

// foldAt returns the topmost directory on the way to a path that findings are folded at.
func foldAt(at string, made map[string]bool) string {
	for i, c := range at {
		if c != '/' {
			continue
		}
		dir := at[:i]
		if made[dir] || slices.Contains(folded, path.Base(dir)) {
			return dir
		}
	}
	return ""
}

// statOf counts the lines that a change adds and removes, as long as there are bytes left to
// compare.
func statOf(src Source, c *undo.Change, left *int64) Stat {
	s := Stat{Path: c.Path, From: c.From, Status: statusOf(c)}
	if c.From != "" {
		return s
	}
	was, ok := side(c.Was, func() ([]byte, bool) { return src.Before(c, diffFile) })
	now, also := side(c.Now, func() ([]byte, bool) { return src.Now(c, diffFile) })
	size := int64(len(was) + len(now))
	if !ok || !also || !isText(was) || !isText(now) || size > *left {
		s.Binary = true
		return s
	}
	*left -= size
	s.Added, s.Removed = count(was, now)
	return s
}

// side returns what one side of a change holds as lines.
func side(s undo.State, read func() ([]byte, bool)) ([]byte, bool) {
	switch s.Kind {
	case undo.File:
		if s.Size > diffFile {
			return nil, false
		}
		return read()
	case undo.Link:
		return append(slices.Clone(s.Target), '\n'), true
	}
	return nil, true
}

func statusOf(c *undo.Change) Status {
	switch {
	case c.From != "":
		return Renamed
	case c.Was.Kind == undo.Absent:
		return Added
	case c.Now.Kind == undo.Absent:
		return Deleted
	case c.Was.Kind != c.Now.Kind:
		return Type
	}
	return Modified
}

// isText reports whether git would take contents for text: there is no NUL near the beginning.
func isText(b []byte) bool { return bytes.IndexByte(b[:min(len(b), 8000)], 0) < 0 }

// count returns how many lines a diff of two texts adds and removes.
func count(was, now []byte) (added, removed int) {
	switch {
	case len(was) == 0:
		return lines(now), 0
	case len(now) == 0:
		return 0, lines(was)
	}
	for i, l := range strings.Split(string(diff.Diff("a", was, "b", now)), "\n") {
		switch {
		case i < 3: // the header
		case strings.HasPrefix(l, "+"):
			added++
		case strings.HasPrefix(l, "-"):
			removed++
		}
	}
	return added, removed
}

func lines(b []byte) int {
	n := bytes.Count(b, []byte("\n"))
	if len(b) > 0 && b[len(b)-1] != '\n' {
		n++
	}
	return n
}

// Diff returns the unified difference of two texts, up to a bound, without its header of three
// lines. note says why there is none.
func Diff(was, now []byte) (text string, cut bool, note string) {
	if !isText(was) || !isText(now) {
		return "", false, "it is not text"
	}
	text = WholeDiff(was, now)
	if len(text) > diffKept {
		return text[:strings.LastIndexByte(text[:diffKept], '\n')+1], true, ""
	}
	return text, false, ""
}

// WholeDiff is Diff without a bound, and also for what is not text: a NUL must not hide from a person who is
// asked to agree what a shell would run.
func WholeDiff(was, now []byte) string {
	out := diff.Diff("host", was, "guest", now)
	for range 3 {
		_, out, _ = bytes.Cut(out, []byte("\n"))
	}
	return string(out)
}
