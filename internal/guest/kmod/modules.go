// Package kmod loads kernel modules with what they need, as modprobe(8) does, and makes
// the device files that modules ask for.
package kmod

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// DiskDir is where the disk with the kernel's modules is mounted in the
// initramfs: there the kernel's helper processes live.
const DiskDir = "/modules"

func Dir(root string) string { return root + "/lib/modules/" + Release() }

// Release is uname -r.
func Release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// moduleParams are what modules are loaded with, by name. Without napi_tx the card
// interrupts the guest for what it has sent only when its queue is full, not twice for
// each connection, which is a fifth of its cost under software emulation.
var moduleParams = map[string]string{"virtio_net": "napi_tx=0"}

// Load loads one file, the module of that name; one that is loaded already is no error.
func Load(file, name string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("module: %w", err)
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), moduleParams[name], 0)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("module %s: %w", path.Base(file), err)
	}
	return nil
}

// LoadAll loads the modules in dir, which are named NUMBER-FILE, in order of
// their numbers.
func LoadAll(dir string) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("boot modules: %w", err)
	}
	for _, e := range list {
		_, file, _ := strings.Cut(e.Name(), "-") // behind its number
		if err := Load(filepath.Join(dir, e.Name()), Name(file)); err != nil {
			return err
		}
	}
	return nil
}

// Modprobe is the program that the kernel runs when it wants a module; its
// arguments end with the module's name or alias.
func Modprobe(args []string) int {
	if len(args) == 0 {
		return 1
	}
	if err := Probe(Dir(DiskDir), args[len(args)-1]); err != nil {
		return 1 // the kernel tries names that do not exist all the time
	}
	return 0
}

var errNoModule = errors.New("no such module")

// Probe loads the modules that a name or alias stands for, with what they need.
func Probe(dir, name string) error {
	files, err := needed(dir, name)
	if err != nil {
		return err
	}
	for _, f := range files {
		err = errors.Join(err, Load(dir+"/"+f, Name(f)))
	}
	return err
}

// needed are the files to load for a name or alias, in order.
func needed(dir, name string) ([]string, error) {
	deps, err := readDeps(dir)
	if err != nil {
		return nil, err
	}
	name = underscored(name)
	names := []string{name}
	if _, ok := deps[name]; !ok {
		if names, err = aliases(dir, name); err != nil {
			return nil, err
		}
	}
	var files []string
	for _, n := range names {
		list := slices.Clone(deps[n])
		slices.Reverse(list) // what others need stands last
		files = append(files, list...)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s: %w", name, errNoModule)
	}
	return files, nil
}

// underscored is how modules are named, whatever their files are. In a pattern's
// brackets a hyphen is a range, and stays.
func underscored(name string) string {
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

func Name(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return underscored(name)
}

// readDeps reads modules.dep (depmod(8)): for each module its file, then those
// that it needs.
func readDeps(dir string) (map[string][]string, error) {
	deps := map[string][]string{}
	err := eachLine(dir+"/modules.dep", func(l string) {
		file, needs, ok := strings.Cut(l, ":")
		if ok {
			deps[Name(file)] = append([]string{file}, strings.Fields(needs)...)
		}
	})
	return deps, err
}

// aliases are the modules that modules.alias gives for a name.
func aliases(dir, name string) ([]string, error) {
	var names []string
	err := eachLine(dir+"/modules.alias", func(l string) {
		f := strings.Fields(l)
		if len(f) != 3 || f[0] != "alias" {
			return
		}
		if ok, err := path.Match(underscored(f[1]), name); ok && err == nil {
			names = append(names, underscored(f[2]))
		}
	})
	return names, err
}

func eachLine(file string, use func(string)) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		use(sc.Text())
	}
	return sc.Err()
}
