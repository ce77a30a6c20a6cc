package memory

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"sort"
	"sync"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sys/sparse"
)

// Update makes dst equal to src, and returns the number of bytes written. dst is a copy
// that sparse.CopyData made of src while the guest ran: torn where the guest wrote meanwhile, and
// the same nearly everywhere. The guest must be paused, but not for long: to compare
// memory takes a fraction of the time that it takes to get new memory and fill it.
func Update(dst, src *os.File) (written int64, err error) {
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
		return 0, fmt.Errorf("the files have different sizes, %d and %d bytes", len(from), len(to))
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
	return updateRuns(to, from, now, was), nil
}

// updateRuns copies the pages that differ, on all processors: now lists the data of from,
// was that of to. It returns the number of bytes written.
func updateRuns(to, from []byte, now, was []run) (written int64) {
	parts := split(now, runtime.GOMAXPROCS(0))
	wrote := make([]int64, len(parts))
	var wg sync.WaitGroup
	for i, part := range parts {
		wg.Go(func() {
			for _, r := range part {
				// One call instead of a fault for each page. Linux before 5.14 has it not.
				_ = unix.Madvise(from[r.at:r.at+r.length], unix.MADV_POPULATE_READ)
				wrote[i] += updateRun(to, from, r, was)
			}
		})
	}
	wg.Wait()
	for _, n := range wrote {
		written += n
	}
	return written
}

// updateRun copies the pages of one run that differ. Where dst has a hole it is not read,
// because that would fill it, and pages of zeros are left out.
func updateRun(to, from []byte, r run, was []run) (written int64) {
	was = was[sort.Search(len(was), func(i int) bool { return was[i].at+was[i].length > r.at }):]
	for p := r.at; p < r.at+r.length; p += page {
		for len(was) > 0 && was[0].at+was[0].length <= p {
			was = was[1:]
		}
		hole := len(was) == 0 || p < was[0].at
		now := from[p : p+page]
		if hole && sparse.IsZero(now) || !hole && bytes.Equal(now, to[p:p+page]) {
			continue
		}
		copy(to[p:p+page], now)
		written += page
	}
	return written
}

// punchBetween makes holes of everything between the runs.
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

// split divides runs among n workers. Each worker gets its pieces in order.
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
