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
	case "objects", "refs", "logs": // what is below them is judged by their names
		return git && !slices.ContainsFunc(below, func(up string) bool { return up == "refs" || up == "logs" }) || p.Has("HEAD")
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

// LeadsOut reports whether a symbolic link with the target, if it lay in the place, would lead out of
// a repository, or to what is guarded in it. Programs of the host write to files of a repository
// whatever they lead to: the message of a commit, which a guest can prepare, the log of a reference.
//
// A link may only lead down, by names that are judged one by one. So no chain of links reaches another
// place than its names say: a directory in which names mean something else (refs, info) has no second
// name, see MayLeadAway. Links that tools make there lead down: HEAD to refs/heads, and the locks of
// Mercurial and Emacs, which name a process.
func (r *Rules) LeadsOut(p Place, target string) bool {
	dir, _ := r.folded(p)
	if !slices.ContainsFunc(dir, func(name string) bool { return metadata[name] }) && !p.InRepository() || r.free.match(p) {
		return false
	}
	if strings.HasPrefix(target, "/") {
		return true
	}
	at := p
	at.IsDir, at.Made = func() bool { return false }, func() bool { return false }
	at.Contains = func([]string) bool { return true }
	for part := range strings.SplitSeq(strings.TrimRight(target, "/"), "/") {
		switch part {
		case "":
			continue
		case ".", "..":
			return true
		}
		if at.Name = part; r.mayGuard(at) {
			return true
		}
		at.Dir = append(slices.Clip(at.Dir), part)
	}
	at.Dir = at.Dir[:max(len(at.Dir)-1, 0)]
	at.Has = func(string) bool { return true }
	return r.MayLeadAway(at)
}

// mayGuard reports whether a path is guarded or hidden, whatever its directory has.
func (r *Rules) mayGuard(p Place) bool {
	return slices.ContainsFunc([]bool{true, false}, func(has bool) bool {
		p.Has = func(string) bool { return has }
		kind, _ := r.Judge(p)
		return kind == Guarded || kind == Hidden
	})
}

// Guards reports whether a path of a share, or a directory on the way to it, is guarded or hidden by its
// names.
func (r *Rules) Guards(at string) bool {
	names := strings.Split(at, "/")
	for i := range names {
		kind, _ := r.Judge(Place{
			Dir: names[:i], Name: names[i], Has: func(string) bool { return false }, IsDir: func() bool { return i+1 < len(names) },
			Contains: func([]string) bool { return true }, Made: func() bool { return false },
		})
		if kind == Guarded || kind == Hidden {
			return true
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
