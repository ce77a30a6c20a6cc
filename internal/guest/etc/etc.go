// Package etc reads and replaces the small files that configure a system, such as those
// of /etc. They come from an image, so they may be missing, damaged, or no files at all.
package etc

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"syscall"

	"bawn.dev/bawn/internal/sys/regular"
)

// maxSize bounds what Read reads of a file, in bytes. It is far above the files that people have: a list
// of blocked hosts in /etc/hosts has some 4 MiB. Callers write back what they have read, so a file must not be cut.
const maxSize = 16 << 20

// Read returns the contents of a file, up to maxSize. Of what is missing, cannot be read,
// or is no regular file, it returns nil. It does not wait for a writer of a pipe.
func Read(path string) []byte {
	b, _ := regular.Read(path, maxSize, 0) // what was read counts
	return b
}

// Overwrite changes a file in place, where there is one, and is Replace otherwise. It is
// much faster, for files that a start after a crash writes again in any case.
func Overwrite(path string, b []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return Replace(path, b, mode)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		return Replace(path, b, mode)
	}
	if _, err := f.Write(b); err != nil {
		return Replace(path, b, mode)
	}
	if fi.Size() > int64(len(b)) {
		err = f.Truncate(int64(len(b)))
	}
	return err
}

// Replace replaces a file by rename(2): readers see the old contents or the new. It keeps
// owner and mode of an existing file; mode is for a new one, whose folder it makes. A file
// with the same contents is left as it is. On a full disk the file stays as it was, which
// is logged and no error: the machine must start, or nobody could make room.
//
// It does not sync, unlike package atomicfile: a start writes a dozen of these files, and
// the next start writes them again if a crash lost them.
func Replace(path string, b []byte, mode fs.FileMode) error {
	if old := Read(path); bytes.Equal(old, b) && old != nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	err := replace(path, b, mode)
	if errors.Is(err, syscall.ENOSPC) {
		log.Printf("%s was not changed: the disk is full", path)
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func replace(path string, b []byte, mode fs.FileMode) error {
	tmp := path + ".bawn-new"
	_ = os.Remove(tmp) // left by a start that was killed
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	uid, gid := -1, -1
	if fi, err := os.Lstat(path); err == nil && fi.Mode().IsRegular() {
		mode = fi.Mode().Perm()
		uid, gid = owner(fi)
	}
	_, err = f.Write(b)
	if uid >= 0 {
		err = errors.Join(err, f.Chown(uid, gid))
	}
	err = errors.Join(err, f.Chmod(mode), f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp)
	}
	return err
}

// owner returns the owner and group of a file; -1 where they are not known.
func owner(fi fs.FileInfo) (uid, gid int) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return -1, -1
	}
	return int(st.Uid), int(st.Gid)
}
