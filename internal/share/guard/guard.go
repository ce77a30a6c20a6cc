// Package guard decides which paths of a share a guest may not change on the host, and which
// it may not see.
//
// # Theory of operation
//
// The host runs or trusts some files of a project: git's configuration and hooks, tasks of
// editors, environments of a shell, configuration of agents. Others hold secrets. A Rules is
// the list of both (list.go), compiled. Judge gets one name in one directory, as the host
// has them, and returns what applies. It is pure: what it must know of the host (whether a
// directory has a HEAD, what a file contains) it asks through Place, and only for names that
// depend on it, so that all other names cost one look-up in a map (Candidate).
//
// The share server (package share) enforces the answer: it keeps the guest's changes of a
// guarded path, and files that the guest makes with a hidden name, as private versions in
// the sandbox's state.
//
// # Repositories
//
// In a directory named .git, or below one, git's own files are guarded by name. Everywhere
// else a directory becomes a (bare) repository as soon as it has HEAD, objects and refs, and
// git on the host then trusts config and hooks beside them. So HEAD is guarded where the host
// has none, and config, hooks and commondir are guarded where the host has a HEAD, or a configuration of
// git's: no order in which a guest makes and removes them gives the host a repository with a configuration of
// the guest.
package guard

import (
	"maps"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// Kind is what applies to a path.
type Kind int

// The kinds.
const (
	Free    Kind = iota // the guest and the host share it
	Noted               // as Free, and a change is logged
	Guarded             // the guest reads the host's and changes a private version
	Hidden              // the guest does not see the host's
)

// Place is a name in a directory of the host. The functions are called only where the
// answer depends on them.
type Place struct {
	Dir  []string // components from the root of the share; the parents as they are on the host
	Name string
	// Folds reports whether the file system takes names that differ in case for the same.
	Folds bool
	// Has reports whether the directory has an entry with the name on the host.
	Has func(name string) bool
	// HasConfig reports whether the directory has a file "config" on the host, not the guest's, that is one
	// of git's by what it contains (GitConfig). Nil: it has none.
	HasConfig func() bool
	// IsDir reports whether Name is, or is about to be, a directory.
	IsDir func() bool
	// Contains reports whether Name is a regular file of the host that contains one of the
	// texts near its beginning.
	Contains func(texts []string) bool
	// Made reports whether the guest made the entry that the host has.
	Made func() bool
	// InRepository reports whether the directory, or one above it, is a repository by what it has.
	// Only MayLeadAway and LeadsOut call it, and IsDir, Contains and Made may be nil for them.
	InRepository func() bool
}

// Rules are compiled rules. They do not change, and may be used by several goroutines.
type Rules struct {
	names  map[string][]*Rule // last component, folded
	globs  globs              // default rules whose last component is a pattern
	deep   []*Rule            // default rules of more than one component
	exact  map[string]Kind    // folded paths from the root (Options.Paths, Options.HiddenPaths)
	lasts  map[string]bool    // their last components
	known  map[string]bool    // keys of names, gitNames and lasts
	guard  *patterns          // of the user
	free   *patterns
	hide   *patterns
	show   *patterns
	prefix []string
	own    string // Options.Worktree
}

// Options are what the user adds to and takes from the default rules: patterns in the syntax
// of gitignore, relative to the root of the share.
type Options struct {
	Guard   []string `json:"guard,omitempty"`
	NoGuard []string `json:"noGuard,omitempty"`
	Hide    []string `json:"hide,omitempty"`
	Show    []string `json:"show,omitempty"`
	// Paths are guarded as well: paths from the root that the host's configuration names.
	Paths []string `json:"paths,omitempty"`
	// HiddenPaths are hidden as well, in the same form.
	HiddenPaths []string `json:"hiddenPaths,omitempty"`
	// Prefix are the components of the root's own path: it may lie below .git, or be a directory
	// that guarded paths lie in, such as .claude.
	Prefix []string `json:"prefix,omitempty"`
	// Worktree means that the root is the git directory that several working trees have in
	// common, and names the linked one of the guest (worktree.go).
	Worktree string `json:"worktree,omitempty"`
}

// New compiles the default rules with options. An error is a *PatternError.
func New(o Options) (*Rules, error) {
	r := &Rules{names: map[string][]*Rule{}, globs: globs{ends: map[string][]*Rule{}}, exact: map[string]Kind{}, lasts: map[string]bool{}, prefix: o.Prefix, own: o.Worktree}
	for _, rule := range Defaults {
		r.add(rule)
	}
	for kind, paths := range map[Kind][]string{Guarded: o.Paths, Hidden: o.HiddenPaths} {
		for _, p := range paths {
			r.exact[fold(p)] = max(kind, r.exact[fold(p)])
			r.lasts[fold(path.Base(p))] = true
		}
	}
	r.known = maps.Clone(gitNames)
	maps.Copy(r.known, r.lasts)
	for name := range r.names {
		r.known[name] = true
	}
	for _, s := range []struct {
		into **patterns
		text []string
	}{{&r.guard, o.Guard}, {&r.free, o.NoGuard}, {&r.hide, o.Hide}, {&r.show, o.Show}} {
		p, err := compile(s.text)
		if err != nil {
			return nil, err
		}
		*s.into = p
	}
	return r, nil
}

// add compiles a copy of a default rule: Defaults is shared by all servers of a process.
func (r *Rules) add(from Rule) {
	rule := &from
	rule.parts = strings.Split(fold(rule.Path), "/")
	last := rule.parts[len(rule.parts)-1]
	rule.glob = globOf(last)
	if strings.ContainsAny(last, "*#") {
		r.globs.add(rule)
	} else {
		r.names[last] = append(r.names[last], rule)
	}
	if len(rule.parts) > 1 {
		r.deep = append(r.deep, rule)
	}
}

// fold returns the form in which names are compared: NFC, lower case.
func fold(name string) string {
	ascii, lower := true, true
	for i := range len(name) {
		c := name[i]
		ascii = ascii && c < 0x80
		lower = lower && (c < 'A' || c > 'Z')
	}
	switch {
	case ascii && lower:
		return name
	case ascii:
		return strings.ToLower(name)
	}
	// Special letters whose lower case is ASCII: the long s and the Kelvin sign.
	return strings.NewReplacer("ſ", "s", "K", "k").Replace(strings.ToLower(norm.NFC.String(name)))
}

// Fold returns the form in which names are the same that any file system takes for the same.
func Fold(name string) string { return foldOn(true, name) }

// foldOn is fold for a name on a file system that folds: such file systems also drop dots
// and spaces at the end, leave out characters that cannot be seen (ext4's casefold, HFS+), compare
// by full case folding, and have a short name for .git and names for streams (NTFS).
func foldOn(folds bool, name string) string {
	name = fold(name)
	if !folds {
		return name
	}
	if strings.ContainsFunc(name, func(r rune) bool { return r >= utf8.RuneSelf }) {
		name = strings.Map(func(r rune) rune {
			if unicode.In(r, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector) {
				return -1
			}
			return r
		}, name)
		name = norm.NFC.String(cases.Fold().String(norm.NFD.String(name)))
	}
	if before, _, stream := strings.Cut(name, ":"); stream && before != "" {
		name = before
	}
	name = strings.TrimRight(name, ". ")
	if name == "git~1" {
		name = ".git"
	}
	return name
}

// tempPrefix begins the names of files that bawn makes in a share for a moment, while it replaces
// one for a person. It is the same as undo.TempPrefix. The names are hidden whatever the user's
// patterns say, so that a guest cannot write to such a file before it has its place.
const tempPrefix = ".bawn-"

// Candidate reports whether Judge could return anything but Free for a name, in whatever
// directory. It is cheap.
func (r *Rules) Candidate(name string) bool {
	if r.guard != nil || r.hide != nil || r.own != "" || strings.HasPrefix(name, tempPrefix) {
		return true
	}
	name = foldOn(true, name)
	return r.candidate(name) || slices.ContainsFunc(originals(name), r.candidate) || slices.ContainsFunc(saves(name), r.candidate)
}

func (r *Rules) candidate(name string) bool {
	if r.known[name] {
		return true
	}
	return r.globs.find(name, func(*Rule) bool { return true }) != nil
}

// AsksMade reports whether what applies to a name may depend on who made the file.
func (r *Rules) AsksMade(name string) bool {
	name = foldOn(true, name)
	if name == "gitdir" || name == "config" {
		return true
	}
	return slices.ContainsFunc(slices.Concat(originals(name), saves(name), []string{name}), func(name string) bool {
		asks := func(rule *Rule) bool { return rule.holds != nil || rule.there }
		return slices.ContainsFunc(r.names[name], asks) || r.globs.find(name, asks) != nil
	})
}

// Judge returns what applies to a name, and the default rule that says so, or nil if the
// user's or git's rules say it.
func (r *Rules) Judge(p Place) (Kind, *Rule) {
	if strings.HasPrefix(p.Name, tempPrefix) || r.ofOthers(p) {
		return Hidden, nil
	}
	kind, rule := r.judge(p)
	if kind == Free || kind == Noted {
		for _, name := range saves(foldOn(p.Folds, p.Name)) {
			q := p
			q.Name = name
			if k, of := r.judge(q); k == Guarded && !r.free.match(q) {
				kind, rule = k, of
			}
		}
	}
	if kind != Hidden {
		for _, name := range originals(foldOn(p.Folds, p.Name)) {
			q := p
			q.Name = name
			if k, of := r.judge(q); k == Hidden && !r.show.match(q) {
				kind, rule = k, of
			}
		}
	}
	switch {
	case (kind == Guarded || kind == Noted) && r.free.match(p):
		return Free, nil
	case kind == Hidden && r.show.match(p):
		return Free, nil
	}
	return kind, rule
}

func (r *Rules) judge(p Place) (Kind, *Rule) {
	if r.hide.match(p) && !r.show.match(p) {
		return Hidden, nil
	}
	if r.guard.match(p) {
		return Guarded, nil
	}
	if r.ofMain(p) {
		return Guarded, nil
	}
	name := foldOn(p.Folds, p.Name)
	if !r.candidate(name) {
		return Free, nil
	}
	if r.lasts[name] {
		if kind := r.exact[fold(strings.Join(append(slices.Clip(p.Dir), p.Name), "/"))]; kind != Free {
			return kind, nil
		}
	}
	dir, _ := r.folded(p)
	if gitNames[name] && r.inGit(p, dir, name) {
		return Guarded, gitRule(name)
	}
	for _, rule := range r.names[name] {
		if rule.applies(p, dir) {
			return rule.Kind, rule
		}
	}
	if rule := r.globs.find(name, func(rule *Rule) bool { return rule.applies(p, dir) }); rule != nil {
		return rule.Kind, rule
	}
	return Free, nil
}
