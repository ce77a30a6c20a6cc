package share

import (
	"encoding/json"
	"os"
	"strings"
	"sync"
	"time"

	"bawn.dev/bawn/internal/share/guard"
)

// who makes a request.
type who struct {
	pid uint32 // as the guest says
}

// maxEvents bounds the events that one server logs; each path is logged once for each
// process.
const maxEvents = 4096

// eventLog writes events to a file. A nil one writes nothing.
type eventLog struct {
	share string
	file  *os.File

	mu   sync.Mutex
	seen map[guard.Event]bool
}

// maxEventLog bounds a file of events that a new server goes on with, in bytes.
const maxEventLog = 1 << 20

// openEvents opens the log, for more lines. A long one is put aside.
func openEvents(share, path string) (*eventLog, error) {
	if fi, err := os.Stat(path); err == nil && fi.Size() > maxEventLog {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	return &eventLog{share: share, file: f, seen: map[guard.Event]bool{}}, nil
}

// note logs what was done about a name in a directory.
func (l *eventLog) note(w who, a guard.Action, dir []string, name string) {
	if l == nil {
		return
	}
	e := guard.Event{Share: l.share, Path: strings.Join(append(dir[:len(dir):len(dir)], name), "/"), Action: a, PID: w.pid}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen[e] || len(l.seen) >= maxEvents {
		return
	}
	l.seen[e] = true
	e.Time = time.Now().UTC()
	line, err := json.Marshal(e)
	if err != nil {
		return
	}
	_, _ = l.file.Write(append(line, '\n')) // the guest's change has gone to its place
}
