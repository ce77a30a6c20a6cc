package watch

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/wire"
)

// maxNodes bounds what is reported as watched.
const maxNodes = 65536

// scanner finds out which files of shares are watched by inotify(7) or fanotify(7): each process
// lists its watches in the fdinfo of their descriptors (proc_pid_fdinfo(5)).
type scanner struct {
	proc   string            // where proc(5) is
	shares map[uint64]string // the tag of each share by the device of its files, as fdinfo has it
	groups []string          // the fdinfo of descriptors that were found last
	known  map[string]opened // the descriptors of each process at the last look
	looked time.Time         // when the last look began
	// since is from when on what the last look found may have been watched: from the look before, or
	// from when the descriptors of a process were read before.
	since time.Time
	young bool // the last look saw a young process
}

// opened are the descriptors of a process.
type opened struct {
	count  int64     // 0: not known
	groups []string  // the fdinfo of those of inotify and fanotify
	first  time.Time // when the process was seen first
	read   time.Time // when the descriptors were read last
}

// youngFor is how long the descriptors of a new process are read at each look: while it starts, it
// opens files and closes them again, so their number may be the same by chance.
const youngFor = 10 * time.Second

// newScanner returns a scanner for shares by the directories where they are mounted.
func newScanner(proc string, roots map[string]string) *scanner {
	s := &scanner{proc: proc, shares: map[uint64]string{}}
	for tag, root := range roots {
		var st unix.Statx_t
		if unix.Statx(unix.AT_FDCWD, root, unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st) == nil {
			s.shares[kernelDev(st.Dev_major, st.Dev_minor)] = tag
		}
	}
	return s
}

// kernelDev is a device's number as the kernel writes it in fdinfo (MKDEV in
// include/linux/kdev_t.h).
func kernelDev(major, minor uint32) uint64 { return uint64(major)<<20 | uint64(minor) }

// look returns what is watched now. With all it looks at all descriptors of all processes; else
// only at those of processes that are young or have another number of descriptors than at the last
// look.
func (s *scanner) look(all bool) []wire.WatchedShare {
	now := time.Now()
	s.since, s.looked = s.looked, now
	s.findGroups(all, now)
	found := map[string]map[uint64]bool{}
	total := 0
	for _, path := range s.groups {
		s.read(path, func(tag string, node uint64) {
			if found[tag] == nil {
				found[tag] = map[uint64]bool{}
			}
			if !found[tag][node] && total < maxNodes {
				found[tag][node] = true
				total++
			}
		})
	}
	return sorted(found)
}

// sorted returns the nodes of each share in ascending order.
func sorted(found map[string]map[uint64]bool) (list []wire.WatchedShare) {
	for tag, nodes := range found {
		w := wire.WatchedShare{Tag: tag}
		for n := range nodes {
			w.Nodes = append(w.Nodes, n)
		}
		slices.Sort(w.Nodes)
		list = append(list, w)
	}
	slices.SortFunc(list, func(a, b wire.WatchedShare) int { return strings.Compare(a.Tag, b.Tag) })
	return list
}

// findGroups finds the descriptors of inotify and fanotify.
func (s *scanner) findGroups(all bool, now time.Time) {
	processes, err := os.ReadDir(s.proc)
	if err != nil {
		return
	}
	was := s.known
	s.known, s.groups, s.young = map[string]opened{}, nil, false
	for _, p := range processes {
		pid := p.Name()
		if _, err := strconv.Atoi(pid); err != nil {
			continue
		}
		dir := filepath.Join(s.proc, pid, "fd")
		o, ok := was[pid]
		if count := descriptors(dir); all || !ok || count == 0 || count != o.count || now.Sub(o.first) < youngFor {
			groups := s.groupsIn(pid, dir)
			if ok && o.read.Before(s.since) && !slices.Equal(groups, o.groups) {
				s.since = o.read
			}
			if !ok {
				o.first = now
			}
			o.count, o.groups, o.read = count, groups, now
		}
		s.known[pid] = o
		s.young = s.young || now.Sub(o.first) < youngFor
		s.groups = append(s.groups, o.groups...)
	}
}

// descriptors returns how many descriptors a process has (proc_pid_fd(5)), 0 where the kernel does
// not tell.
func descriptors(dir string) int64 {
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil {
		return 0
	}
	return st.Size
}

// groupsIn returns the fdinfo of the descriptors of inotify and fanotify of a process.
func (s *scanner) groupsIn(pid, dir string) (paths []string) {
	f, err := os.Open(dir)
	if err != nil {
		return nil // it has ended
	}
	names, _ := f.Readdirnames(-1)
	f.Close()
	for _, fd := range names {
		switch to, _ := os.Readlink(filepath.Join(dir, fd)); to {
		case "anon_inode:inotify", "anon_inode:[fanotify]":
			paths = append(paths, filepath.Join(s.proc, pid, "fdinfo", fd))
		}
	}
	return paths
}

// read calls found for each watched file of a share in an fdinfo.
func (s *scanner) read(path string, found func(tag string, node uint64)) {
	f, err := os.Open(path)
	if err != nil {
		return // the process has ended
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if dev, node, ok := watchOf(sc.Text()); ok {
			if tag, ok := s.shares[dev]; ok {
				found(tag, node)
			}
		}
	}
}

// watchOf reads a line of fdinfo about a watched file: "inotify wd:1 ino:2 sdev:3 ..." in
// hexadecimal numbers. It has the file's handle, which in FUSE is the node's number in two
// words, the higher one first, and its generation (fuse_encode_fh in Linux).
func watchOf(line string) (dev, node uint64, ok bool) {
	if !strings.HasPrefix(line, "inotify ") && !strings.HasPrefix(line, "fanotify ") {
		return 0, 0, false
	}
	var typ uint64
	var err error
	for field := range strings.FieldsSeq(line) {
		key, value, _ := strings.Cut(field, ":")
		switch key {
		case "sdev":
			dev, err = strconv.ParseUint(value, 16, 64)
		case "fhandle-type":
			typ, err = strconv.ParseUint(value, 16, 64)
		case "f_handle":
			var b []byte
			if b, err = hex.DecodeString(value); err == nil && len(b) >= 8 {
				node = uint64(binary.NativeEndian.Uint32(b))<<32 | uint64(binary.NativeEndian.Uint32(b[4:]))
			}
		}
		if err != nil {
			return 0, 0, false
		}
	}
	return dev, node, typ == handleType && node != 0
}

// handleType is FILEID_INO64_GEN (include/linux of the kernel, its file handles).
const handleType = 0x81

// signs returns a text that changes with each process or thread that is born, and each request to a
// share.
func (s *scanner) signs() string { return s.lastBorn() + " " + strconv.FormatUint(s.requests(), 10) }

// requests returns how many interrupts the queues of shares have made (virtio_fs.c in Linux
// names them so): at least one for requests after a pause.
func (s *scanner) requests() (sum uint64) {
	f, err := os.Open(filepath.Join(s.proc, "interrupts"))
	if err != nil {
		return 0
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if !strings.Contains(sc.Text(), "-requests") {
			continue
		}
		for i, field := range strings.Fields(sc.Text()) {
			n, err := strconv.ParseUint(field, 10, 64)
			if i > 0 && err != nil {
				break // the counts of all processors were read
			}
			sum += n
		}
	}
	return sum
}

// lastBorn returns the number of the process or thread that was born last: the fifth field of
// /proc/loadavg (proc_loadavg(5)).
func (s *scanner) lastBorn() string {
	b, err := os.ReadFile(filepath.Join(s.proc, "loadavg"))
	if f := strings.Fields(string(b)); err == nil && len(f) == 5 {
		return f[4]
	}
	return ""
}
