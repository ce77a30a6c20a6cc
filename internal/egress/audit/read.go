package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"

	"bawn.dev/bawn/internal/sys/lines"
	"bawn.dev/bawn/internal/sys/rotate"
)

// Reading puts the entries of the log's files together by time: each file is a
// sequence of entries (source), of which the earliest is taken until all have ended.
// A source of a log that is followed also says when it has no more for now.

// followPoll is how often Follow looks for more.
const followPoll = 200 * time.Millisecond

// ErrGone means that the folder of a log was removed.
var ErrGone = rotate.ErrGone

// Read calls each for the entries of the log at path, the oldest first; no log is
// no entry. Lines that cannot be read are passed over. An error of each ends it and
// is returned.
func Read(path string, each func(Entry) error) error {
	return merge(path, "read", each, nil, func(path string, r *reader) error {
		return rotate.Read(path, r)
	})
}

// Follow is Read, and then waits for more until ctx is done, when it returns nil, or
// the log's folder is removed: ErrGone.
func Follow(ctx context.Context, path string, each func(Entry) error) error {
	tick := time.NewTicker(followPoll)
	defer tick.Stop()
	wait := func() error {
		select {
		case <-ctx.Done():
			return errDone
		case <-tick.C:
			return nil
		}
	}
	err := merge(path, "follow", each, wait, func(path string, r *reader) error {
		return rotate.FollowFunc(path, r, r.pause)
	})
	if errors.Is(err, errDone) {
		return nil
	}
	return err
}

var (
	errDone    = errors.New("the caller's context is done")
	errStopped = errors.New("reading was stopped")
)

// source is one file of the log, read entry by entry.
type source struct {
	next  func() (*Entry, error, bool)
	head  *Entry // the next entry, if it was read already
	idle  bool   // there is no more for now
	ended bool
}

// merge calls each for the entries of all files in the order of their times. wait is
// called when there are no more for now; nil if the files are not followed.
func merge(path, what string, each func(Entry) error, wait func() error, read func(string, *reader) error) error {
	var sources []*source
	for _, suffix := range suffixes {
		next, stop := iter.Pull2(entries(path+suffix, read))
		defer stop()
		sources = append(sources, &source{next: next})
	}
	for {
		first, err := earliest(sources)
		switch {
		case err != nil && !errors.Is(err, ErrGone):
			return fmt.Errorf("%s the audit log: %w", what, err)
		case first != nil:
			e := *first.head
			first.head = nil
			if err := each(e); err != nil {
				return err
			}
			continue
		case err != nil:
			return fmt.Errorf("%s the audit log: %w", what, err)
		case wait == nil:
			return nil
		}
		if err := wait(); err != nil {
			return err
		}
		for _, s := range sources {
			s.idle = false
		}
	}
}

// earliest returns the source with the earliest entry; nil if none has one now. An
// error is of a source; ErrGone comes with what other sources still have.
func earliest(sources []*source) (first *source, gone error) {
	for _, s := range sources {
		if err := s.fill(); errors.Is(err, ErrGone) {
			gone = err
		} else if err != nil {
			return nil, err
		}
		if s.head != nil && (first == nil || s.head.Time.Before(first.head.Time)) {
			first = s
		}
	}
	return first, gone
}

// fill reads the source's next entry, if there is one now.
func (s *source) fill() error {
	if s.head != nil || s.idle || s.ended {
		return nil
	}
	e, err, ok := s.next()
	switch {
	case !ok:
		s.ended = true
	case err != nil:
		s.ended = true
		return err
	case e == nil:
		s.idle = true
	default:
		s.head = e
	}
	return nil
}

// entries reads one file. It yields nil when there is no more for now, and the error
// with which reading ended as the last.
func entries(path string, read func(string, *reader) error) iter.Seq2[*Entry, error] {
	return func(yield func(*Entry, error) bool) {
		if err := read(path, newReader(yield)); err != nil && !errors.Is(err, errStopped) {
			yield(nil, err)
		}
	}
}

// reader finds the entries in what is written to it.
type reader struct {
	lines.Splitter
	yield func(*Entry, error) bool
}

func newReader(yield func(*Entry, error) bool) *reader {
	r := &reader{yield: yield}
	r.Limit = maxLogLine
	r.Each = func(line []byte) error {
		var e Entry
		if readable := json.Unmarshal(bytes.TrimSpace(line), &e) == nil && !e.Time.IsZero(); readable && !yield(&e, nil) {
			return errStopped
		}
		return nil
	}
	return r
}

// pause says that there is no more for now.
func (r *reader) pause() error {
	if !r.yield(nil, nil) {
		return errStopped
	}
	return nil
}
