// Package audit is the log of a sandbox's network: one entry for each decision, and
// for the end of each connection that was let through.
//
// It is JSON lines in a file of bounded size and one older file beside it (NAME.1).
// A guest that floods must not push out what it did before: beyond a burst, entries
// that look alike are counted and written as one.
//
// An Entry is made of a policy.Flow and a policy.Decision; what they get to tell more
// about a request has its place there.
package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"bawn.dev/bawn/internal/sys/lines"
	"bawn.dev/bawn/internal/sys/rotate"
)

const (
	// LogBytes bounds the current file; the older one is as long. In bytes.
	LogBytes = 8 << 20
	// logBurst and logRate bound single entries: at a burst, and each second.
	logBurst = 500
	logRate  = 10
	// logKeys bounds the different entries that are counted at a time.
	logKeys = 32
	// logFlush is how often counted entries are written.
	logFlush = 2 * time.Second
	// maxLogLine bounds a line read back, in bytes.
	maxLogLine = 64 << 10
)

// Log writes the audit log. Safe for concurrent use. A full disk loses entries,
// never a decision: how many were lost is written when there is room again.
type Log struct {
	mu      sync.Mutex
	file    io.WriteCloser // *rotate.File; tests have others
	torn    bool           // the last line may be incomplete
	lost    int            // entries that could not be written
	bucket  *rate.Limiter
	counted map[Entry]int
	timer   *time.Timer // writes what is counted; nil if nothing is
	notify  func(Entry) // nil: none
	closed  bool
}

// Open opens or makes the log at path; max bounds each of its two files, in
// bytes (0 is LogBytes). Only the user may read it. Close it.
func Open(path string, max int64) (*Log, error) {
	if max <= 0 {
		max = LogBytes
	}
	f, err := rotate.Open(path, max)
	if err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	return &Log{
		file: f, torn: f.Size() > 0, // as a crash may have left it; an empty line does no harm
		bucket: rate.NewLimiter(logRate, logBurst), counted: map[Entry]int{},
	}, nil
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
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if l.bucket.Allow() {
		l.put(e)
		return
	}
	l.count(e)
}

// Room reports whether an entry would get a line of its own now.
func (l *Log) Room() bool { return l != nil && l.bucket.Tokens() >= 1 }

// count adds an entry to those that look alike.
func (l *Log) count(e Entry) {
	// What differs from one connection to the next is left out.
	k := Entry{Verdict: e.Verdict, Proto: e.Proto, App: e.App, Name: e.Name, Addr: e.Addr, Port: e.Port, Rule: e.Rule, Reason: e.Reason, Suggest: e.Suggest}
	if _, ok := l.counted[k]; !ok && len(l.counted) >= logKeys {
		k = Entry{Verdict: e.Verdict, Proto: e.Proto, Reason: "more denials of different kinds, not logged one by one"}
	}
	l.counted[k]++
	if l.timer == nil {
		l.timer = time.AfterFunc(logFlush, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.flush()
		})
	}
}

// flush writes what was counted.
func (l *Log) flush() {
	now := time.Now()
	for e, n := range l.counted {
		e.Time, e.Count = now, n
		l.put(e)
	}
	clear(l.counted)
	l.timer = nil
}

// put writes one line.
func (l *Log) put(e Entry) {
	if l.notify != nil {
		l.notify(e)
	}
	if l.lost > 0 {
		n := l.lost
		l.lost = 0
		l.put(Entry{Time: e.Time, Verdict: e.Verdict, Reason: "entries were lost: the log could not be written", Count: n})
		if l.lost > 0 {
			l.lost += n
			return
		}
	}
	line, err := json.Marshal(e)
	if err != nil {
		l.lost++
		return
	}
	if line = append(line, '\n'); l.torn {
		line = append([]byte{'\n'}, line...)
	}
	_, err = l.file.Write(line)
	if l.torn = err != nil; l.torn {
		l.lost++
	}
}

// Close writes what was counted and closes the file.
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
		l.flush()
	}
	return l.file.Close()
}

// Read calls each for the entries of the log at path, the oldest first; no log is
// no entry. Lines that cannot be read are passed over. An error of each ends it and
// is returned.
func Read(path string, each func(Entry) error) error {
	r := newReader(each)
	return r.ended("read", rotate.Read(path, r))
}

// ErrGone means that the folder of a log was removed.
var ErrGone = rotate.ErrGone

// Follow is Read, and then waits for more until ctx is done, when it returns nil, or
// the log's folder is removed: ErrGone.
func Follow(ctx context.Context, path string, each func(Entry) error) error {
	r := newReader(each)
	return r.ended("follow", rotate.Follow(ctx, path, r))
}

// reader finds the entries in what is written to it.
type reader struct {
	lines.Splitter
	err error // of the caller's function
}

func newReader(each func(Entry) error) *reader {
	r := &reader{}
	r.Limit = maxLogLine
	r.Each = func(line []byte) error {
		var e Entry
		if readable := json.Unmarshal(bytes.TrimSpace(line), &e) == nil && !e.Time.IsZero(); readable {
			r.err = each(e)
		}
		return r.err
	}
	return r
}

// ended returns the error with which reading ended: the caller's own as it is.
func (r *reader) ended(what string, err error) error {
	if err == nil || r.err != nil {
		return r.err
	}
	return fmt.Errorf("%s the audit log: %w", what, err)
}
