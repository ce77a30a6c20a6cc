package hostwatch

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// found is a change of a name in a directory that no event told.
type found struct {
	place
	name string
	mask uint32
}

// maxListed bounds the entries of a directory that are looked at.
const maxListed = 65536

// slack is how much earlier than a time a change counts as since then: more than the
// resolution of the times of files.
const slack = 20 * time.Millisecond

// changedSince returns the changes in an open directory since a time. If names may be gone
// from it, one of them has no name (share.HostChange). At the zero time nothing was there. It reports
// false if it did not look at all entries.
func changedSince(fd int, p place, since time.Time) (list []found, all bool) {
	since = since.Add(-slack)
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, false
	}
	f := os.NewFile(uintptr(dup), "directory")
	defer f.Close()
	if !since.Before(time.Unix(0, 0)) {
		var st unix.Statx_t
		if unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MTIME, &st) == nil && !timeOf(st.Mtime).Before(since) {
			list = append(list, found{place: p, mask: unix.IN_DELETE})
		}
	}
	names, _ := f.Readdirnames(maxListed)
	for _, name := range names {
		var st unix.Statx_t
		if unix.Statx(fd, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st) != nil {
			continue
		}
		if mask := maskSince(&st, since); mask != 0 {
			list = append(list, found{place: p, name: name, mask: mask})
		}
	}
	return list, len(names) < maxListed
}

// maskSince returns the events that a file's times tell.
func maskSince(st *unix.Statx_t, since time.Time) (mask uint32) {
	dir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	switch {
	case timeOf(st.Ctime).Before(since):
		return 0
	case st.Mask&unix.STATX_BTIME != 0 && !timeOf(st.Btime).Before(since) || since.Before(time.Unix(0, 0)):
		mask = unix.IN_CREATE
		if !dir {
			mask |= unix.IN_MODIFY | unix.IN_CLOSE_WRITE
		}
	case !dir && !timeOf(st.Mtime).Before(since):
		mask = unix.IN_MODIFY | unix.IN_CLOSE_WRITE
	case !dir:
		mask = unix.IN_ATTRIB
	default:
		return 0 // entries of a directory change its times
	}
	if dir {
		mask |= unix.IN_ISDIR
	}
	return mask
}

func timeOf(t unix.StatxTimestamp) time.Time { return time.Unix(t.Sec, int64(t.Nsec)) }
