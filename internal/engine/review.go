package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/review"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/share/guard"
	"bawn.dev/bawn/internal/share/versions"
	"bawn.dev/bawn/internal/undo"
)

// The values of package review, by the names that front ends use.
type (
	// Review is what there is to look at of a guest's work.
	Review = review.Review
	// ReviewKept is a path of which the guest has a version of its own.
	ReviewKept = review.Kept
	// ReviewStat is one changed path.
	ReviewStat = review.Stat
)

// Since says what a review compares with. Zero is the last session that changed anything.
type Since struct {
	Point int       // the restore point of that number
	Time  time.Time // the first restore point that began then or later, or was in use then
	All   bool      // the first restore point that is kept
}

// reviewFile bounds the files that a review compares line by line, and that can be accepted, in
// bytes.
const reviewFile = 1 << 20

// Review returns what there is to look at of a sandbox's work. It changes nothing.
func (e *Engine) Review(ctx context.Context, name string, since Since) (*Review, error) {
	spec, err := e.Named(name)
	if err != nil {
		return nil, err
	}
	r := &Review{Sandbox: name, Project: spec.Dir, Findings: []review.Finding{}, Kept: []review.Kept{}, Refused: []guard.Event{}, Changes: []review.Stat{}}
	d := e.sandboxes.Dir(name)
	if err := reviewChanges(r, spec, d, since); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := reviewKept(r, spec, d); err != nil {
		return nil, err
	}
	return r, eachRefused(d, r.Since, func(ev guard.Event) { r.Refused = append(r.Refused, ev) })
}

// reviewChanges adds what was changed in the project.
func reviewChanges(r *Review, spec *sandbox.Spec, d store.Dir, since Since) error {
	s, err := undo.OpenToRead(d.File(store.UndoFolder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer s.Close()
	points, err := s.Points()
	if err != nil {
		return err
	}
	at, err := since.in(points)
	if at == nil || err != nil {
		return err
	}
	r.Point, r.Since = at.Number, at.At
	root, err := os.Open(spec.Dir)
	if err != nil {
		return err
	}
	defer root.Close()
	changes, err := s.Changes(root, at.Number)
	if err != nil {
		return err
	}
	f, err := newFinder(spec, root)
	if err != nil {
		return err
	}
	f.Src = &contents{s, root}
	r.Add(f, changes)
	return nil
}

// newFinder returns what finds changes that the host may run or trust in a project, which is open as root. It does
// not look into files.
func newFinder(spec *sandbox.Spec, root *os.File) (*review.Finder, error) {
	guarded, err := leadsToGuarded(spec)
	if err != nil {
		return nil, err
	}
	return &review.Finder{LeadsOut: leadsOut(root, spec.Dir), Guarded: guarded}, nil
}

// in returns the restore point to compare with, or nil if nothing was changed since.
func (s Since) in(points []undo.Point) (*undo.Point, error) {
	number := undo.LastSession(points)
	switch {
	case s.Point != 0:
		number = s.Point
		if !slices.ContainsFunc(points, func(p undo.Point) bool { return p.Number == number }) {
			return nil, fmt.Errorf("there is no restore point %d (`bawn undo --list` shows them)", number)
		}
	case s.All && len(points) > 0:
		number = points[0].Number
	case !s.Time.IsZero():
		number = 0
		for i, p := range points {
			if number == 0 && (!p.At.Before(s.Time) || i == len(points)-1 || points[i+1].At.After(s.Time)) {
				number = p.Number
			}
		}
	}
	i := slices.IndexFunc(points, func(p undo.Point) bool { return p.Number == number })
	if i < 0 {
		return nil, nil
	}
	return &points[i], nil
}

// contents reads the two sides of changes. It implements review.Source.
type contents struct {
	store *undo.Store
	root  *os.File
}

func (c *contents) Before(v *undo.Change, limit int64) ([]byte, bool) {
	if v.Was.Kind != undo.File {
		return nil, false
	}
	return readUpTo(limit, func() (*os.File, error) { return c.store.Contents(v) })
}

func (c *contents) Now(v *undo.Change, limit int64) ([]byte, bool) {
	if v.Now.Kind != undo.File {
		return nil, false
	}
	return readUpTo(limit, func() (*os.File, error) { return undo.OpenPath(c.root, v.Path) })
}

func readUpTo(limit int64, open func() (*os.File, error)) ([]byte, bool) {
	f, err := open()
	if err != nil {
		return nil, false
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	return b, err == nil && int64(len(b)) <= limit
}

// leadsOut returns a function that reports whether the target of a symbolic link at a path of the
// project leads out of it. What cannot be found leads where its text says.
func leadsOut(root *os.File, dir string) func(at, target string) bool {
	return func(at, target string) bool {
		rel := path.Dir(at) + "/" + target // as the kernel goes: links on the way count
		if filepath.IsAbs(target) {
			inside, ok := below(filepath.Clean(target), dir)
			if !ok {
				return true
			}
			rel = inside
		} else if clean := path.Clean(rel); clean == ".." || strings.HasPrefix(clean, "../") {
			return true
		}
		fd, err := unix.Openat2(int(root.Fd()), rel, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS})
		if err == nil {
			unix.Close(fd)
		}
		return errors.Is(err, unix.EXDEV)
	}
}

// leadsToGuarded returns what reports whether a symbolic link of a project leads to a path of it that is
// guarded or hidden, by what it says or by where it ends.
func leadsToGuarded(spec *sandbox.Spec) (func(at, target string) bool, error) {
	o := guardOptions(spec)
	o.Paths, o.HiddenPaths = guard.Targets(spec.Dir)
	rules, err := guard.New(o)
	if err != nil {
		return nil, err
	}
	return func(at, target string) bool {
		says := target
		if !filepath.IsAbs(target) {
			says = filepath.Join(spec.Dir, path.Dir(at), target)
		}
		ends, _ := filepath.EvalSymlinks(says) // nowhere, if that fails
		return slices.ContainsFunc([]string{filepath.Clean(says), ends}, func(to string) bool {
			inside, ok := below(to, spec.Dir)
			return ok && rules.Guards(inside)
		})
	}, nil
}

// privateShares are the shares of a sandbox in which the guest may have private versions, with
// the folders of these.
func privateShares(spec *sandbox.Spec, d store.Dir) map[string]string {
	shares := map[string]string{}
	for _, m := range spec.Shared() {
		if fi, err := os.Stat(m.Host); err == nil && fi.IsDir() && !m.ReadOnly() {
			shares[m.Host] = d.Private(m.Guest)
		}
	}
	return shares
}

// reviewKept adds the private versions that differ from the host's.
func reviewKept(r *Review, spec *sandbox.Spec, d store.Dir) error {
	shares := privateShares(spec, d)
	for _, host := range slices.Sorted(maps.Keys(shares)) {
		list, _, err := pending(spec, host, shares[host])
		if err != nil {
			return err
		}
		for _, v := range list {
			if v.Hidden { // the host's contents are secret: they are shown when the person asks for this file
				v.Diff, v.Cut, v.Note = "", false, "a file of its own: yours is hidden from it"
			}
			r.Kept = append(r.Kept, v.Kept)
		}
	}
	return nil
}

// eachRefused calls each for the changes that were refused since a time, once for each path.
func eachRefused(d store.Dir, since time.Time, each func(guard.Event)) error {
	seen := map[string]bool{}
	return guard.ReadEvents(d.File(store.FilesLogFile), func(ev guard.Event) error {
		at := ev.Share + "/" + ev.Path
		if ev.Action == guard.Refused && !ev.Time.Before(since) && !seen[at] {
			seen[at] = true
			each(ev)
		}
		return nil
	})
}

// version is a private version beside what the host has at its path.
type version struct {
	review.Kept
	versions.Version
	seen undo.Seen

	// whole returns the whole difference, where Diff is not that; nil otherwise.
	whole func() string
}

// place returns its path on the host.
func (v *version) place() string { return filepath.Join(v.Share, v.Version.Path) }

// worktreesFolder has the folders of linked working trees (gitrepository-layout(5)).
const worktreesFolder = ".git/worktrees"

// pending returns the private versions of a share that differ from what the host has, with what the
// guest has removed from guarded directories, and those that are the same.
func pending(spec *sandbox.Spec, host, folder string) (differ, same []version, err error) {
	list, err := versions.List(folder, reviewFile)
	if err != nil {
		return nil, nil, err
	}
	o := guardOptions(spec)
	for _, m := range spec.Mounts {
		if m.Host == host {
			o.Worktree = m.Worktree
		}
	}
	o.Paths, o.HiddenPaths = guard.Targets(host)
	rules, err := guard.New(o)
	if err != nil {
		return nil, nil, err
	}
	root, err := os.Open(host)
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	gone, err := versions.Gone(folder, root, rules.Hides)
	if err != nil {
		return nil, nil, err
	}
	for _, v := range slices.Concat(list, gone) {
		if path.Dir(v.Slot) == worktreesFolder {
			continue // of another working tree: the host's is hidden from the guest
		}
		p, differs := compareVersion(root, host, v)
		p.Hidden = rules.HidesIn(host, v.Slot)
		switch {
		case differs && (!p.Hidden || o.Worktree == ""): // other worktrees are not to be taken over
			differ = append(differ, p)
		case !differs && !p.Hidden:
			same = append(same, p)
		}
	}
	slices.SortStableFunc(differ, func(a, b version) int { return strings.Compare(a.Version.Path, b.Version.Path) })
	return differ, same, nil
}

// compareVersion compares a private version with what the host has at its path.
func compareVersion(root *os.File, host string, v versions.Version) (p version, differs bool) {
	p = version{Version: v, Kept: review.Kept{Share: host, Path: v.Path, Status: review.Modified, Exec: v.Exec, Link: v.Target}}
	seen, was, err := undo.Look(root, v.Path, reviewFile)
	p.seen = seen
	switch {
	case err != nil:
		p.Note = "what the host has there cannot be shown: " + err.Error()
		p.seen = undo.Seen{Kind: undo.Other}
		return p, true
	case v.Kind == versions.Removed && seen.Kind == undo.Absent:
		return p, false
	case v.Kind == versions.Removed:
		p.Status = review.Deleted
	case seen.Kind == undo.Absent:
		p.Status = review.Added
	case string(seen.Kind) != string(v.Kind):
		p.Status = review.Type
	}
	if v.Kind == versions.File && !v.Whole {
		p.Note = fmt.Sprintf("it has %d bytes, which is too much to show or to accept", v.Size)
		return p, true
	}
	now := v.Data
	if v.Kind == versions.Link {
		now = []byte(v.Target + "\n")
	}
	if seen.Kind == undo.Link {
		was = []byte(seen.Target + "\n")
	}
	p.Diff, p.Cut, p.Note = review.Diff(was, now)
	if p.Cut || p.Note != "" {
		p.whole = func() string { return review.WholeDiff(was, now) }
	}
	same := string(was) == string(now) && (v.Kind != versions.File || v.Exec == (seen.Mode&0o111 != 0))
	return p, p.Status != review.Modified || !same
}
