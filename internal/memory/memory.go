// Package memory makes and packs the memory of a guest, and packs whatever else is mostly
// holes and zeros, such as its disk.
//
// # Theory of operation
//
// The memory of a guest is a memfd (New) which the machine maps. A page that the guest
// never wrote is a hole and takes no room on the host. Every function here keeps it that
// way: it asks the file where its data is and does not read the holes, because to read a
// hole of a memfd through a mapping fills it; and it leaves out pages of zeros.
//
// Memory at rest is kept packed (Pack, Unpack): the pages that hold anything, after a
// table of their places. The memory of a machine that runs is copied in two steps: a
// copy is made while the guest writes (sparse.CopyData), so it is torn; when the guest
// is paused, the pages that differ are copied once more (Update), which takes a fraction
// of the time.
//
// Sizes and offsets are in bytes. Nobody may write to a file while a function here uses
// it, so the guest must be paused.
package memory

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sys/sparse"
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

// page is the unit in which zeros are left out, in bytes.
const page = sparse.Page

// dataRuns lists the parts of a file of size bytes that are not holes, in whole pages.
func dataRuns(f *os.File, size int64) (runs []run, err error) {
	for at := int64(0); at < size; {
		start, end, err := sparse.Next(f, at)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		runs = append(runs, run{start, min(end, size) - start})
		at = end
	}
	return runs, nil
}
