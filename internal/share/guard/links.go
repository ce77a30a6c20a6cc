package guard

import (
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Symbolic links. The host's programs follow those that a guest leaves. Two kinds are refused: in
// the place of a directory that guarded paths lie in, and from a repository to elsewhere.

// metadata are directories, folded, in which a version control system keeps what it writes
// while it works.
var metadata = map[string]bool{".git": true, ".hg": true, ".jj": true, ".sl": true, ".svn": true}

// MayLeadAway reports whether a symbolic link in the place could give the host another
// directory in place of one that guarded or hidden paths lie in, such as .claude or .git/info.
func (r *Rules) MayLeadAway(p Place) bool {
	if r.free.match(p) {
		return false
	}
	dir, name := r.folded(p)
	way := append(slices.Clip(dir), name)
	for _, rule := range r.deep {
		for i := 1; i < len(rule.parts); i++ {
			if endsWith(way, rule.parts[:i]...) {
				return true
			}
		}
	}
	if r.exactBelow(p) || r.guard.below(p) || r.hide.below(p) {
		return true
	}
	git, below := belowGit(dir)
	switch name {
	case "info":
		return git && len(below) == 0 || endsWith(dir, "objects") || p.Has("HEAD")
	case "objects":
		return p.Has("HEAD")
	}
	return false
}

// exactBelow reports whether one of the exact paths lies below the place.
func (r *Rules) exactBelow(p Place) bool {
	way := fold(path.Join(append(slices.Clip(p.Dir), p.Name)...)) + "/"
	for at := range r.exact {
		if strings.HasPrefix(at, way) {
			return true
		}
	}
	return false
}

// below reports whether a pattern may match a path below the place, and not because of its
// last components alone: those match wherever the link leads, too.
func (p *patterns) below(at Place) bool {
	if p == nil {
		return false
	}
	way := append(slices.Clip(at.Dir), at.Name)
	folded := make([]string, len(way))
	for i, c := range way {
		folded[i] = fold(c)
	}
	return slices.ContainsFunc(p.parts, func(parts []string) bool { return leadsTo(parts, way) || leadsTo(parts, folded) })
}

// partsOf returns the components of a pattern. Those of one that matches on every level of the
// tree begin with "**".
func partsOf(pattern string) []string {
	trimmed := strings.TrimSuffix(pattern, "/")
	if !strings.Contains(trimmed, "/") {
		trimmed = "**/" + trimmed
	}
	return strings.Split(strings.TrimPrefix(trimmed, "/"), "/")
}

// leadsTo reports whether a path is that of a directory in which the rest of a pattern may match.
func leadsTo(parts, way []string) bool {
	if len(parts) == 0 || parts[0] != "**" {
		return prefixOf(parts, way)
	}
	for i := range way {
		if prefixOf(parts[1:], way[i:]) {
			return true
		}
	}
	return false
}

// prefixOf reports whether a path matches the first components of a pattern, and not all.
func prefixOf(parts, way []string) bool {
	switch {
	case len(parts) == 0 || len(way) == 0:
		return len(parts) > 0
	case parts[0] == "**":
		return prefixOf(parts, way[1:]) || prefixOf(parts[1:], way)
	}
	ok, err := filepath.Match(parts[0], way[0])
	return err == nil && ok && prefixOf(parts[1:], way[1:])
}

// LeadsOut reports whether a symbolic link with the target would lead out of a repository if it
// lay in the place. Programs of the host write to files of a repository whatever they lead
// to: the message of a commit, the log of a reference.
func (r *Rules) LeadsOut(p Place, target string) bool {
	dir, _ := r.folded(p)
	depth := -1 // directories between the repository and the link
	for i := len(dir) - 1; i >= 0 && depth < 0; i-- {
		if metadata[dir[i]] {
			depth = len(dir) - 1 - i
		}
	}
	if depth < 0 {
		if !p.Has("HEAD") || !p.Has("objects") { // nor a bare one
			return false
		}
		depth = 0
	}
	if r.free.match(p) {
		return false
	}
	if strings.HasPrefix(target, "/") {
		return true
	}
	down := false
	for part := range strings.SplitSeq(target, "/") {
		switch part {
		case "", ".":
		case "..":
			if depth--; down || depth < 0 { // what lies below may be a link itself
				return true
			}
		default:
			down = true
		}
	}
	return false
}

// folded returns the directory of a place, with the components above the root that matter, and
// its name, in the form in which they are compared.
func (r *Rules) folded(p Place) (dir []string, name string) {
	dir = slices.Concat(r.prefix, p.Dir)
	for i := range dir {
		dir[i] = foldOn(p.Folds, dir[i])
	}
	return dir, foldOn(p.Folds, p.Name)
}
