package guard

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"bawn.dev/bawn/internal/sys/lines"
	"bawn.dev/bawn/internal/sys/rotate"
	"bawn.dev/bawn/internal/sys/text"
)

// Event is a change of a guarded path that a guest asked for: a line of a log.
type Event struct {
	Time   time.Time `json:"time"`
	Share  string    `json:"share"`  // the shared directory on the host
	Path   string    `json:"path"`   // from there
	Action Action    `json:"action"` // what was done
	PID    uint32    `json:"pid"`    // of the process in the guest, as the guest says
}

// Action is what a share did about a change.
type Action string

// The actions.
const (
	Kept    Action = "kept"    // it went to a private version of the guest
	Refused Action = "refused" // nothing was changed
	Changed Action = "changed" // the host's file was changed
)

// EventHeading is a line to print above lines made by Event.Text.
const EventHeading = "TIME                  ACTION   PROCESS  PATH"

// Text returns the event as a line for a terminal.
func (e Event) Text() string {
	return fmt.Sprintf("%-20s  %-7s  %-7d  %s", e.Time.UTC().Format(time.RFC3339), e.Action, e.PID, text.Line(e.Share+"/"+e.Path))
}

// maxEvent bounds a line of the log, in bytes.
const maxEvent = 64 << 10

// ReadEvents calls each for the events in a log, the oldest first. A log that does not exist is
// empty. Lines that are no events, such as one that is being written, are left out.
func ReadEvents(path string, each func(Event) error) error {
	for _, p := range []string{path + ".1", path} {
		if err := readEvents(p, each); err != nil {
			return err
		}
	}
	return nil
}

func readEvents(path string, each func(Event) error) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, maxEvent)
	for s.Scan() {
		if e, ok := parseEvent(s.Bytes()); ok {
			if err := each(e); err != nil {
				return err
			}
		}
	}
	return s.Err()
}

// parseEvent reads a line of a log. ok is false for one that is no event.
func parseEvent(line []byte) (e Event, ok bool) {
	if json.Unmarshal(line, &e) != nil || e.Path == "" || strings.ContainsRune(e.Path, 0) {
		return e, false
	}
	return e, e.Action == Kept || e.Action == Refused || e.Action == Changed
}

// FollowEvents is ReadEvents, and then calls each for new events until ctx ends (nil), each fails
// (that error) or the folder of the log is removed (rotate.ErrGone).
func FollowEvents(ctx context.Context, path string, each func(Event) error) error {
	return rotate.Follow(ctx, path, &lines.Splitter{Limit: maxEvent, Each: func(line []byte) error {
		if e, ok := parseEvent(line); ok {
			return each(e)
		}
		return nil
	}})
}
