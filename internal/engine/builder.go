package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/sys/lockfile"
)

// This file finds, makes, starts and removes the sandboxes that images are built in.

// builderPrefix begins the name that a builder is made with.
const builderPrefix = "build-"

// builderLock is held in the folder of a builder while a build runs in it.
const builderLock = "build.lock"

// builderOf returns the builder of a directory, or a not-found error. forProject is that of a Request.
func (e *Engine) builderOf(dir string, forProject bool) (*sandbox.Spec, error) {
	names, err := e.sandboxes.Names()
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if spec, err := e.sandboxes.Dir(n).Spec(); err == nil && spec.Builder && !spec.Throwaway && spec.ForProject == forProject && spec.Dir == dir {
			return spec, nil
		}
	}
	return nil, e.notFound(dir)
}

// newBuilder returns what is newSpec for builders.
func (e *Engine) newBuilder(forProject bool) func(name, dir string, c *SpecChange) (*sandbox.Spec, error) {
	return func(name, dir string, c *SpecChange) (*sandbox.Spec, error) {
		s := e.emptySpec(name, dir)
		s.Builder, s.ForProject, s.Project.Mode = true, forProject, sandbox.ReadOnly
		return e.completed(s, c)
	}
}

// startBuilder finds or makes the builder of a request and starts it, from the image base. One
// that has another image is removed first. The lock is held until the build is over.
func (e *Engine) startBuilder(ctx context.Context, r *Request, base *Image) (*Session, *lockfile.Lock, error) {
	for {
		in, err := e.resolve(ctx, r)
		if err != nil {
			return nil, nil, err
		}
		s, l, err := e.startFound(ctx, in, r, base)
		if s != nil || err != nil {
			return s, l, err
		}
	}
}

// startFound starts the builder that was found or made. It returns neither a session nor an error
// if the builder is gone: another process has removed it, or startFound has, since its image is not
// base.
func (e *Engine) startFound(ctx context.Context, in found, r *Request, base *Image) (*Session, *lockfile.Lock, error) {
	d := e.sandboxes.Dir(in.spec.Name)
	l, err := e.lockBuilder(ctx, d, r.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	spec, err := d.Spec()
	switch {
	case store.IsNotFound(err) || err == nil && spec.ID != in.spec.ID:
		return nil, nil, l.Close()
	case err != nil:
		return nil, nil, errors.Join(err, l.Close())
	case spec.Boot.ImageDigest != "" && spec.Boot.ImageDigest != base.Digest:
		e.notify(Notice{Reason: BuilderRenewed, Sandbox: spec.Name, Text: "the default image is a newer one, so the cache of earlier builds is removed"})
		return nil, nil, errors.Join(e.Remove(ctx, spec.Name, true), l.Close())
	}
	s, err := e.begin(ctx, in, &r.Change, "root")
	if err == nil {
		return s, l, nil
	}
	l.Close()
	if store.IsNotFound(err) && !in.made && ctx.Err() == nil {
		return nil, nil, nil
	}
	return nil, nil, err
}

// lockBuilder takes the right to build in a builder.
func (e *Engine) lockBuilder(ctx context.Context, d store.Dir, dir string) (l *lockfile.Lock, err error) {
	err = e.during("Waiting for another build of "+dir, func() error {
		l, err = lockfile.Acquire(ctx, d.File(builderLock))
		return err
	})
	return l, err
}

// RemoveBuilders removes the builders, with the cache of earlier builds, in which no build runs.
// It returns their names, also with an error.
func (e *Engine) RemoveBuilders(ctx context.Context) (removed []string, err error) {
	names, err := e.sandboxes.Names()
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		d := e.sandboxes.Dir(n)
		if spec, serr := d.Spec(); serr != nil || !spec.Builder || spec.Throwaway { // the last is removed by its own process
			continue
		}
		l, lerr := lockfile.TryAcquire(d.File(builderLock))
		if lerr != nil {
			if !errors.Is(lerr, fs.ErrNotExist) { // removed meanwhile
				err = errors.Join(err, fmt.Errorf("%s stays: a build runs in it (%w)", n, lerr))
			}
			continue
		}
		rerr := errors.Join(e.Remove(ctx, n, true), l.Close())
		if rerr == nil {
			removed = append(removed, n)
		}
		err = errors.Join(err, rerr)
	}
	return removed, err
}
