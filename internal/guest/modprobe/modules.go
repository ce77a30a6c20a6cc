// Package modprobe loads kernel modules with what they need, as modprobe(8) does, and
// makes the device files that modules ask for.
package modprobe

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sys/kmod"
)

// DiskDir is where the initramfs mounts the disk with the kernel's modules. The kernel
// runs its helper processes, such as Main, in the initramfs.
const DiskDir = "/modules"

// Dir returns the folder of the running kernel's modules below root.
func Dir(root string) string { return root + "/lib/modules/" + Release() }

// Release returns the running kernel's version, as uname -r prints it.
func Release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// parameters are the parameters that modules are loaded with, by module name. With
// napi_tx the card interrupts the guest for what it has sent twice for each connection;
// without it, only when its queue is full. Under software emulation that is a fifth of
// the cost of a connection.
var parameters = map[string]string{"virtio_net": "napi_tx=0"}

// loadFile loads the module in a file. A module that is loaded already is no error.
func loadFile(file, name string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("module: %w", err)
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), parameters[name], 0)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("module %s: %w", path.Base(file), err)
	}
	return nil
}

// LoadNumbered loads the modules in dir, whose files are named NUMBER-FILE, in the order
// of their names.
func LoadNumbered(dir string) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("boot modules: %w", err)
	}
	for _, e := range list {
		_, file, _ := strings.Cut(e.Name(), "-") // behind its number
		if err := loadFile(filepath.Join(dir, e.Name()), kmod.Name(file)); err != nil {
			return err
		}
	}
	return nil
}

// Main is the program that the kernel runs when it wants a module (sysctl
// kernel.modprobe). Its arguments end with the module's name or alias. It returns the
// exit status.
func Main(args []string) int {
	if len(args) == 0 {
		return 1
	}
	if err := Load(Dir(DiskDir), args[len(args)-1]); err != nil {
		return 1 // not reported: the kernel often tries names that do not exist
	}
	return 0
}

var errNoModule = errors.New("no such module")

// Load loads the modules that a name or alias stands for, and all modules that they
// need, from the folder dir with the indexes of depmod(8).
func Load(dir, name string) error {
	files, err := filesToLoad(dir, name)
	if err != nil {
		return err
	}
	for _, f := range files {
		err = errors.Join(err, loadFile(dir+"/"+f, kmod.Name(f)))
	}
	return err
}

// filesToLoad returns the files to load for a name or alias, in order, relative to dir.
func filesToLoad(dir, name string) ([]string, error) {
	deps, err := readIndex(dir+"/modules.dep", kmod.ReadDeps)
	if err != nil {
		return nil, err
	}
	names := []string{kmod.Underscored(name)}
	if _, ok := deps[names[0]]; !ok {
		match := func(r io.Reader) ([]string, error) { return kmod.MatchAlias(r, name) }
		if names, err = readIndex(dir+"/modules.alias", match); err != nil {
			return nil, err
		}
	}
	// Aliases also name modules that are part of the kernel.
	names = slices.DeleteFunc(names, func(n string) bool { return len(deps[n]) == 0 })
	if len(names) == 0 {
		return nil, fmt.Errorf("%s: %w", name, errNoModule)
	}
	return deps.LoadOrder(names...)
}

func readIndex[T any](file string, read func(io.Reader) (T, error)) (T, error) {
	f, err := os.Open(file)
	if err != nil {
		var none T
		return none, err
	}
	defer f.Close()
	return read(f)
}
