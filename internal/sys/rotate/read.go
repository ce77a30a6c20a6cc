package rotate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// poll is how often Follow looks for more.
const poll = 200 * time.Millisecond

// ErrGone means that the folder of a log that is followed was removed.
var ErrGone = errors.New("the log was removed")

// Read copies the log at path to w, the older file first. A log that does not exist
// is empty.
func Read(path string, w io.Writer) error {
	old, current, err := openBoth(path)
	defer func() { closeAll(old, current) }()
	for _, f := range []*os.File{old, current} {
		if err == nil && f != nil {
			err = copyTo(w, f)
		}
	}
	return err
}

// Follow is Read, and then copies what is added, over rotations, until ctx ends (nil),
// w fails (that error), or the folder of the log is removed (ErrGone). The log need
// not exist yet. What was written to a file before it was rotated is read to its end;
// a log that is rotated twice within 200 ms may lose what was between.
func Follow(ctx context.Context, path string, w io.Writer) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	err := FollowFunc(path, w, func() error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			return nil
		}
	})
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// FollowFunc is Follow for a caller that waits itself: it calls wait whenever it has
// copied all that is there, and looks for more when wait returns nil. An error of
// wait ends it and is returned.
func FollowFunc(path string, w io.Writer, wait func() error) error {
	old, f, err := openBoth(path)
	defer func() { closeAll(old, f) }()
	if err == nil && old != nil {
		err = copyTo(w, old)
	}
	for err == nil {
		if f, err = advance(w, f, path); err != nil {
			break
		}
		if _, serr := os.Stat(filepath.Dir(path)); errors.Is(serr, os.ErrNotExist) {
			return ErrGone
		}
		err = wait()
	}
	return err
}

// advance copies what f has more, and what the file that took its place has. It
// returns the file to continue with, which is nil while there is none.
func advance(w io.Writer, f *os.File, path string) (*os.File, error) {
	for {
		if f == nil {
			var err error
			if f, err = openIfThere(path); f == nil {
				return nil, err
			}
		}
		// Look first, then read: what was written before the rotation is in f.
		rotated := replaced(f, path)
		if err := copyTo(w, f); err != nil || !rotated {
			return f, err
		}
		f.Close()
		f = nil
	}
}

func copyTo(w io.Writer, f *os.File) error {
	if _, err := io.Copy(w, f); err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	return nil
}
