package store

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/atomicfile"
	"bawn.dev/bawn/internal/sys/fileid"
	"bawn.dev/bawn/internal/sys/lockfile"
	"bawn.dev/bawn/internal/sys/proc"
)

// What guests can change, and could.
//
// Theory of operation. A guest may plant a program, or a link, in a directory that it shares,
// and wait: PATH or a link to a file of rules may lead there after the sandbox is gone. So
// the store keeps a record of all that was ever shared for writing, by path and by identity
// (package fileid), and Changeable returns it together with what the sandboxes share now.
//
//   - An entry is written before a guest can write: with the spec (WriteSpec), and when a
//     share's server starts, because the host may have put another directory at the path.
//     Sandboxes of builds without a record get theirs when they are removed.
//   - The path finds what lies there now. The identity finds a directory that was moved on
//     its file system. A copy of it, or a part that was moved out of it, is not found.
//   - What Changeable found is kept, since each start of a program asks for it many times, and a
//     supervisor asks for as long as it lives. It is found anew when the record or the list of
//     sandboxes has changed since (package fileid, Stamp): so what begins to be shared counts from
//     the next question on, in all processes. And it is found anew after keptTime, because the
//     host may put another directory at a path, which changes no file of the store.
//   - The record is bounded: of entries whose directory is not at its path any more, the last
//     maxGone stay. They cannot all be dropped, as it may have been moved and not removed, or
//     its file system may not be mounted.

const (
	sharedFile     = "shared"      // one JSON object a line, in the order of time
	sharedLockFile = "shared.lock" // held for a moment while that file is changed
)

const (
	// maxGone is how many entries are kept whose directory is not at its path any more.
	maxGone = 512
	// maxShared is how many entries there may be. Beyond, nothing more is shared.
	maxShared = 16384
	// keptTime is how long what was found is kept at most. Within it come nearly all questions of one
	// start; the host does not move directories and run programs from them that fast by chance.
	keptTime = time.Second
	// sharedLockTime is how long a change of the record waits for another one.
	sharedLockTime = 10 * time.Second
)

// sharedEntry is one line of the record.
type sharedEntry struct {
	Path string    `json:"path"`
	ID   fileid.ID `json:"id"`
}

// kept has what was found for each store of this process, by its folder: the user's, and that of pool machines.
var kept struct {
	sync.Mutex
	of map[string]finding
}

// finding is what guests can change, and could, as it was found.
type finding struct {
	places    []proc.Writable
	record    fileid.Stamp // of the record, before it was read
	sandboxes fileid.Stamp // of the folder of sandboxes, before it was read
	at        time.Time    // before both
}

// begin returns a finding without places, for a search that begins now.
func (s *Store) begin() (f finding, err error) {
	f.at = time.Now()
	if f.record, err = fileid.StampOf(s.sharedPath()); err != nil {
		return f, err
	}
	f.sandboxes, err = fileid.StampOf(s.sandboxesPath())
	return f, err
}

// current reports whether what was found holds for a search that begins with now.
func (f finding) current(now finding) bool {
	return f.record == now.record && f.sandboxes == now.sandboxes && now.at.Sub(f.at) < keptTime
}

// Changeable returns all that guests can change, and could. What a sandbox shares now comes
// first. An error means that it is not known, and nothing may be trusted. The caller does not
// change the list, which is shared with other callers of this process.
func (s *Store) Changeable() ([]proc.Writable, error) {
	kept.Lock()
	defer kept.Unlock()
	now, err := s.begin()
	if err != nil {
		return nil, err
	}
	if was, ok := kept.of[s.root]; ok && was.current(now) {
		return was.places, nil
	}
	delete(kept.of, s.root)
	if now.places, err = s.changeable(); err != nil {
		return nil, err
	}
	if kept.of == nil {
		kept.of = map[string]finding{}
	}
	kept.of[s.root] = now
	return now.places, nil
}

// changeable is Changeable, from the files.
func (s *Store) changeable() (list []proc.Writable, err error) {
	names, err := s.Names()
	if err != nil {
		return nil, err
	}
	known := map[sharedEntry]bool{}
	add := func(path string, id fileid.ID, why string) {
		if e := (sharedEntry{path, id}); !known[e] {
			known[e] = true
			list = append(list, proc.Writable{ID: id, Why: why})
		}
	}
	now := identities{}
	for _, n := range names {
		spec, err := s.Dir(n).Spec()
		if err != nil {
			continue // damaged: it cannot run. What it shared is in the record
		}
		for _, path := range writable(spec) {
			if id, ok := now.at(path); ok {
				add(path, id, fmt.Sprintf("the guest of sandbox %s can write to %s", n, path))
			}
		}
	}
	entries, err := s.readShared()
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		why := fmt.Sprintf("a guest could write to %s while it was shared; if you trust all that is in it, take the lines with this path out of %s", e.Path, s.sharedPath())
		if id, ok := now.at(e.Path); ok {
			add(e.Path, id, why)
		}
		add(e.Path, e.ID, why)
	}
	return list, nil
}

// identities has what lies at paths, so that each is asked for once.
type identities map[string]fileid.ID

func (m identities) at(path string) (id fileid.ID, ok bool) {
	if id, ok = m[path]; !ok {
		id, _ = fileid.Of(path) // what is not there has the zero value
		m[path] = id
	}
	return id, id != fileid.ID{}
}

// writable returns the paths of the host that the guest of a spec can write to.
func writable(spec *sandbox.Spec) (paths []string) {
	for _, m := range spec.Sources() {
		if !m.ReadOnly() && filepath.IsAbs(m.Host) {
			paths = append(paths, m.Host)
		}
	}
	return paths
}

// CheckPlace returns an error if a path leads to, or through, what a guest can change, or could (proc.Beyond).
func (s *Store) CheckPlace(path string) error {
	list, err := s.Changeable()
	if err != nil {
		return err
	}
	return proc.Beyond(path, list)
}

// RecordShared notes for good that guests can write to what now lies at the paths. What is
// in the sandbox's own folder is left out: it goes with the sandbox.
func (d Dir) RecordShared(paths ...string) error {
	s := d.store()
	var add []sharedEntry
	for _, path := range paths {
		id, err := fileid.Of(path)
		if errors.Is(err, fs.ErrNotExist) || sandbox.Beneath(d.Path, path) {
			continue
		}
		if err != nil {
			return fmt.Errorf("record that %s is shared: %w", path, err)
		}
		add = append(add, sharedEntry{path, id})
	}
	entries, err := s.readShared()
	if err != nil || len(missing(entries, add)) == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), sharedLockTime)
	defer cancel()
	l, err := lockfile.Acquire(ctx, filepath.Join(s.root, sharedLockFile))
	if err != nil {
		return fmt.Errorf("record what is shared: %w", err)
	}
	defer l.Close()
	if entries, err = s.readShared(); err != nil {
		return err
	}
	entries = withoutGone(append(entries, missing(entries, add)...))
	if len(entries) > maxShared {
		return fmt.Errorf("more than %d directories were shared with guests, which %s lists: take the lines out of it whose directories you trust or removed", maxShared, s.sharedPath())
	}
	return s.writeShared(entries)
}

// store returns the store that a sandbox's folder is in.
func (d Dir) store() *Store { return &Store{root: filepath.Dir(filepath.Dir(d.Path))} }

func (s *Store) sharedPath() string { return filepath.Join(s.root, sharedFile) }

// missing returns those of add that are not in entries.
func missing(entries, add []sharedEntry) (rest []sharedEntry) {
	for _, e := range add {
		if !slices.Contains(entries, e) && !slices.Contains(rest, e) {
			rest = append(rest, e)
		}
	}
	return rest
}

// withoutGone drops the oldest entries whose directory is not at its path any more, but for
// maxGone of them.
func withoutGone(entries []sharedEntry) []sharedEntry {
	now, gone := identities{}, 0
	var kept []sharedEntry
	for _, e := range slices.Backward(entries) {
		if id, ok := now.at(e.Path); !ok || !id.Same(e.ID) {
			if gone++; gone > maxGone {
				continue
			}
		}
		kept = append(kept, e)
	}
	slices.Reverse(kept)
	return kept
}

// readShared reads the record.
func (s *Store) readShared() (entries []sharedEntry, err error) {
	b, err := os.ReadFile(s.sharedPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; lines.Scan(); n++ {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var e sharedEntry
		if err = json.Unmarshal(lines.Bytes(), &e); err == nil && !filepath.IsAbs(e.Path) {
			err = errors.New("no absolute path")
		}
		if err != nil {
			return nil, fmt.Errorf("%s, which lists what guests could write to, is damaged in line %d (%w): repair or remove that line", s.sharedPath(), n, err)
		}
		entries = append(entries, e)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s, which lists what guests could write to: %w", s.sharedPath(), err)
	}
	return entries, nil
}

// writeShared replaces the record. The caller holds its lock.
func (s *Store) writeShared(entries []sharedEntry) error {
	var b bytes.Buffer
	for _, e := range entries {
		line, err := json.Marshal(e)
		if err != nil {
			return err
		}
		b.Write(append(line, '\n'))
	}
	return atomicfile.Write(s.sharedPath(), b.Bytes())
}
