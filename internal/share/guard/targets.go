package guard

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/format/config"
)

// maxConfig bounds the configuration of git that is read, in bytes.
const maxConfig = 1 << 20

// Targets returns paths of a project, from its root, that the host's own configuration runs or
// reads: what the project's .git/config names (core.hooksPath, core.fsmonitor, included
// files, filters), and where guarded paths of its root lead that are symbolic links; and
// where hidden ones lead. It reads the host's files, before a guest runs. What it cannot
// read names nothing.
func Targets(root string) (guarded, hidden []string) {
	inside := func(path string) (rel string, ok bool) {
		rel, err := filepath.Rel(root, path)
		return rel, err == nil && rel != "." && rel != ".." && !strings.HasPrefix(rel, "../") && rel != ".git"
	}
	for _, named := range namedByGit(root) {
		if rel, ok := inside(named); ok {
			guarded = append(guarded, rel)
		}
	}
	for _, rules := range [][]Rule{Defaults, gitPaths} {
		for _, r := range rules {
			rel, ok := inside(linkTarget(filepath.Join(root, r.Path)))
			switch {
			case ok && r.Kind == Guarded:
				guarded = append(guarded, rel)
			case ok && r.Kind == Hidden:
				hidden = append(hidden, rel)
			}
		}
	}
	return guarded, hidden
}

// linkTarget returns where a symbolic link leads, and "" for anything else.
func linkTarget(path string) string {
	if fi, err := os.Lstat(path); err != nil || fi.Mode()&os.ModeSymlink == 0 {
		return ""
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return ""
	}
	return real
}

var gitPaths = []Rule{
	{Path: ".git/config", Kind: Guarded}, {Path: ".git/hooks", Kind: Guarded}, {Path: ".git/info", Kind: Guarded},
	{Path: ".git/info/attributes", Kind: Guarded}, {Path: ".git/config.worktree", Kind: Guarded},
	{Path: ".claude", Kind: Guarded}, {Path: ".codex", Kind: Guarded}, {Path: ".gemini", Kind: Guarded}, {Path: ".cursor", Kind: Guarded},
}

// namedByGit returns the paths that values of a project's .git/config name.
func namedByGit(root string) []string {
	f, err := os.Open(filepath.Join(root, ".git/config"))
	if err != nil {
		return nil
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxConfig))
	if err != nil {
		return nil
	}
	c := config.New()
	if err := config.NewDecoder(bytes.NewReader(text)).Decode(c); err != nil {
		return nil // git does not read it either
	}
	var list []string
	section := func(name, option, value string) {
		switch {
		case name == "core" && option == "hookspath":
			list = append(list, from(root, value))
		case (name == "include" || name == "includeif") && option == "path":
			list = append(list, from(filepath.Join(root, ".git"), value))
		case runs(name, option):
			for _, word := range strings.Fields(value) {
				path := from(root, strings.Trim(word, `"'!`))
				if fi, err := os.Stat(path); err == nil && fi.Mode().IsRegular() {
					list = append(list, path)
				}
			}
		}
	}
	for _, s := range c.Sections {
		for _, o := range s.Options {
			section(strings.ToLower(s.Name), strings.ToLower(o.Key), o.Value)
		}
		for _, sub := range s.Subsections {
			for _, o := range sub.Options {
				section(strings.ToLower(s.Name), strings.ToLower(o.Key), o.Value)
			}
		}
	}
	return list
}

func from(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

// runs reports whether the value of a variable of git's configuration is a command, or a file
// that leads to one (git-config(1)).
func runs(section, option string) bool {
	switch section {
	case "core":
		switch option {
		case "fsmonitor", "sshcommand", "editor", "pager", "askpass", "gitproxy", "attributesfile", "alternaterefscommand":
			return true
		}
	case "filter", "alias", "credential", "gpg", "sequence", "pager", "difftool", "mergetool", "merge", "diff", "uploadpack", "browser", "man", "trailer":
		return true
	}
	return false
}
