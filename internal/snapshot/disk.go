package snapshot

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"

	"bawn.dev/bawn/internal/sys/sparse"
)

// CopyDisk copies a disk to a path where nothing is. Where the file system can, the two
// share the blocks that neither has changed (ioctl_ficlone(2)); else the data is copied
// and the holes are left out. When ctx ends, CopyDisk stops with ctx's cause; after an
// error, no file is left.
func CopyDisk(ctx context.Context, to, from string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("copy the disk: %w", err)
		}
	}()
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, dst.Close()); err != nil {
			_ = os.Remove(to)
		}
	}()
	return sparse.Copy(ctx, dst, src)
}

// sumDisk returns the size and checksum of a disk. The sum is over the pages that are not
// all zeros, each with its offset: to read a disk's holes would take as long as if it
// were full, and a copy may have other holes.
func sumDisk(ctx context.Context, path string) (File, error) {
	f, err := os.Open(path)
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return File{}, err
	}
	d := File{Size: fi.Size()}
	var place [8]byte
	err = sparse.EachPage(ctx, f, func(b []byte, at int64) {
		binary.LittleEndian.PutUint64(place[:], uint64(at))
		d.Sum = crc32.Update(crc32.Update(d.Sum, castagnoli, place[:]), castagnoli, b)
	})
	return d, err
}
