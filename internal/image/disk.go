package image

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
)

// MinDisk is the smallest disk that NewDisk makes, in bytes: below this ext4
// has no room for its journal beside data.
const MinDisk = 64 << 20

// Parameters of the file system on a sandbox's disk.
const (
	// bytesPerInode as for ext4 by default (mke2fs.conf(5)). node_modules and
	// container layers average about that per file; inode tables are not written
	// before they are used, so a generous number costs the host nothing.
	bytesPerInode = 16384
	// journalMiB keeps the journal, which the guest writes round and round and so
	// soon fills on the host, small. mke2fs would take up to 1 GiB.
	journalMiB = 64
	// smallJournalMiB is for disks under smallDisk bytes.
	smallJournalMiB = 8
	smallDisk       = 2 << 30
	// growTo is how far the file system can be enlarged later, in 4 KiB blocks:
	// 1 TiB. Room for the table of that many block groups is kept in each copy.
	growTo = (1 << 40) / 4096
)

// NewDisk makes a sparse file of sizeBytes with an empty ext4 file system for a
// sandbox, without rights and in well under a second: nothing is written that
// can be left a hole. path must not exist yet, and nobody else may be making it.
// The file appears whole or not at all.
func NewDisk(path string, sizeBytes int64) error {
	if sizeBytes < MinDisk {
		return fmt.Errorf("a disk of %d bytes is too small: at least %d MiB", sizeBytes, MinDisk>>20)
	}
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("make disk %s: %w", path, fs.ErrExist)
	}
	// In a folder of its own beside its place: the name has to be new to mke2fs.
	// What was killed on the way left one.
	dir := path + ".new"
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	defer os.RemoveAll(dir)
	tmp := filepath.Join(dir, "disk")
	if err := sparse(tmp, sizeBytes); err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	if err := format(tmp, sizeBytes); err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	// A link, unlike a rename, does not replace what is there.
	if err := os.Link(tmp, path); err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	return nil
}

// prezeroed tells mke2fs that a hole reads as zeros, so that the guest's kernel
// need not write them either. e2fsprogs before 1.47 does not know it: the guest
// must then mount with noinit_itable, or it fills the holes.
const prezeroed = ",assume_storage_prezeroed=1"

func format(path string, sizeBytes int64) error {
	mke2fs := lookup("mke2fs")
	err := run(exec.Command(mke2fs, mke2fsArgs(path, sizeBytes, prezeroed)...)) //nolint:noctx // writes a few megabytes
	if err == nil {
		return nil
	}
	if run(exec.Command(mke2fs, mke2fsArgs(path, sizeBytes, "")...)) == nil { //nolint:noctx // writes a few megabytes
		return nil
	}
	return err
}

// mke2fsArgs are the arguments of mke2fs(8).
func mke2fsArgs(path string, sizeBytes int64, prezeroed string) []string {
	journal := journalMiB
	if sizeBytes < smallDisk {
		journal = smallJournalMiB
	}
	resize := ""
	if sizeBytes/4096 < growTo {
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

// EnsureDisk makes the disk when it does not exist, and enlarges it when it is
// smaller than sizeBytes: the file here, at once; the file system in it is the
// guest's to grow, at its next boot. A larger disk is left as it is.
//
// Not safe while a guest runs on the disk: the caller holds the sandbox's lock.
func EnsureDisk(path string, sizeBytes int64) error {
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return NewDisk(path, sizeBytes)
	}
	if err != nil {
		return err
	}
	if fi.Size() >= sizeBytes {
		return nil
	}
	return os.Truncate(path, sizeBytes)
}

func sparse(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// run runs a short command and puts its complaints into the error.
func run(cmd *exec.Cmd) error {
	cmd.Env = append(cmd.Environ(), "LC_ALL=C")
	// It ends with us; the kernel means the thread that starts it (prctl(2)).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	name := filepath.Base(cmd.Path)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is missing: bawn doctor says which package has it", name)
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}

// lookup finds a program of the system administrator's, whose folder is not on
// an ordinary user's PATH.
func lookup(name string) string {
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		p := filepath.Join(dir, name)
		if fi, err := os.Stat(p); err == nil && fi.Mode().IsRegular() {
			return p
		}
	}
	return name
}
