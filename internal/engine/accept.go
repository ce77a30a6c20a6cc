package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/share/versions"
	"bawn.dev/bawn/internal/undo"
)

// Acceptance is private versions that a person looks at before the host takes them over. What is
// written is what was read here, whatever the guest does to its versions meanwhile, and only
// over what the host had here.
type Acceptance struct {
	// Shown are the versions, for the person to see: each as in a Review, with the whole difference.
	Shown []ReviewKept
	// Same are paths on the host of which the guest has a version that does not differ. Apply drops
	// these versions, so that the guest sees the host's files again.
	Same []string

	spec   *sandbox.Spec
	dir    store.Dir
	shares map[string]string // privateShares
	list   []version
	same   map[string][]version // by share
}

// Accepted is what was taken over.
type Accepted struct {
	Paths []string `json:"paths"` // on the host, absolute
	// Point is the restore point of bawn undo that takes it back, or 0 if there is none: what
	// lies in other shares than the project is not kept.
	Point int `json:"point,omitempty"`
}

// NothingToAccept is the reason when a path has no private version that differs from the host's.
const NothingToAccept Reason = "nothing-to-accept"

// Accept reads the private versions at paths of the host, and below them, of a sandbox.
func (e *Engine) Accept(name string, paths []string) (*Acceptance, error) {
	spec, err := e.Named(name)
	if err != nil {
		return nil, err
	}
	d := e.sandboxes.Dir(name)
	a := &Acceptance{spec: spec, dir: d, shares: privateShares(spec, d), same: map[string][]version{}}
	if err := a.recover(); err != nil {
		return nil, err
	}
	var all, same []version
	for _, host := range slices.Sorted(maps.Keys(a.shares)) {
		list, equal, err := pending(spec, host, a.shares[host])
		if err != nil {
			return nil, err
		}
		all, same = append(all, list...), append(same, equal...)
	}
	marked := map[string]bool{}
	choose := func(at string) bool {
		differ, differs := beneath(at, all, marked)
		for _, v := range differ {
			a.list = append(a.list, v)
			a.Shown = append(a.Shown, v.shown())
		}
		equal, equals := beneath(at, same, marked)
		for _, v := range equal {
			a.same[v.Share] = append(a.same[v.Share], v)
			a.Same = append(a.Same, v.place())
		}
		return differs || equals
	}
	for _, p := range paths {
		abs, err := filepath.Abs(p)
		if err != nil {
			return nil, err
		}
		if !choose(abs) && !choose(resolved(abs)) {
			return nil, &Error{Reason: NothingToAccept, Sandbox: name, Path: abs, Err: fmt.Errorf("the guest has no version of %s that differs from yours", abs)}
		}
	}
	return a, a.check()
}

// shown returns a version as a person sees it who is to agree to it: with all of the difference.
func (v *version) shown() ReviewKept {
	k := v.Kept
	if v.whole != nil {
		k.Diff, k.Cut, k.Note = v.whole(), false, ""
	}
	return k
}

// beneath returns the versions of the list at a path and below it whose places are not marked yet,
// and marks them. found means that there are any, marked or not.
func beneath(at string, list []version, marked map[string]bool) (fresh []version, found bool) {
	for _, v := range list {
		place := v.place()
		if !sandbox.Beneath(at, place) {
			continue
		}
		found = true
		if !marked[place] {
			marked[place] = true
			fresh = append(fresh, v)
		}
	}
	return fresh, found
}

// recover finishes an Apply that was killed, in the shared directories and in the stores of private
// versions.
func (a *Acceptance) recover() error {
	s, err := openUndo(a.dir.File(store.UndoFolder))
	if err != nil {
		return err
	}
	defer s.Close()
	for _, folder := range a.shares {
		if err := versions.Recover(folder); err != nil {
			return err
		}
	}
	return s.Recover(slices.Collect(maps.Keys(a.shares))...)
}

// check returns an error if one of the versions cannot be taken over.
func (a *Acceptance) check() error {
	for _, v := range a.list {
		at := v.place()
		switch {
		case v.Kind == versions.File && !v.Whole:
			return fmt.Errorf("%s: the guest's version has %d bytes, and at most %d can be looked at: copy it with bawn cp instead", at, v.Size, reviewFile)
		case v.seen.Kind == undo.Dir || v.seen.Kind == undo.Other:
			return fmt.Errorf("%s: the host has something else than a file there, or a larger one: move it away first", at)
		}
	}
	return nil
}

// Apply takes the versions over, one after the other, each in one step, and makes the guest see
// the host's files again. It stops at the first that fails; those before it are taken over. The
// project's old files are kept for bawn undo.
func (a *Acceptance) Apply(ctx context.Context) (*Accepted, error) {
	res := &Accepted{Paths: []string{}}
	byShare := map[string][]version{}
	for _, v := range a.list {
		byShare[v.Share] = append(byShare[v.Share], v)
	}
	var failed error
	for _, host := range slices.Sorted(maps.Keys(a.shares)) {
		if failed == nil && len(byShare[host])+len(a.same[host]) > 0 {
			failed = a.apply(host, byShare[host], res)
		}
	}
	if res.Point == 0 {
		return res, failed
	}
	return res, errors.Join(failed, beginRestorePoint(ctx, a.dir))
}

// apply takes over versions of one share.
func (a *Acceptance) apply(host string, list []version, res *Accepted) error {
	root, err := os.Open(host)
	if err != nil {
		return err
	}
	defer root.Close()
	s, err := openUndo(a.dir.File(store.UndoFolder))
	if err != nil {
		return err
	}
	defer s.Close()
	p, err := undo.NewPutter(root, s, host == a.spec.Dir, reviewFile)
	if err != nil {
		return err
	}
	var taken []versions.Version
	for _, v := range a.same[host] {
		taken = append(taken, v.Version)
	}
	for _, v := range list {
		if err = p.Put(v.Version.Path, v.seen, v.replacement()); err != nil {
			break
		}
		taken = append(taken, v.Version)
		res.Paths = append(res.Paths, v.place())
	}
	if point := p.Close(); point != 0 {
		res.Point = point
	}
	return errors.Join(err, a.drop(host, taken))
}

// openUndo opens the store of undo, which is made if nothing was changed yet.
func openUndo(path string) (*undo.Store, error) {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return undo.Open(path)
}

// drop removes the private versions that the host has now, where all of a guarded path was taken
// over.
func (a *Acceptance) drop(host string, taken []versions.Version) error {
	slots := map[string]bool{}
	for _, v := range taken {
		slots[v.Slot] = true
	}
	differ, same, err := pending(a.spec, host, a.shares[host])
	if err != nil {
		return err
	}
	for _, v := range differ {
		delete(slots, v.Slot)
	}
	var whole []versions.Version
	for _, v := range same {
		whole = append(whole, v.Version)
	}
	_, err = versions.Drop(a.shares[host], slices.Sorted(maps.Keys(slots)), whole)
	return err
}

// replacement returns what takes the place of the host's path. The host's permissions stay but
// for those to execute.
func (v *version) replacement() undo.Replacement {
	switch v.Kind {
	case versions.Removed:
		return undo.Replacement{Kind: undo.Absent}
	case versions.Link:
		return undo.Replacement{Kind: undo.Link, Target: v.Target}
	}
	mode := uint32(0o644) // where the umask is not known
	if mask := Umask(); mask != nil {
		mode = 0o666 &^ *mask
	}
	if v.seen.Kind == undo.File {
		mode = v.seen.Mode
	}
	mode &^= 0o111
	if v.Version.Exec {
		mode |= (mode & 0o444) >> 2
	}
	return undo.Replacement{Kind: undo.File, Mode: mode, Data: v.Data}
}
