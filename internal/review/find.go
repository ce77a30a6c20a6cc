package review

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"bawn.dev/bawn/internal/undo"
)

// readLimit bounds what is read of one file to judge it, in bytes.
const readLimit = 1 << 20

// Finder judges changes of one project.
type Finder struct {
	// Src has the contents. Without one, only names and attributes are judged.
	Src Source
	// LeadsOut reports whether the target of a symbolic link at a path leads out of the project.
	LeadsOut func(at, target string) bool
	// Guarded reports whether it leads to what is guarded or hidden in the project: programs of the host that
	// write to the link write there.
	Guarded func(at, target string) bool
}

// Find returns why the host may run or trust a changed path; several reasons make several
// findings.
func (f *Finder) Find(c *undo.Change) []Finding {
	if c.Accepted {
		return nil // the person has seen it
	}
	if below, ok := gitPath(c.Path); ok {
		if list, ok := f.gitFile(c, below); ok {
			return list
		}
		if n, ok := nameClass(inGit, below); ok && c.Now.Kind != undo.Absent && c.Now.Kind != undo.Dir {
			return one(c, n.class, n.why)
		}
		return nil
	}
	switch {
	case c.From != "":
		return one(c, Moved, "was "+c.From)
	case c.Now.Kind == undo.Link:
		switch target := string(c.Now.Target); {
		case f.LeadsOut(c.Path, target):
			return one(c, LinkOut, "leads to "+target)
		case f.Guarded(c.Path, target):
			return one(c, LinkOut, "leads to "+target+", which is guarded or hidden")
		}
	case c.Now.Kind == undo.File:
		return slices.Concat(f.modes(c), f.byName(c), f.secrets(c))
	case c.Now.Kind == undo.Dir && c.Was.Kind == undo.Dir:
		return f.modes(c)
	case c.Now.Kind == undo.Other:
		return one(c, Mode, "a FIFO or a socket: what opens it waits")
	}
	return nil
}

// one returns the only finding about a change.
func one(c *undo.Change, class Class, why string) []Finding {
	return []Finding{{Path: c.Path, Class: class, Why: why}}
}

// modes judges the permissions.
func (f *Finder) modes(c *undo.Change) []Finding {
	runs, ran := c.Now.Mode&0o111 != 0, c.Was.Mode&0o111 != 0
	switch {
	case c.Now.Kind == undo.File && runs && c.Was.Kind != undo.File:
		return one(c, Executable, "new executable")
	case c.Now.Kind == undo.File && runs && !ran:
		return one(c, Executable, "was made executable")
	case c.Now.Kind == undo.File && runs && (c.Now.Size != c.Was.Size || c.Was.Blob == "" || f.differs(c)):
		return one(c, Executable, "executable with new contents")
	case c.Was.Kind == c.Now.Kind && c.Now.Mode != c.Was.Mode:
		return one(c, Mode, fmt.Sprintf("mode %04o, was %04o", c.Now.Mode, c.Was.Mode))
	}
	return nil
}

// differs reports whether the contents may differ.
func (f *Finder) differs(c *undo.Change) bool {
	if f.Src == nil || c.Now.Mode == c.Was.Mode {
		return true // it would be no change otherwise
	}
	was, ok := f.Src.Before(c, readLimit)
	now, also := f.Src.Now(c, readLimit)
	return !ok || !also || !bytes.Equal(was, now)
}

// byName judges a file by its name, and package.json by what changed in it.
func (f *Finder) byName(c *undo.Change) []Finding {
	if strings.EqualFold(path.Base(c.Path), "package.json") {
		return f.packageJSON(c)
	}
	n, ok := nameClass(byName, c.Path)
	if !ok {
		return nil
	}
	why := n.why
	if c.Was.Kind == undo.Absent {
		why = "new; " + why
	}
	return one(c, n.class, why)
}

// packageKeys are the keys of package.json whose values are commands, or packages that bring
// some.
var packageKeys = []string{
	"dependencies", "devDependencies", "optionalDependencies", "peerDependencies", "bundledDependencies", "overrides", "resolutions", "pnpm",
	"bin", "workspaces", "packageManager", "gypfile", "lint-staged", "husky", "simple-git-hooks", "gitHooks", "config", "engines",
}

// packageJSON names the scripts and the keys that changed.
func (f *Finder) packageJSON(c *undo.Change) []Finding {
	if f.Src == nil {
		return one(c, Script, "scripts and dependencies")
	}
	var was, now map[string]any
	data, ok := f.Src.Now(c, readLimit)
	if !ok || json.Unmarshal(data, &now) != nil {
		return one(c, Script, "its scripts cannot be read")
	}
	if data, ok := f.Src.Before(c, readLimit); ok {
		_ = json.Unmarshal(data, &was) // what it was not able to say, it did not have
	}
	scripts := changedKeys(object(was["scripts"]), object(now["scripts"]))
	var why []string
	if len(scripts) > 0 {
		why = append(why, "scripts: "+shorten(scripts))
	}
	var keys []string
	for _, k := range packageKeys {
		if !reflect.DeepEqual(was[k], now[k]) {
			keys = append(keys, k)
		}
	}
	if len(keys) > 0 {
		why = append(why, shorten(keys))
	}
	if len(why) == 0 {
		return nil
	}
	return one(c, Script, strings.Join(why, "; "))
}

func object(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

// changedKeys returns the keys whose values differ.
func changedKeys(was, now map[string]any) (list []string) {
	all := maps.Clone(now)
	if all == nil {
		all = map[string]any{}
	}
	maps.Copy(all, was)
	for _, k := range slices.Sorted(maps.Keys(all)) {
		if !reflect.DeepEqual(was[k], now[k]) {
			list = append(list, k)
		}
	}
	return list
}

// shown is how many names a line has.
const shown = 6

func shorten(list []string) string {
	if len(list) > shown {
		return strings.Join(list[:shown], ", ") + fmt.Sprintf(" and %d more", len(list)-shown)
	}
	return strings.Join(list, ", ")
}

// secretText are forms of keys and tokens that their makers document.
var secretText = regexp.MustCompile(`PRIVATE KEY-----|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[0-9A-Za-z]{36}|\bgithub_pat_[0-9A-Za-z_]{60}|\bglpat-[0-9A-Za-z_-]{20}|\bxox[abprs]-[0-9A-Za-z-]{20}|\bsk-(?:ant|proj|live)-[0-9A-Za-z_-]{20}|\b[sr]k_live_[0-9A-Za-z]{20}|\bAIza[0-9A-Za-z_-]{35}|\bnpm_[0-9A-Za-z]{36}|\bpypi-[0-9A-Za-z_-]{50}|\bhf_[0-9A-Za-z]{30}|\beyJ[0-9A-Za-z_-]{20,}\.eyJ[0-9A-Za-z_-]{20,}\.`)

// secrets finds files that hold what looks like a key or a token, and did not before.
func (f *Finder) secrets(c *undo.Change) []Finding {
	if f.Src == nil || c.Now.Size > readLimit {
		return nil
	}
	now, ok := f.Src.Now(c, readLimit)
	if !ok || !secretText.Match(now) {
		return nil
	}
	was, _ := f.Src.Before(c, readLimit)
	for _, s := range secretText.FindAll(now, 64) {
		if !bytes.Contains(was, s) {
			return one(c, Secret, "holds what looks like a key or a token")
		}
	}
	return nil
}
