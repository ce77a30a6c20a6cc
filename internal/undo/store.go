package undo

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Names in a store and in the folder of a point.
const (
	lockName    = "lock"
	holdName    = "hold"
	planName    = "plan.json"
	markName    = "mark"
	journalName = "journal"
	afterName   = "after"
)

// Why a restore point was made.
const (
	WhySession = "session" // a session began
	WhyStart   = "start"   // the share's server started: it continues the point before it
	WhyUndo    = "undo"    // an undo was applied
	WhyAccept  = "accept"  // a person took over what the guest made (Putter)
)

const dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// openDir opens the directory at a name in an open one.
func openDir(dir int, name string) (int, error) { return unix.Openat(dir, name, dirFlags, 0) }

// openFile opens the regular file at a name in an open directory.
func openFile(dir int, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(dir, name, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return nil, errors.Join(err, fmt.Errorf("%s in the store of undo is no regular file", name))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// names lists an open directory.
func names(dir int) ([]string, error) {
	fd, err := openDir(dir, ".")
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), ".")
	defer f.Close()
	return f.Readdirnames(-1)
}

// folderName returns the name of a point's folder.
func folderName(n int) string { return fmt.Sprintf("%08d", n) }

// numbers lists the points of a store, the oldest first.
func numbers(store int) ([]int, error) {
	list, err := names(store)
	if err != nil {
		return nil, err
	}
	var found []int
	for _, name := range list {
		if n, err := strconv.Atoi(name); err == nil && n > 0 && folderName(n) == name {
			found = append(found, n)
		}
	}
	slices.Sort(found)
	return found, nil
}

// head reads the first record of a point.
func head(folder int) (record, error) {
	f, err := openFile(folder, journalName, unix.O_RDONLY)
	if err != nil {
		return record{}, err
	}
	defer f.Close()
	var r record
	_, err = readJournal(f, func(v *record) bool { r = *v; return false })
	if err == nil && r.Op != opPoint {
		err = errors.New("the restore point has no head")
	}
	return r, err
}

// usage returns the bytes of the copied contents of a point.
func usage(folder int) int64 {
	list, err := names(folder)
	if err != nil {
		return 0
	}
	total := int64(0)
	for _, name := range list {
		var st unix.Stat_t
		if isBlob(name) && name[0] == copied && unix.Fstatat(folder, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			total += st.Blocks * 512 // the unit of stat(2)
		}
	}
	return total
}

// removePoint removes a point. A folder that is removed in part counts as damaged, and goes
// with the next removal.
func removePoint(store, n int) error {
	folder, err := openDir(store, folderName(n))
	if err != nil {
		return err
	}
	defer unix.Close(folder)
	list, err := names(folder)
	if err != nil {
		return err
	}
	_ = unix.Unlinkat(folder, journalName, 0) // first: the point is none from now on
	for _, name := range list {
		if err := unix.Unlinkat(folder, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return unix.Unlinkat(store, folderName(n), unix.AT_REMOVEDIR)
}

// prune removes those of the points that are too old or too many, and returns what is left.
func prune(store int, list []int, now time.Time) (kept []int) {
	for i, n := range list {
		if len(list)-i < MaxPoints && fresh(store, n, now) || removePoint(store, n) != nil {
			kept = append(kept, n)
		}
	}
	return kept
}

// fresh reports whether a point is to be kept. One without a head was being removed, or was
// made by a process that was killed at once.
func fresh(store, n int, now time.Time) bool {
	folder, err := openDir(store, folderName(n))
	if err != nil {
		return true
	}
	defer unix.Close(folder)
	h, err := head(folder)
	if err != nil {
		return !errors.Is(err, unix.ENOENT)
	}
	return now.Sub(time.Unix(0, h.At)) < MaxAge
}
