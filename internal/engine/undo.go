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
	"strings"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/undo"
)

// The values of package undo, by the names that front ends use.
type (
	// UndoPoint is a restore point.
	UndoPoint = undo.Point
	// UndoRequest says what is to be taken back.
	UndoRequest = undo.Request
	// UndoPlan is what an undo would do.
	UndoPlan = undo.Plan
	// UndoStep is one change of a plan.
	UndoStep = undo.Step
	// UndoKept is a change that stays, with the reason.
	UndoKept = undo.Kept
	// UndoResult is what an undo did.
	UndoResult = undo.Result
)

// Values in an UndoStep.
const (
	UndoRestore = undo.Restore
	UndoMove    = undo.Move
	UndoFile    = undo.File
	UndoDir     = undo.Dir
)

// LastSession returns the number of the restore point at which the last session began that
// changed anything, or 0 if there is none.
func LastSession(points []UndoPoint) int { return undo.Last(points) }

// Undo is what a sandbox's guests changed in its project, and the way back. The caller closes
// it; meanwhile no other undo of the sandbox runs. It is for one goroutine.
type Undo struct {
	// Unfinished is the request of an undo that was interrupted, or nil. It is to be applied
	// before any other.
	Unfinished *UndoRequest

	dir     store.Dir
	project string
	store   *undo.Store
	root    *os.File
}

// OpenUndo opens the changes of the sandbox of that name. It returns nil if there are none.
func (e *Engine) OpenUndo(name string) (*Undo, error) {
	spec, err := e.Named(name)
	if err != nil {
		return nil, err
	}
	u := &Undo{dir: e.sandboxes.Dir(name), project: spec.Dir}
	u.store, err = undo.Open(u.dir.File(store.UndoFolder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if u.root, err = os.Open(spec.Dir); err == nil {
		if err = u.store.Recover(sharedDirs(spec, u.dir)...); err == nil {
			u.Unfinished, err = u.store.Unfinished()
		}
	}
	if err != nil {
		u.Close()
		return nil, err
	}
	return u, nil
}

// sharedDirs returns the directories of the host in which a sandbox's guest may have changed files,
// with the project.
func sharedDirs(spec *sandbox.Spec, d store.Dir) []string {
	return append(slices.Collect(maps.Keys(privateShares(spec, d))), spec.Dir)
}

// Close ends the use of the changes.
func (u *Undo) Close() {
	u.store.Close()
	if u.root != nil {
		u.root.Close()
	}
}

// Points lists the restore points, the oldest first.
func (u *Undo) Points() ([]UndoPoint, error) { return u.store.Points() }

// Path returns a path of the host as one of the project. The file need not exist.
func (u *Undo) Path(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	rel, ok := below(abs, u.project)
	if !ok {
		rel, ok = below(resolved(abs), u.project)
	}
	if !ok {
		return "", fmt.Errorf("%s does not lie in the project %s", abs, u.project)
	}
	return rel, nil
}

func below(path, dir string) (rel string, ok bool) {
	rel, err := filepath.Rel(dir, path)
	return rel, err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// resolved resolves the symbolic links in the directories of a path that exist.
func resolved(path string) string {
	dir, rest := filepath.Split(filepath.Clean(path))
	for {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			return filepath.Join(real, rest)
		}
		dir = filepath.Clean(dir)
		rest = filepath.Join(filepath.Base(dir), rest)
		if dir = filepath.Dir(dir); dir == "/" {
			return path
		}
	}
}

// Plan returns what an undo would do. It changes nothing.
func (u *Undo) Plan(q UndoRequest) (*UndoPlan, error) { return u.store.Plan(u.root, q) }

// Apply carries out a plan. What it changes can be undone as well.
func (u *Undo) Apply(ctx context.Context, q UndoRequest, p *UndoPlan) (*UndoResult, error) {
	res, err := u.store.Apply(u.root, q, p)
	if res.Point == 0 {
		return res, err
	}
	return res, errors.Join(err, beginRestorePoint(ctx, u.dir))
}

// beginRestorePoint makes what the guest of a sandbox changes from now on come after what bawn has
// changed in the project. No error: the sandbox does not run, or an older supervisor does not know
// the request.
func beginRestorePoint(ctx context.Context, d store.Dir) error {
	err := control.NewClient(d.DialControl).BeginRestorePoint(ctx)
	if reason := control.ReasonOf(err); err == nil || reason == control.ReasonVersion || reason == control.ReasonNoAnswer {
		return nil
	}
	return fmt.Errorf("begin a restore point: %w", err)
}
