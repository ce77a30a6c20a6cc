package supervisor

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Theory of operation. A file of rules may be a symbolic link (dotfiles), and so may the
// folders on the way to it; any of them may be replaced, vanish or come back. So the watch
// has two parts:
//
//   - inotify(7) on the folder of each file, and on that of the file that it leads to, tells
//     at once of a file that was written, replaced or removed;
//   - once each pollTime the path of each file is followed anew. If it leads elsewhere, or to
//     something that changed without an event, that is a change too, and the folders of
//     inotify are those of the new path from then on.
//
// This uses inotify and not fsnotify, which reports each write and not the end of
// writing (IN_CLOSE_WRITE). The logs of a sandbox are in the folder of its rules:
// each line would wake the watch. And a file that an editor writes slowly would be
// read half-written, and all traffic denied meanwhile. For the same reason a change that only
// the poll saw counts when the next one sees no other.

const (
	// quietTime is how long files of rules must be left alone before they are read: an
	// editor may write one in several steps.
	quietTime = 100 * time.Millisecond
	// pollTime is how often the paths are followed anew: some thirty system calls each.
	pollTime = time.Second
)

// policyEvents are the events of a file that was written, replaced or removed. The
// logs in the same folder, which stay open, cause none of them.
const policyEvents = unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE

// fileWatch watches files. Close it.
type fileWatch struct {
	inotify *os.File
	files   []string
	closed  chan struct{}
	done    chan struct{} // closed: changed is not called any more

	mu     sync.Mutex
	wanted map[fileEvent]bool
}

// watchFiles calls changed after any of the files changed, one call at a time, until
// the watch is closed. Neither the files nor their folders need exist, and each may be
// replaced.
func watchFiles(files []string, changed func()) (*fileWatch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	w := &fileWatch{
		inotify: os.NewFile(uintptr(fd), "inotify"), files: files,
		closed: make(chan struct{}), done: make(chan struct{}), wanted: map[fileEvent]bool{},
	}
	known := w.look()
	w.arm(known)
	events := make(chan struct{}, 1)
	go w.read(events)
	go w.run(known, events, changed)
	return w, nil
}

// Close ends the watch, and waits for a call of changed that is under way. It must
// not be called from changed, and only once.
func (w *fileWatch) Close() {
	close(w.closed)
	w.inotify.Close()
	<-w.done
}

// place is to where the path of a file led when it was followed. It is comparable.
type place struct {
	path   string // the file itself, without links
	folder [2]uint64
	file   [2]uint64 // device and inode number, here and above
	size   int64
	mtime  unix.Timespec
	ctime  unix.Timespec // of changed permissions, too
	failed string        // why it led nowhere
}

// look follows the path of each file.
func (w *fileWatch) look() (list []place) {
	for _, file := range w.files {
		var p place
		var st unix.Stat_t
		if unix.Stat(filepath.Dir(file), &st) == nil {
			p.folder = [2]uint64{st.Dev, st.Ino}
		}
		var err error
		if p.path, err = filepath.EvalSymlinks(file); err != nil {
			p.failed = err.Error()
		} else if err := unix.Stat(file, &st); err != nil {
			p.failed = err.Error()
		} else {
			p.file, p.size, p.mtime, p.ctime = [2]uint64{st.Dev, st.Ino}, st.Size, st.Mtim, st.Ctim
		}
		list = append(list, p)
	}
	return list
}

// arm puts the folders that the paths lead through under inotify. A folder that is not there
// is left to the poll.
func (w *fileWatch) arm(list []place) {
	wanted := map[fileEvent]bool{}
	for i, p := range list {
		for _, path := range []string{w.files[i], p.path} {
			if path == "" {
				continue
			}
			if wd := w.add(filepath.Dir(path)); wd >= 0 {
				wanted[fileEvent{wd, filepath.Base(path)}] = true
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wanted = wanted
}

// add puts a folder under inotify and returns the number of the watch, -1 if it cannot be
// watched.
func (w *fileWatch) add(folder string) int32 {
	wd := -1
	c, err := w.inotify.SyscallConn() // unlike Fd, it leaves the file non-blocking
	if err != nil {
		return -1
	}
	if err := c.Control(func(fd uintptr) { wd, _ = unix.InotifyAddWatch(int(fd), folder, policyEvents) }); err != nil || wd < 0 {
		return -1
	}
	return int32(wd)
}

// wants reports whether an event is about a watched file, or the kernel lost some.
func (w *fileWatch) wants(e fileEvent) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wanted[e] || e.wd < 0
}

// read reports events of the wanted files, several as one, and closes the channel
// when the watch is closed.
func (w *fileWatch) read(events chan<- struct{}) {
	defer close(events)
	for b := make([]byte, 16<<10); ; {
		n, err := w.inotify.Read(b)
		if err != nil {
			return
		}
		if slices.ContainsFunc(fileEvents(b[:n]), w.wants) {
			select {
			case events <- struct{}{}:
			default: // one is reported already
			}
		}
	}
}

// run calls changed when there was an event and then none for quietTime, or when the poll
// saw a change and then none. known is what the paths led to at first.
func (w *fileWatch) run(known []place, events <-chan struct{}, changed func()) {
	defer close(w.done)
	poll := time.NewTicker(pollTime)
	defer poll.Stop()
	var quiet <-chan time.Time
	moved := false // the last poll saw a change
	for {
		select {
		case _, ok := <-events:
			if !ok {
				return
			}
			quiet = time.After(quietTime)
			continue
		case <-w.closed:
			return
		case <-quiet:
			quiet, moved = nil, false
			known = w.look()
			w.arm(known)
			changed()
		case <-poll.C:
			now := w.look()
			same := slices.Equal(now, known)
			if !same {
				known = now
				w.arm(known)
			} else if moved {
				changed()
			}
			moved = !same
		}
	}
}

// fileEvent is an event of a name in a watched folder.
type fileEvent struct {
	wd   int32
	name string
}

// fileEvents reads a list of struct inotify_event (inotify(7)).
func fileEvents(b []byte) (events []fileEvent) {
	for len(b) >= unix.SizeofInotifyEvent {
		end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
		if end > len(b) {
			break
		}
		name := strings.TrimRight(string(b[unix.SizeofInotifyEvent:end]), "\x00")
		events = append(events, fileEvent{int32(binary.NativeEndian.Uint32(b)), name})
		b = b[end:]
	}
	return events
}
