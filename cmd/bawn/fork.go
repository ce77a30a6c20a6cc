package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/snapshot"
	"bawn.dev/bawn/internal/sys/lockfile"
	"bawn.dev/bawn/internal/workcopy"
)

func forkCommand() *cobra.Command {
	var f forkFlags
	c := &cobra.Command{
		Use:   "fork SANDBOX [NEW...]",
		Short: "Make copies of a sandbox as it is, with all that runs in it",
		Long: `Make copies of a sandbox, or of a snapshot of it: memory with all that runs, disk
and network rules. The copies have names, addresses, keys and random numbers of
their own. They see the same project directory, or with --copy-project a copy of
its files, made right after the snapshot. Published ports get other numbers on the
host. Commands and shells that are attached to the sandbox are not in the copies. A
sandbox that is stopped or suspended is started for this, and is that again afterwards.
When one of several cannot be made or started, the others stay.`,
		Example: `  bawn fork web try-1 try-2
  bawn fork web --from prepared --copy-project`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeNames,
		RunE: func(c *cobra.Command, args []string) error {
			sandboxes, spec, err := named(args[:1])
			if err != nil {
				return err
			}
			names, err := f.names(sandboxes, spec, args[1:])
			if err != nil {
				return err
			}
			made, err := f.fork(c.Context(), sandboxes, spec, names)
			for _, n := range made {
				fmt.Fprintln(c.OutOrStdout(), n)
			}
			return err
		},
	}
	c.Flags().StringVar(&f.from, "from", "", "fork from the `SNAPSHOT` instead of the sandbox as it is")
	c.Flags().BoolVar(&f.copyProject, "copy-project", false, "give each fork a copy of the project's files, in a directory beside it named after the fork")
	return c
}

type forkFlags struct {
	from        string
	copyProject bool
}

// names are those of the forks, none of which is taken: what can be found wrong is,
// before the sandbox stands still for a snapshot.
func (f *forkFlags) names(sandboxes *store.Store, spec *sandbox.Spec, names []string) ([]string, error) {
	if len(names) == 0 {
		n, err := sandboxes.FreeName(forkName(spec.Name))
		if err != nil {
			return nil, err
		}
		names = []string{n}
	}
	for i, n := range names {
		if slices.Contains(names[:i], n) {
			return nil, fmt.Errorf("two forks cannot both be named %s", n)
		}
		if err := f.free(sandboxes, spec, n); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// forkName is what a fork of the sandbox is called, with room for a number.
func forkName(of string) string {
	const suffix, number = "-fork", "-9999" // Store.FreeName
	return strings.TrimRight(of[:min(len(of), sandbox.MaxName-len(suffix+number))], "-") + suffix
}

// free says whether a fork can have the name.
func (f *forkFlags) free(sandboxes *store.Store, spec *sandbox.Spec, name string) error {
	if err := sandbox.CheckName(name); err != nil {
		return err
	}
	if _, err := sandboxes.Dir(name).Spec(); err == nil {
		return hint(fmt.Errorf("a sandbox named %s exists already", name), "bawn rm %s, or another name", name)
	} else if !store.IsNotFound(err) {
		return err
	}
	if !f.copyProject {
		return nil
	}
	place := f.project(spec, name)
	_, err := os.Lstat(place)
	if err == nil {
		return hint(fmt.Errorf("%s exists already: it would be the copy of the project", place), "another name for the fork, or move what is there")
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// project is where a fork's project directory lies.
func (f *forkFlags) project(spec *sandbox.Spec, name string) string {
	if !f.copyProject {
		return spec.Dir
	}
	return filepath.Join(filepath.Dir(spec.Dir), filepath.Base(spec.Dir)+"-"+name)
}

// fork makes the forks and starts them. It returns those that were made, also when
// others failed.
func (f *forkFlags) fork(ctx context.Context, sandboxes *store.Store, spec *sandbox.Spec, names []string) (made []string, err error) {
	origin, done, err := f.origin(ctx, sandboxes, spec)
	if err != nil {
		return nil, err
	}
	defer done()
	return f.all(ctx, sandboxes, origin, names, func(name string) error { return ensureRunning(ctx, sandboxes, name) })
}

// all makes all forks of a snapshot before it starts one: what is copied of the
// project shall be what it was at the snapshot. After a failure the others stay.
func (f *forkFlags) all(ctx context.Context, sandboxes *store.Store, s *snapshot.Snapshot, names []string, start func(name string) error) (made []string, err error) {
	for _, name := range names {
		if err = ctx.Err(); err == nil {
			err = f.make(ctx, sandboxes, s, name)
		}
		if err != nil {
			err = fmt.Errorf("fork %s: %w", name, err)
			break
		}
		made = append(made, name)
	}
	for _, name := range made {
		if e := start(name); e != nil {
			err = errors.Join(err, fmt.Errorf("%s is made, but does not start: %w", name, e))
		}
	}
	if err != nil && len(names) > 1 {
		err = fmt.Errorf("%w (made: %s)", err, cmp.Or(strings.Join(made, ", "), "none"))
	}
	return made, err
}

// origin is the snapshot to fork from: a named one, or one made now.
func (f *forkFlags) origin(ctx context.Context, sandboxes *store.Store, spec *sandbox.Spec) (s *snapshot.Snapshot, done func(), err error) {
	d := sandboxes.Dir(spec.Name)
	if f.from != "" {
		s, err = verified(ctx, d, f.from)
		return s, func() {}, err
	}
	removeForked(d)
	name := forkedPrefix + sandbox.NewID()
	lock, err := lockfile.Acquire(ctx, d.File(name))
	if err != nil {
		return nil, nil, err
	}
	done = func() { discardForked(d, name, lock) }
	if err = capture(ctx, sandboxes, spec.Name, snapshotPath(d, name)); err == nil {
		s, err = snapshot.Open(snapshotPath(d, name))
	}
	if err != nil {
		done()
		return nil, nil, err
	}
	return s, done, nil
}

// forkedPrefix begins the names of snapshots that are there for a fork to be made of
// them; no person's begins like that (sandbox.CheckName). The fork holds a lock of
// that name in the sandbox's folder.
const forkedPrefix = "fork."

// removeForked removes such snapshots of forks that were killed.
func removeForked(d store.Dir) {
	left, _ := filepath.Glob(snapshotPath(d, forkedPrefix+"*"))
	for _, path := range left {
		name := filepath.Base(path)
		if l, err := lockfile.TryAcquire(d.File(name)); err == nil {
			discardForked(d, name, l)
		}
	}
}

// discardForked removes such a snapshot and its lock, or leaves that to the next fork.
func discardForked(d store.Dir, name string, l *lockfile.Lock) {
	_ = os.RemoveAll(snapshotPath(d, name))
	_ = os.Remove(d.File(name))
	l.Close()
}

// make makes a sandbox that is suspended where the snapshot was made. If that fails
// it removes what it made.
func (f *forkFlags) make(ctx context.Context, sandboxes *store.Store, s *snapshot.Snapshot, name string) (err error) {
	was := s.Meta.Spec
	spec := *was
	spec.ID, spec.Name, spec.Created, spec.Throwaway = sandbox.NewID(), name, time.Now().UTC(), false
	spec.Ports = nil
	for _, p := range was.Ports {
		spec.Ports = append(spec.Ports, sandbox.Port{Guest: p.Guest}) // the host's number is taken
	}
	if f.copyProject {
		spec.Dir, spec.Place = f.project(was, name), was.GuestDir()
		if err := workcopy.Copy(ctx, was.Dir, spec.Dir); err != nil {
			return err
		}
		defer func() {
			if err != nil {
				err = errors.Join(err, workcopy.Remove(spec.Dir))
			}
		}()
	}
	l, err := sandboxes.LockNames(ctx)
	if err != nil {
		return err
	}
	defer l.Close()
	d, err := sandboxes.Reserve(name)
	if err != nil {
		return err // the name is somebody else's by now
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Remove())
		}
	}()
	for _, file := range []string{store.PolicyFile, store.ProjectPolicyFile} {
		if err := copyFile(d.File(file), sandboxes.Dir(was.Name).File(file)); err != nil {
			return err
		}
	}
	if err := snapshot.CopyDisk(ctx, d.File(store.DiskFile), s.Disk()); err != nil {
		return err
	}
	if err := s.Clone(d.File(store.SuspendedState)); err != nil {
		return err
	}
	return d.WriteSpec(&spec) // from here on there is such a sandbox
}

// copyFile copies a small file, if it is there.
func copyFile(to, from string) error {
	b, err := os.ReadFile(from)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}
