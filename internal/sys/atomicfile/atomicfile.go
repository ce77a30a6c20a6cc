// Package atomicfile replaces files in one step: a reader, also after a crash, finds
// either the old contents or the new, never a part. When a write fails the old file
// stays. A process that is killed on the way may leave a file ".NAME" with a number
// at the end beside the file.
package atomicfile

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/google/renameio/v2"
)

// Write replaces the file at path by rename(2), after its new contents are synced to
// disk. The new file has mode 0600, whatever the old one had. A symbolic link at path
// is replaced, not followed.
func Write(path string, b []byte) error { return WriteMode(path, b, 0o600) }

// WriteMode is Write for a file that shall have the permissions of mode. The umask
// does not apply.
func WriteMode(path string, b []byte, mode fs.FileMode) error {
	return write(path, b, mode, nil)
}

// Replace is Write for a file that belongs to others: an existing regular file keeps
// its owner, group and permissions, and a new one gets those of mode, without the
// umask. It fails where the owner cannot be kept.
func Replace(path string, b []byte, mode fs.FileMode) error {
	fi, err := os.Lstat(path)
	if err != nil || !fi.Mode().IsRegular() {
		return WriteMode(path, b, mode)
	}
	return write(path, b, fi.Mode().Perm(), fi.Sys().(*syscall.Stat_t))
}

// write replaces the file; owner is nil for this process's own.
func write(path string, b []byte, mode fs.FileMode, owner *syscall.Stat_t) error {
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithStaticPermissions(mode))
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() { _ = f.Cleanup() }() // does nothing once the file is replaced
	if owner != nil {
		err = f.Chown(int(owner.Uid), int(owner.Gid))
	}
	if err == nil {
		_, err = f.Write(b)
	}
	if err == nil {
		err = f.CloseAtomicallyReplace()
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// WriteJSON is Write of v as indented JSON with a newline at the end.
func WriteJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return Write(path, append(b, '\n'))
}
