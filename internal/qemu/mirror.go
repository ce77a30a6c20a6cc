package qemu

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"sort"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// UpdateRAM makes dst what src is now, and returns how much it wrote, in bytes. dst
// is a copy that CopyRAM made of src while the guest ran: torn where the guest
// wrote meanwhile, and nearly right everywhere. The guest must be paused, but not
// for long: to compare memory takes a fraction of the time that it takes to get new
// memory and fill it.
func UpdateRAM(dst, src *os.File) (written int64, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("update the copy of guest memory: %w", err)
		}
	}()
	from, err := mapFile(src, unix.PROT_READ)
	if err != nil {
		return 0, err
	}
	defer unix.Munmap(from) //nolint:errcheck // of a mapping that exists
	to, err := mapFile(dst, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		return 0, err
	}
	defer unix.Munmap(to) //nolint:errcheck // of a mapping that exists
	if len(from) != len(to) {
		return 0, fmt.Errorf("they have %d and %d bytes", len(from), len(to))
	}
	now, err := dataRuns(src, int64(len(from)))
	if err != nil {
		return 0, err
	}
	if err := punchBetween(dst, now, int64(len(to))); err != nil {
		return 0, err
	}
	was, err := dataRuns(dst, int64(len(to)))
	if err != nil {
		return 0, err
	}
	g := errgroup.Group{}
	parts := split(now, runtime.GOMAXPROCS(0))
	wrote := make([]int64, len(parts))
	for i, part := range parts {
		g.Go(func() error {
			for _, r := range part {
				// Not a fault for each page. Before Linux 5.14 there is one.
				_ = unix.Madvise(from[r.at:r.at+r.length], unix.MADV_POPULATE_READ)
				wrote[i] += updateRun(to, from, r, was)
			}
			return nil
		})
	}
	_ = g.Wait() // nothing in it fails
	for _, n := range wrote {
		written += n
	}
	return written, nil
}

// updateRun copies the pages of a run that differ. Where dst has a hole it is not
// read, which would fill it, and zeros are left out.
func updateRun(to, from []byte, r run, was []run) (written int64) {
	was = was[sort.Search(len(was), func(i int) bool { return was[i].at+was[i].length > r.at }):]
	for p := r.at; p < r.at+r.length; p += page {
		for len(was) > 0 && was[0].at+was[0].length <= p {
			was = was[1:]
		}
		hole := len(was) == 0 || p < was[0].at
		now := from[p : p+page]
		if hole && zero(now) || !hole && bytes.Equal(now, to[p:p+page]) {
			continue
		}
		copy(to[p:p+page], now)
		written += page
	}
	return written
}

// punchBetween makes a hole of all that lies between the runs.
func punchBetween(f *os.File, runs []run, size int64) error {
	at := int64(0)
	for _, r := range append(runs[:len(runs):len(runs)], run{at: size}) {
		if r.at > at {
			if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, r.at-at); err != nil {
				return err
			}
		}
		at = r.at + r.length
	}
	return nil
}

// splitRun is the longest piece that split gives one worker at a time, in bytes.
const splitRun = 4 << 20

// split deals runs out to n workers, each of which gets them in order.
func split(runs []run, n int) [][]run {
	parts := make([][]run, n)
	next := 0
	for _, r := range runs {
		for r.length > 0 {
			piece := run{r.at, min(r.length, splitRun)}
			parts[next%n] = append(parts[next%n], piece)
			next++
			r.at, r.length = r.at+piece.length, r.length-piece.length
		}
	}
	return parts
}
