package supervisor

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// This uses inotify(7) and not fsnotify, which reports each write and not the end of
// writing (IN_CLOSE_WRITE). The logs of a sandbox are in the folder of its rules:
// each line would wake the watch. And a file that an editor writes slowly would be
// read half-written, and all traffic denied meanwhile.

// quietTime is how long files of rules must be left alone before they are read: an
// editor may write one in several steps.
const quietTime = 100 * time.Millisecond

// policyEvents are the events of a file that was written, replaced or removed. The
// logs in the same folder, which stay open, cause none of them.
const policyEvents = unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE

// fileWatch watches files. Close it.
type fileWatch struct {
	inotify *os.File
	wanted  map[fileEvent]bool
	done    chan struct{} // closed: changed is not called any more
}

// watchFiles calls changed after any of the files changed, one call at a time, until
// the watch is closed. It watches their folders, which must exist; a file may be
// replaced, and need not exist.
func watchFiles(files []string, changed func()) (*fileWatch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	w := &fileWatch{inotify: os.NewFile(uintptr(fd), "inotify"), wanted: map[fileEvent]bool{}, done: make(chan struct{})}
	for _, file := range files {
		wd, err := unix.InotifyAddWatch(fd, filepath.Dir(file), policyEvents)
		if err != nil {
			w.inotify.Close()
			return nil, fmt.Errorf("watch %s: %w", filepath.Dir(file), err)
		}
		w.wanted[fileEvent{int32(wd), filepath.Base(file)}] = true
	}
	events := make(chan struct{}, 1)
	go w.read(events)
	go w.run(events, changed)
	return w, nil
}

// Close ends the watch, and waits for a call of changed that is under way. It must
// not be called from changed.
func (w *fileWatch) Close() {
	w.inotify.Close()
	<-w.done
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
		for _, e := range fileEvents(b[:n]) {
			if w.wanted[e] || e.wd < 0 { // or the kernel lost some
				select {
				case events <- struct{}{}:
				default: // one is reported already
				}
			}
		}
	}
}

// run calls changed when there was an event and then none for quietTime.
func (w *fileWatch) run(events <-chan struct{}, changed func()) {
	defer close(w.done)
	var quiet <-chan time.Time
	for {
		select {
		case _, ok := <-events:
			if !ok {
				return
			}
			quiet = time.After(quietTime)
		case <-quiet:
			quiet = nil
			changed()
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
