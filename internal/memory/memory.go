// Package memory makes, copies and packs the memory of a guest, and whatever else is
// mostly holes and zeros, such as its disk.
//
// # Theory of operation
//
// The memory of a guest is a memfd (New) which the machine maps. A page that the guest
// never wrote is a hole and takes no room on the host. Every function here keeps it that
// way: it asks the file where its data is and does not read the holes, because to read a
// hole of a memfd through a mapping fills it; and it leaves out pages of zeros.
//
// Memory at rest is kept packed (Pack, Unpack): the pages that hold anything, after a
// table of their places. A machine that runs is copied in two steps (Copy, then Update):
// the copy is made while the guest writes, so it is torn; when the guest is paused, the
// pages that differ are copied once more, which takes a fraction of the time.
//
// Sizes and offsets are in bytes. No function here may run on a file to which another
// goroutine writes, except Copy on the memory of a running guest, as described.
package memory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// New makes the memory of a guest: a memfd of size bytes, which takes host
// memory only as it is written. Its size is sealed, so that a machine that was
// broken into cannot cut it short under others who map it. The caller closes it.
func New(size int64) (*os.File, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("bawn-ram", flags|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate("bawn-ram", flags)
	}
	if err != nil {
		return nil, fmt.Errorf("make guest memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "guest memory")
	if err := f.Truncate(size); err != nil {
		f.Close()
		return nil, fmt.Errorf("make %d bytes of guest memory: %w", size, err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		f.Close()
		return nil, fmt.Errorf("seal guest memory: %w", err)
	}
	return f, nil
}

// copyChunk is how much is read at once, in bytes.
const copyChunk = 1 << 20

// page is the unit in which zeros are left out, in bytes.
const page = 4096

// Copy copies src to dst and leaves holes for pages of zeros. dst must be all holes and
// as long as src. It returns the number of bytes written. When ctx ends, Copy stops with
// ctx's cause.
func Copy(ctx context.Context, dst, src *os.File) (written int64, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("copy guest memory: %w", err)
		}
	}()
	size, err := src.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	err = eachData(ctx, src, size, func(b []byte, at int64) error {
		n, err := writeNonZero(dst, b, at)
		written += n
		return err
	})
	return written, err
}

// EachPage calls do for each page of a file that is not all zeros, in order, with the
// page's offset. The last page may be short. So two files with the same contents give the
// same calls, wherever their holes are. do must not keep b. When ctx ends, EachPage stops
// with ctx's cause.
func EachPage(ctx context.Context, f *os.File, do func(b []byte, at int64)) error {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	return eachData(ctx, f, size, func(b []byte, at int64) error {
		for i := 0; i < len(b); i += page {
			if p := b[i:min(i+page, len(b))]; !zero(p) {
				do(p, at+int64(i))
			}
		}
		return nil
	})
}

// eachData calls do for the data of a file, some pages at a time, and leaves out holes.
func eachData(ctx context.Context, f *os.File, size int64, do func(b []byte, at int64) error) error {
	runs, err := dataRuns(f, size)
	if err != nil {
		return err
	}
	buf := make([]byte, copyChunk)
	for _, r := range runs {
		for at, end := r.at, r.at+r.length; at < end; {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			b := buf[:min(copyChunk, end-at)]
			if _, err := f.ReadAt(b, at); err != nil {
				return err
			}
			if err := do(b, at); err != nil {
				return err
			}
			at += int64(len(b))
		}
	}
	return nil
}

// dataRuns lists the parts of a file of size bytes that are not holes, in whole pages:
// the blocks of its file system may be smaller.
func dataRuns(f *os.File, size int64) (runs []run, err error) {
	for at := int64(0); at < size; {
		start, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // no data after at
			break
		}
		if err != nil {
			return nil, err
		}
		end, err := unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return nil, err
		}
		start, end = start/page*page, min((end+page-1)/page*page, size)
		runs = append(runs, run{start, end - start})
		at = end
	}
	return runs, nil
}

// writeNonZero writes the pages of b that are not all zeros, to their place in dst.
func writeNonZero(dst *os.File, b []byte, at int64) (written int64, err error) {
	for i := 0; i < len(b); {
		for i < len(b) && zero(b[i:min(i+page, len(b))]) {
			i += page
		}
		start := i
		for i < len(b) && !zero(b[i:min(i+page, len(b))]) {
			i += page
		}
		if start >= len(b) {
			break
		}
		n, err := dst.WriteAt(b[start:min(i, len(b))], at+int64(start))
		written += int64(n)
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

var zeroPage [page]byte

func zero(b []byte) bool { return string(b) == string(zeroPage[:len(b)]) }
