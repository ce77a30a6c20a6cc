// Package disk makes the disks that sandboxes write to: sparse files with an ext4 file
// system, made by mke2fs without any rights.
package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"bawn.dev/bawn/internal/sys/proc"
)

// MinSize is the smallest disk that New makes, in bytes: below this ext4 has no room
// for its journal beside data.
const MinSize = 64 << 20

// Parameters of the file system on a sandbox's disk.
const (
	// bytesPerInode as for ext4 by default (mke2fs.conf(5)). node_modules and
	// container layers average about that per file; inode tables are not written
	// before they are used, so a generous number costs the host nothing.
	bytesPerInode = 16384
	// journalMiB keeps the journal small: the guest writes all of it again and again,
	// so that it soon takes its full size on the host. mke2fs would take up to 1 GiB.
	journalMiB = 64
	// smallJournalMiB is for disks under smallDisk bytes.
	smallJournalMiB = 8
	smallDisk       = 2 << 30
	// growTo is how far the file system can be enlarged later, in 4 KiB blocks:
	// 1 TiB. Room for the table of that many block groups is kept in each copy.
	growTo = (1 << 40) / 4096
)

// New makes a sparse file of size bytes with an empty ext4 file system, in well under a
// second: it writes nothing that can be left a hole. path must not exist, and nobody
// else may be making it. The file appears whole or not at all.
func New(path string, size int64) error {
	if err := newDisk(path, size); err != nil {
		return fmt.Errorf("make disk %s: %w", path, err)
	}
	return nil
}

func newDisk(path string, size int64) error {
	if size < MinSize {
		return fmt.Errorf("%d bytes are too few: at least %d MiB are needed", size, MinSize>>20)
	}
	if _, err := os.Lstat(path); err == nil {
		return fs.ErrExist
	}
	// mke2fs works in a folder of its own beside path, since only a new name is sure to
	// be nobody's. A maker that was killed left its folder.
	dir := path + ".new"
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	tmp := filepath.Join(dir, "disk")
	if err := emptyFile(tmp, size); err != nil {
		return err
	}
	if err := format(tmp, size); err != nil {
		return err
	}
	return os.Link(tmp, path) // unlike a rename, it does not replace what is there
}

// prezeroed tells mke2fs that a hole reads as zeros, so that the guest's kernel
// need not write them either. e2fsprogs before 1.47 does not know it: the guest
// must then mount with noinit_itable, or it fills the holes.
const prezeroed = ",assume_storage_prezeroed=1"

func format(path string, size int64) error {
	ctx := context.Background() // it writes a few megabytes
	err := run(proc.Command(ctx, "mke2fs", mke2fsArgs(path, size, prezeroed)...))
	if err == nil {
		return nil
	}
	if run(proc.Command(ctx, "mke2fs", mke2fsArgs(path, size, "")...)) == nil {
		return nil
	}
	return err
}

// mke2fsArgs are the arguments of mke2fs(8).
func mke2fsArgs(path string, size int64, prezeroed string) []string {
	journal := journalMiB
	if size < smallDisk {
		journal = smallJournalMiB
	}
	resize := ""
	if size/4096 < growTo {
		resize = ",resize=" + strconv.Itoa(growTo)
	}
	return []string{
		"-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-i", strconv.Itoa(bytesPerInode),
		"-m", "0", // no blocks kept back for root: everyone in the guest can be root
		"-L", "bawn-disk",
		"-J", "size=" + strconv.Itoa(journal),
		// packed_meta_blocks gathers the block groups' tables at the front, and
		// discards are the guest's: the file is a hole as it is.
		"-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard,packed_meta_blocks=1,root_owner=0:0" + resize + prezeroed,
		// metadata_csum finds damage; resize_inode lets the guest grow the file
		// system while it is mounted (sparse_super2 would not).
		"-O", "extent,dir_index,sparse_super,metadata_csum,64bit,huge_file,large_dir,resize_inode,^uninit_bg",
		path,
	}
}

// Ensure makes the disk at path where there is none, and enlarges it to size bytes
// where it is smaller: the file at once; the guest grows the file system in it at its
// next boot. A larger disk stays as it is.
//
// It must not be called while a guest runs on the disk: the caller holds the sandbox's
// lock.
func Ensure(path string, size int64) error {
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return New(path, size)
	}
	if err != nil {
		return err
	}
	if fi.Size() >= size {
		return nil
	}
	return os.Truncate(path, size)
}

func emptyFile(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// run runs a short command and puts its output into the error.
func run(cmd *exec.Cmd) error {
	cmd.Env = append(cmd.Env, "LC_ALL=C")
	out, err := proc.CombinedOutput(cmd)
	name := filepath.Base(cmd.Path)
	if missing := proc.Missing(err, "e2fsprogs"); missing != nil {
		return missing
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}
