package oci

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sys/regular"
)

// maxFile bounds a file of a container that is read, in bytes. The lists of distributions
// have some 250 KiB.
const maxFile = 2 << 20

// rootfs is the root of a container that has not started. Its owner wrote everything in it.
type rootfs struct{ *os.File }

func openRootfs(path string) (rootfs, error) {
	f, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY, 0)
	return rootfs{f}, err
}

// open opens a path with all links on the way resolved in the root (openat2(2),
// RESOLVE_IN_ROOT), without opening what is there: a device or a pipe stays untouched.
func (r rootfs) open(path string) (*os.File, error) {
	fd, err := unix.Openat2(int(r.Fd()), path, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// read returns the contents of a regular file. Of what is missing or is no regular file, it
// returns nil; a file of more than maxFile bytes is an error.
func (r rootfs) read(path string) ([]byte, error) {
	f, err := r.open(path)
	if err != nil {
		return nil, nil // an image has few of the files that are looked for
	}
	defer f.Close()
	return readRegular(f)
}

// readRegular is read for a file that is open as a path only.
func readRegular(f *os.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, err
	}
	b, err := regular.Read(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), maxFile, 0)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", f.Name(), err)
	}
	return b, nil
}

// names returns the names in a directory, at most limit. A missing one has none.
func (r rootfs) names(path string, limit int) []string {
	f, err := r.open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	dir, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(limit) // what was read counts
	return names
}

// readMounted is read for a path in a container with mounts: what a bind mount hides is not read.
// A file on another kind of mount, which does not exist yet, is taken as missing.
func (r rootfs) readMounted(path string, mounts []mount) ([]byte, error) {
	var under *mount
	for i, m := range mounts {
		if rest, err := filepath.Rel(m.Destination, path); err == nil && filepath.IsLocal(rest) &&
			(under == nil || len(m.Destination) >= len(under.Destination)) {
			under = &mounts[i]
		}
	}
	if under == nil {
		return r.read(path)
	}
	if !under.isBind() {
		return nil, nil
	}
	rest, err := filepath.Rel(under.Destination, path)
	if err != nil {
		return nil, err
	}
	if rest == "." {
		f, err := os.OpenFile(under.Source, unix.O_PATH, 0)
		if err != nil {
			return nil, nil // runc reports it better
		}
		defer f.Close()
		return readRegular(f)
	}
	source, err := openRootfs(under.Source)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer source.Close()
	return source.read(rest)
}
