// Package etc reads and replaces the small files that configure a system, such as those
// of /etc. They come from an image, so they may be missing, damaged, or no files at all.
package etc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"syscall"
)

// maxAccounts bounds the files that are read here, in bytes.
const maxAccounts = 1 << 20

// Read reads a file of the image, up to maxAccounts; what cannot be read
// is empty. It does not wait for a pipe that lies in the file's place.
func Read(path string) []byte {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil
	}
	b, _ := io.ReadAll(io.LimitReader(f, maxAccounts)) // what was read counts
	return b
}

// Overwrite is replaceFile for what is written again after a crash in any
// case: it changes the file in place, which takes a tenth of the steps.
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

// Replace writes a file anew, through a name beside it so that a reader
// sees the old or the new; owner and mode of an existing one are kept. Nothing
// is written where nothing changes.
func Replace(path string, b []byte, mode fs.FileMode) error {
	if old := Read(path); bytes.Equal(old, b) && old != nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp := path + ".bawn-new"
	_ = os.Remove(tmp) // of a start that was cut off
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, syscall.ENOSPC) {
		log.Printf("%s stays as it was: the disk is full", path)
		return nil
	}
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
		if errors.Is(err, syscall.ENOSPC) {
			// The machine must start for anybody to make room on its disk.
			log.Printf("%s stays as it was: the disk is full", path)
			return nil
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// owner is who a file belongs to.
func owner(fi fs.FileInfo) (uid, gid int) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return -1, -1
	}
	return int(st.Uid), int(st.Gid)
}
