package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/sys/lockfile"
)

// ProjectDir makes a path the name of a project directory: absolute and free of
// symbolic links, so that one directory has one sandbox.
func ProjectDir(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	real, err := realPath(abs, false)
	if errors.Is(err, fs.ErrNotExist) {
		return "", &Error{Reason: NoDirectory, Path: abs, Err: fmt.Errorf("project directory: %s does not exist", abs)}
	} else if err != nil {
		return "", fmt.Errorf("project directory: %w", err)
	}
	fi, err := os.Stat(real)
	if err != nil {
		return "", fmt.Errorf("project directory: %w", err)
	}
	if !fi.IsDir() {
		return "", &Error{Reason: NotADirectory, Path: real, Err: fmt.Errorf("project directory: %s is not a directory", real)}
	}
	return real, nil
}

// Find returns the sandbox of a directory (ProjectDir), or of the nearest parent that
// has one.
func (e *Engine) Find(dir string) (*sandbox.Spec, error) {
	spec, err := e.sandboxes.Find(dir)
	if store.IsNotFound(err) {
		return nil, &Error{Reason: NotFound, Path: dir, Err: err}
	}
	return spec, err
}

// Named returns the sandbox of that name.
func (e *Engine) Named(name string) (*sandbox.Spec, error) {
	if err := sandbox.CheckName(name); err != nil {
		return nil, err
	}
	spec, err := e.sandboxes.Dir(name).Spec()
	if store.IsNotFound(err) {
		return nil, because(NotFound, name, err)
	}
	return spec, err
}

// folder returns the folder of the sandbox of that name, which may be damaged. A name may
// come from outside, so every method that takes one goes through folder or Named, which
// refuse a name that leads elsewhere.
func (e *Engine) folder(name string) (store.Dir, error) {
	if err := sandbox.CheckName(name); err != nil {
		return store.Dir{}, err
	}
	d := e.sandboxes.Dir(name)
	if _, err := os.Lstat(d.Path); errors.Is(err, fs.ErrNotExist) {
		_, err := d.Spec()
		return d, because(NotFound, name, err)
	}
	return d, nil
}

// dirOf returns the folder of the sandbox of that name, as Named finds it.
func (e *Engine) dirOf(name string) (store.Dir, error) {
	_, err := e.Named(name)
	return e.sandboxes.Dir(name), err
}

// Request selects the sandbox that the user wants to use, and how. A sandbox that does not
// exist is made.
type Request struct {
	// Dir is the project directory (ProjectDir).
	Dir string
	// Name is the sandbox's. If it is empty, the sandbox is that of Dir or of the
	// nearest parent that has one; a new one is named after Dir.
	Name string
	// OnlyDir refuses the sandbox of that Name if it belongs to another directory.
	OnlyDir bool
	// Throwaway makes a new sandbox, which is removed when it is closed.
	Throwaway bool
	// Builder means the sandbox in which images are built of Dir, or with Throwaway one for one build. Name is
	// empty.
	Builder bool
	// ForProject means the Builder of the image that the project's bawn.yaml describes.
	ForProject bool
	// Agent, if not nil, is installed and given to the sandbox.
	Agent *AgentRequest
	// Change is applied to the sandbox.
	Change SpecChange
	// User is the account to log in as; empty is the user's own name.
	User string
}

// existing returns the sandbox of a request, or a not-found error.
func (e *Engine) existing(r *Request) (*sandbox.Spec, error) {
	if r.Builder && !r.Throwaway {
		return e.builderOf(r.Dir, r.ForProject)
	}
	if r.Name == "" && !r.Throwaway {
		return e.sandboxes.Find(r.Dir)
	}
	if r.Name == "" {
		return nil, e.notFound(r.Dir)
	}
	if err := sandbox.CheckName(r.Name); err != nil {
		return nil, err
	}
	spec, err := e.sandboxes.Dir(r.Name).Spec()
	if err != nil {
		return nil, err
	}
	if r.Throwaway {
		return nil, &Error{Reason: Exists, Sandbox: r.Name, Throwaway: true, Err: fmt.Errorf("a sandbox named %s exists already, and would be removed after the command", r.Name)}
	}
	if r.OnlyDir && spec.Dir != r.Dir {
		return nil, &Error{Reason: OtherDirectory, Sandbox: spec.Name, Path: r.Dir, Err: fmt.Errorf("sandbox %s belongs to %s, not to %s", spec.Name, spec.Dir, r.Dir)}
	}
	return spec, nil
}

// notFound returns the not-found error of a name that cannot exist.
func (e *Engine) notFound(dir string) error {
	_, err := e.sandboxes.Dir(".none").Spec()
	return fmt.Errorf("%s: %w", dir, err)
}

// found is the sandbox of a request.
type found struct {
	spec  *sandbox.Spec
	made  bool           // just now
	owner *lockfile.Lock // of a throwaway, to be held until it is removed
}

// resolve finds the sandbox of a request, or makes it.
func (e *Engine) resolve(ctx context.Context, r *Request) (found, error) {
	l, err := e.lockNames(ctx)
	if err != nil {
		return found{}, err
	}
	defer l.Close()
	spec, err := e.existing(r)
	if err == nil || !store.IsNotFound(err) {
		return found{spec: spec}, err
	}
	return e.create(r)
}

// create makes the sandbox of a request. The caller holds the lock of names.
func (e *Engine) create(r *Request) (found, error) {
	name, err := e.newName(r)
	if err != nil {
		return found{}, err
	}
	newSpec := e.newSpec
	if r.Builder {
		newSpec = e.newBuilder(r.ForProject)
	}
	spec, err := newSpec(name, r.Dir, &r.Change)
	if err != nil {
		return found{}, err
	}
	spec.Throwaway = r.Throwaway
	if err := e.checkShares(spec); err != nil {
		return found{}, err
	}
	if !r.Builder { // git is not used in it
		e.warnGitLink(spec)
		e.warnAlternates(spec)
	}
	n := found{spec: spec, made: true}
	if r.Throwaway {
		n.owner, err = e.sandboxes.CreateOwned(spec)
	} else {
		_, err = e.sandboxes.Create(spec)
	}
	return n, err
}

func (e *Engine) newName(r *Request) (string, error) {
	if r.Name != "" {
		return r.Name, nil
	}
	base := sandbox.NameFor(r.Dir)
	if r.Builder {
		base = builderPrefix + base
	}
	if r.Throwaway {
		base += "-" + sandbox.NewID()[:6]
	}
	return e.sandboxes.FreeName(base)
}

// undoCreate undoes the making of a sandbox that did not start. It removes the sandbox if no
// supervisor was launched: then its disk is empty, and the next request shall not inherit
// its settings. It also removes one whose first start was interrupted before any command ran.
// Otherwise it only removes its mounts, volumes, local directories and ports: the logs tell why the
// start failed.
func (e *Engine) undoCreate(name string, interrupted bool) error {
	d := e.sandboxes.Dir(name)
	if spec, err := d.Spec(); err == nil && spec.Fresh && interrupted {
		return e.Remove(context.Background(), name, true)
	}
	switch _, err := os.Stat(d.File(store.SupervisorLogFile)); {
	case errors.Is(err, fs.ErrNotExist):
		return e.Remove(context.Background(), name, false)
	case err != nil:
		return err
	}
	l, err := d.LockStart(context.Background())
	if err != nil {
		return err
	}
	defer l.Close()
	return restoreMountsAndPorts(d, &sandbox.Spec{})
}

// restoreMountsAndPorts gives a sandbox back the mounts, volumes, local directories, caches and ports that it
// had before a start that failed: starts fail because of them, and the next one would fail again.
// The caller holds the start lock.
func restoreMountsAndPorts(d store.Dir, was *sandbox.Spec) error {
	spec, err := d.Spec()
	if err != nil {
		return err
	}
	spec.Mounts, spec.Added.Mounts = was.Mounts, was.Added.Mounts
	spec.Volumes, spec.Added.Volumes = was.Volumes, was.Added.Volumes
	spec.LocalDirs, spec.Added.LocalDirs = was.LocalDirs, was.Added.LocalDirs
	spec.Caches, spec.Added.Caches = was.Caches, was.Added.Caches
	spec.Ports, spec.Added.Ports = was.Ports, was.Added.Ports
	return d.WriteSpec(spec)
}

// nameOf returns the name of the sandbox in a folder.
func nameOf(d store.Dir) string { return filepath.Base(d.Path) }
