package undo

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"
)

// Kind is the type of what a path leads to.
type Kind string

// The kinds.
const (
	Absent Kind = "absent"
	File   Kind = "file"
	Link   Kind = "link" // symbolic
	Dir    Kind = "dir"
	Other  Kind = "other" // a FIFO or a socket: it is not kept
)

// State is what a path led to before a change.
type State struct {
	Kind   Kind   `json:"k"`
	Mode   uint32 `json:"m,omitempty"` // permission bits, and the sticky bit of a directory
	UID    uint32 `json:"u,omitempty"`
	GID    uint32 `json:"g,omitempty"`
	Mtime  int64  `json:"t,omitempty"` // ns
	Size   int64  `json:"z,omitempty"` // of a file, in bytes
	Blob   string `json:"b,omitempty"` // of a file: the name of its contents in the point's folder
	Lost   string `json:"l,omitempty"` // of a file: why its contents were not kept
	Target []byte `json:"r,omitempty"` // of a link
	Owner  []byte `json:"o,omitempty"` // the extended attribute ownerAttribute
	Ino    uint64 `json:"i,omitempty"` // of a file: its inode
	Also   []byte `json:"a,omitempty"` // of a file with several names (hard links): another one, if one was known

	others []string // while it is recorded: names that were known (Source.Also)
}

// ownerAttribute is the record of owner and mode inside that the share's server keeps.
const ownerAttribute = "user.bawn.owner"

// op is what a record is about.
type op string

const (
	opPoint   op = "point"   // the head of a journal: when and why the point was made
	opWas     op = "was"     // State of Path before its first change
	opMoved   op = "moved"   // the directory Path was renamed to To
	opSwapped op = "swapped" // Path and To were exchanged
	opFull    op = "full"    // later changes of the point were not recorded: Why
)

// record is one line of a journal.
type record struct {
	Op    op     `json:"op"`
	Slot  uint32 `json:"n,omitempty"` // of opWas: its number among them, from 0
	Path  []byte `json:"p,omitempty"` // names need not be UTF-8
	To    []byte `json:"to,omitempty"`
	Ino   uint64 `json:"i,omitempty"` // of opMoved and opSwapped: the inode that Path led to before
	ToIno uint64 `json:"j,omitempty"` // of opSwapped: the same of To
	State *State `json:"s,omitempty"`
	At    int64  `json:"at,omitempty"` // ns, of opPoint
	Why   string `json:"why,omitempty"`
}

// checkPath refuses what is no path below the root, in its shortest form.
func checkPath(path string) error {
	parts := strings.Split(path, "/")
	if len(path) >= unix.PathMax || len(parts) > maxDepth {
		return errors.New("a path is too long")
	}
	for _, name := range parts {
		if name == "" || name == "." || name == ".." || len(name) > unix.NAME_MAX || strings.ContainsRune(name, 0) {
			return fmt.Errorf("%q is no path in a project", path)
		}
	}
	return nil
}

// check refuses a record that a Recorder does not write.
func (r *record) check() error {
	switch r.Op {
	case opPoint, opFull:
		return nil
	case opMoved, opSwapped:
		return errors.Join(checkPath(string(r.Path)), checkPath(string(r.To)))
	case opWas:
		if r.State == nil || r.Slot >= MaxRecords {
			return errors.New("a record is not complete")
		}
		return errors.Join(checkPath(string(r.Path)), r.State.check())
	}
	return fmt.Errorf("unknown record %q", r.Op)
}

func (s *State) check() error {
	switch s.Kind {
	case Absent, Dir, Other:
		return nil
	case Link:
		if len(s.Target) == 0 || len(s.Target) >= unix.PathMax || bytes.ContainsRune(s.Target, 0) {
			return errors.New("a link has no usable target")
		}
		return nil
	case File:
		if s.Size < 0 || (s.Blob == "") == (s.Lost == "") || s.Blob != "" && !isBlob(s.Blob) {
			return errors.New("a file has no usable contents")
		}
		if s.Also != nil {
			return checkPath(string(s.Also))
		}
		return nil
	}
	return fmt.Errorf("unknown kind %q", s.Kind)
}

// isBlob reports whether a name is one of contents: f or c and a decimal number.
func isBlob(name string) bool {
	if len(name) < 2 || len(name) > 12 || name[0] != copied && name[0] != cloned {
		return false
	}
	return strings.Trim(name[1:], "0123456789") == ""
}

// The first letter of the names of contents.
const (
	copied = 'f'
	cloned = 'c'
)

// line returns the record as a line.
func (r *record) line() ([]byte, error) {
	b, err := json.Marshal(r)
	if err == nil && len(b) >= maxLine {
		err = errors.New("a record is too long")
	}
	return append(b, '\n'), err
}

// readJournal calls yield for each record of a journal, up to the first one that is damaged
// or after which yield returns false. It reports whether there was a damaged one. A last line
// without its end was not written completely, and is none.
func readJournal(in io.Reader, yield func(*record) bool) (damaged bool, err error) {
	r := bufio.NewReaderSize(in, maxLine)
	for first := true; ; first = false {
		line, err := r.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			return false, nil
		case errors.Is(err, bufio.ErrBufferFull):
			return true, nil
		case err != nil:
			return false, err
		}
		var v record
		if json.Unmarshal(line, &v) != nil || v.check() != nil || first != (v.Op == opPoint) {
			return true, nil //nolint:nilerr // damaged says so
		}
		if !yield(&v) {
			return false, nil
		}
	}
}
