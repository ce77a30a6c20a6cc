// Package sparse reads and copies files with holes: disks, guest memory, and files of
// a project.
package sparse

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Page is the unit in which zeros become holes, in bytes.
const Page = 4096

// chunk is how much is read at once, in bytes: a multiple of Page.
const chunk = 1 << 20

var chunks = sync.Pool{New: func() any { return new([chunk]byte) }}

// Clone makes dst share all blocks of src, at once, and reports whether the file
// system can (ioctl_ficlone(2): Btrfs, XFS, bcachefs). dst then has the contents and
// the size of src.
func Clone(dst, src *os.File) bool {
	return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil
}

// Copy copies src to the empty file dst: by Clone where it can, else by CopyData. dst
// then has the size of src. When ctx ends, Copy ends with its cause.
//
// Others may write to src meanwhile: then the copy is of no one moment, and may have
// the beginning of a file that was cut short.
func Copy(ctx context.Context, dst, src *os.File) error {
	if Clone(dst, src) {
		return nil
	}
	_, err := CopyData(ctx, dst, src)
	return err
}

// CopyData copies what src holds to dst and leaves out the pages that are holes or
// hold nothing but zeros, so these must be holes in dst before. dst is enlarged to the
// size of src, and never cut. It returns how many bytes were written. When ctx ends,
// CopyData ends with its cause.
func CopyData(ctx context.Context, dst, src *os.File) (written int64, err error) {
	var end int64 // of what was written
	err = Each(ctx, src, func(b []byte, at int64) error {
		n, err := writeNonZero(dst, b, at)
		if n > 0 {
			end = at + int64(len(b))
		}
		written += n
		return err
	})
	if err != nil {
		return written, err
	}
	return written, enlarge(dst, src, end)
}

// enlarge gives dst at least the size of src.
func enlarge(dst, src *os.File, written int64) error {
	from, err := src.Stat()
	if err != nil || from.Size() == written {
		return err
	}
	to, err := dst.Stat()
	if err != nil || to.Size() >= from.Size() {
		return err
	}
	return dst.Truncate(from.Size())
}

// Each calls do for the parts of f that are no holes, in order, at most 1 MiB at a
// time. Parts begin at multiples of Page and end there too, but for the last one of
// the file. do gets the bytes, which are valid until it returns, and where they begin.
// Its error, the cause of ctx when that ends, and errors of reading end Each.
func Each(ctx context.Context, f *os.File, do func(b []byte, at int64) error) error {
	buf := chunks.Get().(*[chunk]byte)
	defer chunks.Put(buf)
	for at := int64(0); ; {
		start, end, err := Next(f, at)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for at = start; at < end; {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			n, err := f.ReadAt(buf[:min(chunk, end-at)], at)
			if n > 0 {
				if err := do(buf[:n], at); err != nil {
					return err
				}
			}
			at += int64(n)
			if errors.Is(err, io.EOF) { // the end of the file is within a page
				return nil
			}
			if err != nil {
				return err
			}
		}
	}
}

// EachPage calls do for each page of f that holds anything but zeros, of which the
// last may be short, with where it begins. So two files with the same contents give
// the same pages, wherever their holes are. It ends as Each does.
func EachPage(ctx context.Context, f *os.File, do func(page []byte, at int64)) error {
	return Each(ctx, f, func(b []byte, at int64) error {
		for i := 0; i < len(b); i += Page {
			if p := b[i:min(i+Page, len(b))]; !IsZero(p) {
				do(p, at+int64(i))
			}
		}
		return nil
	})
}

// Next returns where the first part of f at or behind at begins and ends that is no
// hole, widened to whole pages: the blocks of a file system may be smaller. end may be
// behind the end of the file, and start before at. It returns io.EOF where no data
// follows. The file's offset is changed.
func Next(f *os.File, at int64) (start, end int64, err error) {
	start, err = unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return 0, 0, io.EOF
	}
	if err != nil {
		return 0, 0, os.NewSyscallError("lseek", err)
	}
	end, err = unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
	if errors.Is(err, unix.ENXIO) { // cut short meanwhile
		return 0, 0, io.EOF
	}
	if err != nil {
		return 0, 0, os.NewSyscallError("lseek", err)
	}
	return start / Page * Page, (end + Page - 1) / Page * Page, nil
}

// writeNonZero writes the runs of pages in b that hold anything.
func writeNonZero(dst *os.File, b []byte, at int64) (written int64, err error) {
	page := func(i int) []byte { return b[i:min(i+Page, len(b))] }
	for i := 0; i < len(b); {
		for i < len(b) && IsZero(page(i)) {
			i += Page
		}
		start := i
		for i < len(b) && !IsZero(page(i)) {
			i += Page
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

var zeros [Page]byte

// IsZero reports whether b, of at most a page, holds nothing but zeros.
func IsZero(b []byte) bool { return string(b) == string(zeros[:len(b)]) }
