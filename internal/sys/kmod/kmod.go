// Package kmod reads the indexes of Linux's kernel modules, as depmod(8) writes them.
//
// A module's name has underscores where its file may have hyphens; the two are the
// same (modprobe(8)).
package kmod

import (
	"bufio"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// Name returns the name of the module in a file.
func Name(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return Underscored(name)
}

// Underscored returns a module's name or alias with underscores for hyphens. In a
// pattern's brackets a hyphen is a range, and stays.
func Underscored(name string) string {
	bracket := false
	return strings.Map(func(r rune) rune {
		switch {
		case r == '[':
			bracket = true
		case r == ']':
			bracket = false
		case r == '-' && !bracket:
			return '_'
		}
		return r
	}, name)
}

// Deps are the files to load for each module, by its name: its own file, and then the
// files of all modules that it needs, directly or not, each before those that it needs
// itself. Paths are relative to the folder of modules.dep.
type Deps map[string][]string

// ReadDeps reads modules.dep(5): "kernel/a.ko: kernel/b.ko kernel/c.ko", where a needs
// b and c, and b needs c or nothing.
func ReadDeps(r io.Reader) (Deps, error) {
	deps := Deps{}
	err := eachLine(r, func(line string) {
		if file, needs, ok := strings.Cut(line, ":"); ok {
			deps[Name(file)] = append([]string{file}, strings.Fields(needs)...)
		}
	})
	return deps, err
}

// LoadOrder returns the files to load for the modules of the given names, each once,
// after what it needs. A module that is not in d is an error.
func (d Deps) LoadOrder(names ...string) ([]string, error) {
	var order []string
	for _, name := range names {
		files, ok := d[name]
		if !ok {
			return nil, fmt.Errorf("the kernel has no module %s", name)
		}
		for _, f := range slices.Backward(files) {
			if !slices.Contains(order, f) {
				order = append(order, f)
			}
		}
	}
	return order, nil
}

// ReadBuiltin reads modules.builtin: the names of the modules that are in the kernel's
// image and need no loading.
func ReadBuiltin(r io.Reader) (map[string]bool, error) {
	names := map[string]bool{}
	err := eachLine(r, func(line string) {
		if line = strings.TrimSpace(line); line != "" {
			names[Name(line)] = true
		}
	})
	return names, err
}

// MatchAlias reads modules.alias and returns the names of the modules that it gives
// for an alias, such as "pci:v00001AF4d…".
func MatchAlias(r io.Reader, alias string) ([]string, error) {
	alias = Underscored(alias)
	var names []string
	err := eachLine(r, func(line string) {
		f := strings.Fields(line)
		if len(f) != 3 || f[0] != "alias" {
			return
		}
		if ok, err := path.Match(Underscored(f[1]), alias); ok && err == nil {
			names = append(names, Underscored(f[2]))
		}
	})
	return names, err
}

func eachLine(r io.Reader, do func(string)) error {
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		do(sc.Text())
	}
	return sc.Err()
}
