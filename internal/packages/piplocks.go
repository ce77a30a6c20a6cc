package packages

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sys/toml"
)

// The lock files of uv, Poetry and PDM, and the common one of PEP 751, name each package with the hashes of its
// files, as a requirements.txt with hashes does. Of those that are at an index, only the ones of the public index, or
// of the index that the host's settings name, are taken: the name of a package of another one is not told to them.

// pythonPackage is a package of a lock file.
type pythonPackage struct {
	name   string
	index  string // URL; empty for that of the settings
	other  bool   // it is not of an index: of git, of an address, of a folder
	hashes []string
}

// pythonLock returns what reads the packages of a lock file of that name; nil if it is none of these.
func pythonLock(file string) func(toml.Table) []pythonPackage {
	switch file {
	case "uv.lock":
		return uvPackages
	case "poetry.lock":
		return poetryPackages
	case "pdm.lock":
		return pdmPackages
	}
	if file == "pylock.toml" || strings.HasPrefix(file, "pylock.") && strings.HasSuffix(file, ".toml") {
		return pylockPackages
	}
	return nil
}

// locked returns the packages of a lock file that are at the index and have hashes.
func (i *pythonIndex) locked(text []byte, read func(toml.Table) []pythonPackage) (wants []want, err error) {
	lock, err := toml.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("it is not a lock file: %w", err)
	}
	bare, addresses := false, i.addresses()
	for _, p := range read(lock) {
		if p.other || len(p.name) > maxPipName || !pythonName().MatchString(p.name) || p.index != "" && !slices.Contains(addresses, plainAddress(p.index)) {
			continue
		}
		hashes := map[string]bool{}
		for _, h := range p.hashes {
			if sum, ok := strings.CutPrefix(h, "sha256:"); ok && isSHA256(sum) && len(hashes) < maxHashes {
				hashes[sum] = true
			}
		}
		if len(hashes) == 0 {
			bare = true
			continue
		}
		wants = append(wants, i.want(pipName(p.name), hashes))
	}
	if len(wants) == 0 && bare {
		return nil, errors.New("it has no SHA-256 hashes, without which packages cannot be verified")
	}
	return wants, nil
}

// pythonName matches the name of a package (PyPA specifications, Names and normalization).
var pythonName = pattern(`^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?$`)

// addresses returns those of the index, as plainAddress writes them: its own, and that of the public index, for which it stands.
func (i *pythonIndex) addresses() []string {
	list := []string{plainAddress(i.base)}
	for _, p := range policy.Presets() {
		if p.Name == "pypi" {
			list = append(list, "https://"+p.Rules[0]+"/simple")
		}
	}
	return list
}

// plainAddress returns an address without user, query, fragment and slashes at its end.
func plainAddress(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return s
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return strings.TrimRight(u.String(), "/")
}

// uvPackages reads a uv.lock.
func uvPackages(lock toml.Table) (list []pythonPackage) {
	for _, t := range lock.Tables("package") {
		p := pythonPackage{name: t.Text("name"), index: t.Table("source").Text("registry")}
		p.other = p.index == ""
		for _, file := range append(t.Tables("wheels"), t.Table("sdist")) {
			p.hashes = append(p.hashes, file.Text("hash"))
		}
		list = append(list, p)
	}
	return list
}

// filesOf are the files of packages in a table of their own, each taken once: a lock file may have the same package a hundred
// thousand times, and all files of the table for each.
type filesOf struct {
	table toml.Table
	taken map[string]bool
}

func newFilesOf(lock toml.Table) filesOf {
	return filesOf{lock.Table("metadata").Table("files"), map[string]bool{}}
}

func (f filesOf) take(key string) []toml.Table {
	if f.taken[key] {
		return nil
	}
	f.taken[key] = true
	return f.table.Tables(key)
}

// poetryPackages reads a poetry.lock; before version 2 of its format, the hashes are in a table of their own.
func poetryPackages(lock toml.Table) (list []pythonPackage) {
	old := newFilesOf(lock)
	for _, t := range lock.Tables("package") {
		source := t.Table("source")
		p := pythonPackage{name: t.Text("name"), index: source.Text("url"), other: source != nil && source.Text("type") != "legacy"}
		if p.other {
			continue
		}
		for _, file := range append(t.Tables("files"), old.take(p.name)...) {
			p.hashes = append(p.hashes, file.Text("hash"))
		}
		list = append(list, p)
	}
	return list
}

// pdmPackages reads a pdm.lock; before version 4 of its format, the hashes are in a table of their own.
func pdmPackages(lock toml.Table) (list []pythonPackage) {
	old := newFilesOf(lock)
	for _, t := range lock.Tables("package") {
		p := pythonPackage{name: t.Text("name"), other: t.Text("git") != "" || t.Text("path") != "" || t.Text("url") != ""}
		if p.other {
			continue
		}
		for _, file := range append(t.Tables("files"), old.take(p.name+" "+t.Text("version"))...) {
			p.hashes = append(p.hashes, file.Text("hash"))
		}
		list = append(list, p)
	}
	return list
}

// pylockPackages reads a pylock.toml (PyPA specifications, pylock.toml).
func pylockPackages(lock toml.Table) (list []pythonPackage) {
	for _, t := range lock.Tables("packages") {
		p := pythonPackage{name: t.Text("name"), index: t.Text("index")}
		p.other = t["vcs"] != nil || t["directory"] != nil || t["archive"] != nil
		for _, file := range append(t.Tables("wheels"), t.Table("sdist")) {
			p.hashes = append(p.hashes, "sha256:"+file.Table("hashes").Text("sha256"))
		}
		list = append(list, p)
	}
	return list
}
