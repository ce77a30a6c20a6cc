// Package audit is the log of a sandbox's network: one entry for each decision, and
// for the end of each connection that was let through.
//
// It is JSON lines in five files of bounded size, each with one older file beside
// it (NAME.1): NAME has the connections that were let through, NAME.denied what was
// denied, NAME.lookups the DNS queries, NAME.requests the requests on inspected
// connections, and NAME.signatures what was signed. Read and Follow put them together by time. A guest that floods must not push
// out what it did before: kind.go says what is guaranteed.
//
// An Entry is made of a policy.Flow and a policy.Decision; what they get to tell more
// about a request has its place there.
package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"bawn.dev/bawn/internal/sys/rotate"
)

const (
	// LogBytes bounds each current file; the older one beside it is as long. In bytes.
	LogBytes = 8 << 20
	// maxLogLine bounds a line read back, in bytes.
	maxLogLine = 64 << 10
)

// Log writes the audit log. Safe for concurrent use. A full disk loses entries,
// never a decision: how many were lost is written when there is room again.
type Log struct {
	mu     sync.Mutex
	files  map[string]*logFile // by suffix
	meters [kinds]*meter
	timer  *time.Timer // writes what is counted; nil if nothing is
	notify func(Entry) // nil: none
	closed bool
}

// logFile is one file of the log.
type logFile struct {
	io.WriteCloser      // *rotate.File; tests have others
	torn           bool // the last line may be incomplete
	lost           int  // entries that could not be written
}

// Open opens or makes the log at path; max bounds each file, in bytes (0 is
// LogBytes). Only the user may read it. Close it.
func Open(path string, max int64) (*Log, error) {
	if max <= 0 {
		max = LogBytes
	}
	l := &Log{files: map[string]*logFile{}}
	for _, suffix := range suffixes {
		f, err := rotate.Open(path+suffix, max)
		if err != nil {
			_ = l.closeFiles()
			return nil, fmt.Errorf("open the audit log: %w", err)
		}
		// A crash may have left the last line torn; an empty line does no harm.
		l.files[suffix] = &logFile{WriteCloser: f, torn: f.Size() > 0}
	}
	for k, b := range budgets {
		l.meters[k] = newMeter(b)
	}
	return l, nil
}

// Notify calls f for each line that is written from now on, one call at a time. f
// must not block, nor use the log.
func (l *Log) Notify(f func(Entry)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.notify = f
}

// Write adds an entry; Time is set if it is zero. A nil Log takes it and
// forgets it.
func (l *Log) Write(e Entry) {
	if l == nil {
		return
	}
	now := time.Now()
	if e.Time.IsZero() {
		e.Time = now
	}
	k := kindOf(&e)
	if k != connections {
		shorten(&e)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if m := l.meters[k]; !l.put(m, e, now, false) {
		m.count(e)
		l.schedule()
	}
}

// Room reports whether an entry about a connection would get a line of its own now.
func (l *Log) Room() bool {
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	return l.meters[connections].room(now) || l.meters[deniedFlows].room(now)
}

// schedule has what is counted written soon.
func (l *Log) schedule() {
	if l.timer == nil {
		l.timer = time.AfterFunc(logFlush, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.timer = nil
			if !l.closed && !l.flush(false) {
				l.schedule()
			}
		})
	}
}

// flush writes what was counted, those with the most traffic first. Without force
// it stops where a budget ends, and returns false if it left something.
func (l *Log) flush(force bool) (all bool) {
	now := time.Now()
	all = true
	for k, m := range l.meters {
		all = l.flushKind(kind(k), m, now, force) && all
	}
	return all
}

func (l *Log) flushKind(k kind, m *meter, now time.Time, force bool) bool {
	for {
		e, s, ok := m.largest()
		if !ok {
			break
		}
		if !l.put(m, s.line(e, now), now, force) {
			return false
		}
		delete(m.counted, e)
	}
	if m.rest.n > 0 {
		if !l.put(m, m.restLine(k, now), now, force) {
			return false
		}
		m.rest = sum{}
	}
	return true
}

// put writes one line if the budget allows it; force does not ask. false: the entry
// is still the caller's.
func (l *Log) put(m *meter, e Entry, now time.Time, force bool) bool {
	if !force && !m.room(now) {
		return false
	}
	line, err := json.Marshal(e)
	f := l.files[m.file]
	if err != nil {
		f.lost++
		return true
	}
	if !force && !m.allow(now, len(line)+1) {
		return false
	}
	if l.notify != nil {
		l.notify(e)
	}
	f.put(e, append(line, '\n'))
	return true
}

// put writes the line of e, after one that says how many were lost before.
func (f *logFile) put(e Entry, line []byte) {
	if f.lost > 0 {
		word, err := json.Marshal(Entry{Time: e.Time, Verdict: e.Verdict, Reason: "entries were lost: the log could not be written", Count: f.lost})
		if err != nil || !f.write(append(word, '\n')) {
			f.lost++
			return
		}
		f.lost = 0
	}
	if !f.write(line) {
		f.lost++
	}
}

// write writes a line on a line of its own.
func (f *logFile) write(line []byte) bool {
	if f.torn {
		line = append([]byte{'\n'}, line...)
	}
	_, err := f.Write(line)
	f.torn = err != nil
	return !f.torn
}

// Close writes what was counted and closes the files.
func (l *Log) Close() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	if l.timer != nil {
		l.timer.Stop()
		l.flush(true)
	}
	return l.closeFiles()
}

func (l *Log) closeFiles() error {
	var errs []error
	for _, f := range l.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
