// Package fileid tells a file from others, and from itself before a change, without
// reading it. It is for keys of what was derived from a file.
package fileid

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Version identifies the contents of the file at path by its real path, size, inode
// and time of modification. It stays the same over a restart of the host, and when
// only the file's mode, owner or number of links change. Whoever can set a file's
// times can keep it the same over a change of the contents.
func Version(path string) (string, error) {
	real, st, err := stat(path)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s %d %d %d", real, st.Size, st.Ino, st.Mtim.Nano()), nil
}

// Exact identifies the file at path by its real path, device, inode, size and time of
// the last change of anything about it, which no program can set. It may differ after
// a restart of the host.
func Exact(path string) (string, error) {
	real, st, err := stat(path)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s %d %d %d %d", real, st.Dev, st.Ino, st.Size, st.Ctim.Nano()), nil
}

func stat(path string) (real string, st unix.Stat_t, err error) {
	if real, err = filepath.EvalSymlinks(path); err != nil {
		return "", st, err
	}
	if err := unix.Stat(real, &st); err != nil {
		return "", st, fmt.Errorf("%s: %w", real, err)
	}
	return real, st, nil
}
