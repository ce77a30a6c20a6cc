package memory

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sys/sparse"
)

// The format of packed memory is a table of runs of pages, and then their contents:
//
//	8 bytes  packMagic
//	8 bytes  size of the memory, in bytes
//	8 bytes  number of runs
//	runs     16 bytes each: offset in memory, length; both in bytes
//	zeros    up to a multiple of 4096
//	pages    the runs' contents, one after the other
//
// Numbers are little-endian. Offsets and lengths are multiples of 4096, and
// the runs are in order and do not touch.

const (
	packMagic  = "bawnram1"
	packHeader = 24
	packRun    = 16
	// maxRuns bounds what a damaged file can make a reader allocate: every
	// second page of 64 GiB.
	maxRuns = 64 << 30 / page / 2
	// joinGap is how many zero pages may stand between two runs that are
	// stored as one: a run costs a system call, which copies as fast as some
	// pages.
	joinGap = 4 * page
)

// ErrDamaged means that packed memory is not what Pack wrote.
var ErrDamaged = errors.New("packed guest memory is damaged")

// run is a number of pages next to each other; both in bytes.
type run struct{ at, length int64 }

// Pack writes the pages of ram that are not all zeros to w, and returns the number of
// bytes written. The guest must be paused, or its memory is torn.
func Pack(w io.Writer, ram *os.File) (int64, error) {
	m, err := mapFile(ram, unix.PROT_READ)
	if err != nil {
		return 0, fmt.Errorf("pack guest memory: %w", err)
	}
	defer unix.Munmap(m) //nolint:errcheck // of a mapping that exists
	runs, err := findRuns(ram, m)
	if err != nil {
		return 0, fmt.Errorf("pack guest memory: %w", err)
	}
	table := packTable(int64(len(m)), runs)
	written := int64(len(table))
	if _, err := w.Write(table); err != nil {
		return 0, fmt.Errorf("pack guest memory: %w", err)
	}
	for _, r := range runs {
		n, err := w.Write(m[r.at : r.at+r.length])
		written += int64(n)
		if err != nil {
			return written, fmt.Errorf("pack guest memory: %w", err)
		}
	}
	return written, nil
}

func packTable(size int64, runs []run) []byte {
	n := packHeader + packRun*len(runs)
	b := make([]byte, 0, (n+page-1)/page*page)
	b = append(b, packMagic...)
	b = binary.LittleEndian.AppendUint64(b, uint64(size))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(runs)))
	for _, r := range runs {
		b = binary.LittleEndian.AppendUint64(b, uint64(r.at))
		b = binary.LittleEndian.AppendUint64(b, uint64(r.length))
	}
	return b[:cap(b)]
}

// findRuns lists the pages that are not all zeros. It does not look at holes, since
// to read them through the mapping would fill them.
func findRuns(ram *os.File, m []byte) ([]run, error) {
	data, err := dataRuns(ram, int64(len(m)))
	if err != nil {
		return nil, err
	}
	var runs []run
	for _, d := range data {
		for p := d.at / page * page; p < d.at+d.length; p += page {
			if sparse.IsZero(m[p : p+page]) {
				continue
			}
			if last := len(runs) - 1; last >= 0 && runs[last].at+runs[last].length+joinGap >= p && p-joinGap >= d.at {
				runs[last].length = p + page - runs[last].at
			} else {
				runs = append(runs, run{p, page})
			}
		}
	}
	return runs, nil
}

// Unpack fills ram, which must be all holes and of the size that was packed, from a file
// that Pack wrote. It returns ErrDamaged for a file that Pack did not write.
func Unpack(ram, from *os.File) error {
	m, err := mapFile(from, unix.PROT_READ)
	if err != nil {
		return fmt.Errorf("unpack guest memory: %w", err)
	}
	defer unix.Munmap(m) //nolint:errcheck // of a mapping that exists
	size, err := ram.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("unpack guest memory: %w", err)
	}
	runs, data, err := readTable(m, size)
	if err != nil {
		return err
	}
	return unpackRuns(ram, runs, data)
}

func readTable(m []byte, size int64) (runs []run, data []byte, err error) {
	if len(m) < packHeader {
		return nil, nil, ErrDamaged
	}
	length, err := tableLength(m, size)
	if err != nil || length > int64(len(m)) {
		return nil, nil, ErrDamaged
	}
	runs, total, err := readRuns(m[packHeader:length], binary.LittleEndian.Uint64(m[16:]), size)
	if err != nil {
		return nil, nil, err
	}
	if data = m[length:]; int64(len(data)) != total {
		return nil, nil, ErrDamaged
	}
	return runs, data, nil
}

// tableLength returns how many bytes come before the pages.
func tableLength(header []byte, size int64) (int64, error) {
	if string(header[:8]) != packMagic || binary.LittleEndian.Uint64(header[8:]) != uint64(size) {
		return 0, ErrDamaged
	}
	count := binary.LittleEndian.Uint64(header[16:])
	if count > maxRuns {
		return 0, ErrDamaged
	}
	return (packHeader + packRun*int64(count) + page - 1) / page * page, nil
}

// readRuns reads the table, which is as long as tableLength says.
func readRuns(table []byte, count uint64, size int64) (runs []run, total int64, err error) {
	var last int64
	for i := range int(count) {
		b := table[packRun*i:]
		r := run{int64(binary.LittleEndian.Uint64(b)), int64(binary.LittleEndian.Uint64(b[8:]))}
		if r.at < last || r.length <= 0 || r.at%page != 0 || r.length%page != 0 || r.at > size || r.length > size-r.at {
			return nil, 0, ErrDamaged
		}
		last = r.at + r.length
		total += r.length
		runs = append(runs, r)
	}
	return runs, total, nil
}

// UnpackStream is Unpack from a stream, which must end where Pack's output did. It
// returns an error of the stream as it is.
func UnpackStream(ram *os.File, from io.Reader) error {
	m, err := mapFile(ram, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		return fmt.Errorf("unpack guest memory: %w", err)
	}
	defer unix.Munmap(m) //nolint:errcheck // of a mapping that exists
	var header [packHeader]byte
	if err := readWhole(from, header[:]); err != nil {
		return err
	}
	length, err := tableLength(header[:], int64(len(m)))
	if err != nil {
		return err
	}
	table := make([]byte, length-packHeader)
	if err := readWhole(from, table); err != nil {
		return err
	}
	runs, _, err := readRuns(table, binary.LittleEndian.Uint64(header[16:]), int64(len(m)))
	if err != nil {
		return err
	}
	for _, r := range runs {
		if err := readWhole(from, m[r.at:r.at+r.length]); err != nil {
			return err
		}
	}
	if n, err := from.Read(header[:1]); n != 0 || !errors.Is(err, io.EOF) {
		return errors.Join(ErrDamaged, err)
	}
	return nil
}

// readWhole fills b; a stream that ends before is damaged.
func readWhole(from io.Reader, b []byte) error {
	_, err := io.ReadFull(from, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrDamaged
	}
	return err
}

// unpackRuns writes the runs from two threads. Most of the time goes to the kernel, which
// allocates and clears pages; two processors do that side by side.
func unpackRuns(ram *os.File, runs []run, data []byte) error {
	const workers = 2
	half := int64(len(data)) / workers
	var wg sync.WaitGroup
	errs := make([]error, workers)
	for i, at := 0, int64(0); i < workers; i++ {
		from := at
		n, taken := 0, int64(0)
		for n < len(runs) && (i == workers-1 || taken < half) {
			taken += runs[n].length
			n++
		}
		mine := runs[:n]
		runs, at = runs[n:], at+taken
		wg.Go(func() {
			for _, r := range mine {
				if _, err := ram.WriteAt(data[from:from+r.length], r.at); err != nil {
					errs[i] = fmt.Errorf("unpack guest memory: %w", err)
					return
				}
				from += r.length
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func mapFile(f *os.File, prot int) ([]byte, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if fi.Size() == 0 {
		return nil, ErrDamaged
	}
	m, err := unix.Mmap(int(f.Fd()), 0, int(fi.Size()), prot, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", f.Name(), err)
	}
	return m, nil
}
