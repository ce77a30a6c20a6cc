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

// quietTime is how long files of rules must be left alone before they are read: an
// editor may write one in several steps.
const quietTime = 100 * time.Millisecond

// policyEvents are what becomes of a file that is written, replaced or removed.
// The logs beside it, always open, are none (inotify(7)).
const policyEvents = unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE

// watchFiles calls changed after any of the files changed, until the watch is
// closed. Their folders are what is watched, so that a file may be replaced, and
// need not be there.
func watchFiles(files []string, changed func()) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	watch := os.NewFile(uintptr(fd), "inotify")
	wanted := map[fileEvent]bool{}
	for _, file := range files {
		wd, err := unix.InotifyAddWatch(fd, filepath.Dir(file), policyEvents)
		if err != nil {
			watch.Close()
			return nil, fmt.Errorf("watch %s: %w", filepath.Dir(file), err)
		}
		wanted[fileEvent{int32(wd), filepath.Base(file)}] = true
	}
	go func() {
		soon := time.AfterFunc(time.Hour, changed)
		defer soon.Stop()
		soon.Stop()
		for b := make([]byte, 16<<10); ; {
			n, err := watch.Read(b)
			if err != nil {
				return
			}
			for _, e := range fileEvents(b[:n]) {
				if wanted[e] || e.wd < 0 { // or some were lost
					soon.Reset(quietTime)
				}
			}
		}
	}()
	return watch, nil
}

// fileEvent is what happened in a watched folder to a name in it.
type fileEvent struct {
	wd   int32
	name string
}

// fileEvents takes struct inotify_event's apart (inotify(7)).
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
