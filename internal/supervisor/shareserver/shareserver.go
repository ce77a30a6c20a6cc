// Package shareserver runs the processes that serve shared directories to a machine: one
// process for each directory, confined to it (package share).
package shareserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/share"
	"bawn.dev/bawn/internal/share/guard"
	"bawn.dev/bawn/internal/snapshot"
	"bawn.dev/bawn/internal/supervisor/handoff"
	"bawn.dev/bawn/internal/sys/proc"
	"bawn.dev/bawn/internal/sys/socketpair"
	"bawn.dev/bawn/internal/volume"
	"bawn.dev/bawn/internal/wire"
)

// Plan is one share to be: what it serves and where the guest mounts it.
type Plan struct {
	Options share.Options `json:"options"`
	Mount   wire.Mount    `json:"mount"`
}

// Equal reports whether two plans are the same for a guest.
func (p Plan) Equal(q Plan) bool { return p.Options.Equal(q.Options) && p.Mount == q.Mount }

// Tag returns what the guest knows the i-th share by.
func Tag(i int) string { return fmt.Sprintf("share%d", i) }

// Plans returns the shares of the spec of a sandbox whose folder is d: its directory first,
// then its mounts, its volumes, its shared packages and those of its agents. Nothing of these but
// the first two is guarded or hidden: the host reads none of their files, or the guest cannot write
// to them.
func Plans(spec *sandbox.Spec, d store.Dir) ([]Plan, error) {
	var plans []Plan
	for i, m := range spec.Sources() {
		fi, err := os.Stat(m.Host)
		if err != nil {
			return nil, fmt.Errorf("share %s: %w", m.Host, err)
		}
		p := Plan{
			Options: share.Options{Root: m.Host, ReadOnly: m.ReadOnly()},
			Mount:   wire.Mount{Tag: Tag(i), Path: m.Guest, ReadOnly: m.ReadOnly(), Over: m.Over},
		}
		switch {
		case fi.Mode().IsRegular():
			p.Options.Root, p.Options.File = filepath.Split(m.Host)
			p.Options.Root = filepath.Clean(p.Options.Root)
			p.Mount.File = p.Options.File
		case !fi.IsDir():
			return nil, fmt.Errorf("cannot share %s: it is neither a directory nor a regular file", m.Host)
		case i < len(spec.Shared()):
			guardPaths(&p.Options, spec, d, m)
		case i < len(spec.Shared())+len(spec.Volumes):
			v, err := volume.Of(m.Host)
			if err != nil {
				return nil, err
			}
			p.Options.Limit = v.Size
		}
		plans = append(plans, p)
	}
	return plans, nil
}

// guardPaths adds the rules of guarded and hidden paths to a share. The private versions are
// those of its place in the guest, which is the same in a fork.
func guardPaths(o *share.Options, spec *sandbox.Spec, d store.Dir, m sandbox.Source) {
	p := spec.AllPatterns()
	o.Guard = &guard.Options{Guard: p.Guard, NoGuard: p.NoGuard, Hide: p.Hide, Show: p.Show, Worktree: m.Worktree}
	o.Guard.Paths, o.Guard.HiddenPaths = guard.Targets(o.Root)
	o.Guard.HiddenPaths = append(o.Guard.HiddenPaths, otherWorktrees(o.Root, spec)...)
	o.Guard.Prefix = strings.Split(strings.Trim(o.Root, "/"), "/")
	if m.Git && !slices.Contains(o.Guard.Prefix, ".git") { // of a bare repository
		o.Guard.Prefix = append(o.Guard.Prefix, ".git")
	}
	o.Events = d.File(store.FilesLogFile)
	if !o.ReadOnly {
		o.Private = d.Private(m.Guest)
	}
}

// Server is one process that serves one directory.
type Server struct {
	Plan    Plan
	cmd     *exec.Cmd
	control *share.Control
	exited  chan struct{}
	ending  atomic.Bool // we end it
	id      fileID      // of what it serves
}

// Kill ends the process and returns when it is gone.
func (sh *Server) Kill() {
	sh.ending.Store(true)
	_ = sh.cmd.Process.Kill() // already gone is as good
	<-sh.exited
	sh.control.Close()
}

// Pid returns the number of the process.
func (sh *Server) Pid() int { return sh.cmd.Process.Pid }

// connect gives the server its next QEMU, and returns QEMU's end of the socket.
func (sh *Server) connect(ctx context.Context) (*os.File, error) {
	conn, theirs, err := socketpair.New()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ours, err := conn.File()
	if err == nil {
		err = sh.control.Serve(ctx, ours)
	}
	if err != nil {
		theirs.Close()
		return nil, err
	}
	return theirs, nil
}

// Start starts a share's server. lost is called, from another goroutine, if it ends by
// itself; it must not wait for Kill. The caller kills the server.
func Start(self string, spawner *proc.Spawner, p Plan, lost func(error)) (*Server, error) {
	options, err := json.Marshal(p.Options)
	if err != nil {
		return nil, err
	}
	id, err := identify(p)
	if err != nil {
		return nil, err
	}
	control, theirs, err := share.NewControl()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	cmd := exec.Command(self, handoff.ShareVerb, string(options)) //nolint:noctx // it lives as long as the machine
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = os.Stderr
	if err := spawner.Start(cmd); err != nil {
		control.Close()
		return nil, fmt.Errorf("start its server: %w", err)
	}
	sh := &Server{Plan: p, cmd: cmd, control: control, exited: make(chan struct{}), id: id}
	go func() { // Kill joins it
		defer close(sh.exited)
		if err := cmd.Wait(); !sh.ending.Load() {
			lost(err)
		}
	}()
	return sh, nil
}

// Machine is the part of a qemu.Process that this package uses (package qemu has the
// contracts).
type Machine interface {
	PlugShare(ctx context.Context, tag string, f *os.File) error
	FreezeShare(tag string) (json.RawMessage, error)
	EjectShare(ctx context.Context, tag string) error
	ThawShare(ctx context.Context, device json.RawMessage, f *os.File) error
}

// Plug gives the machine a device that the server serves.
func (sh *Server) Plug(ctx context.Context, m Machine) error {
	theirs, err := sh.connect(ctx)
	if err != nil {
		return err
	}
	return m.PlugShare(ctx, sh.Plan.Mount.Tag, theirs)
}

// ErrDetached means that a machine has lost a share which could not be attached again. Its
// guest must not run any more.
var ErrDetached = errors.New("a share cannot be attached again")

// attachLimit bounds the way back from a Detach that failed halfway.
const attachLimit = time.Minute

// Detach detaches shares from a paused machine and returns what Attach needs, here or in
// a machine restored from the same state. After an error the machine has all its shares,
// unless the error is ErrDetached.
func Detach(ctx context.Context, m Machine, servers []*Server) (saved []snapshot.Share, err error) {
	for _, sh := range servers {
		v := snapshot.Share{}
		if v.Plan, err = json.Marshal(sh.Plan); err != nil {
			return nil, err
		}
		if v.Device, err = m.FreezeShare(sh.Plan.Mount.Tag); err != nil {
			return nil, err
		}
		if v.State, err = sh.control.Save(ctx); err != nil {
			return nil, fmt.Errorf("share %s: %w", sh.Plan.Options.Root, err)
		}
		saved = append(saved, v)
	}
	for i, sh := range servers {
		if err := m.EjectShare(ctx, sh.Plan.Mount.Tag); err != nil {
			return nil, errors.Join(err, attachAgain(ctx, m, servers[:i], saved[:i]))
		}
	}
	return saved, nil
}

// attachAgain is Attach with a time of its own: ctx may have ended.
func attachAgain(ctx context.Context, m Machine, servers []*Server, saved []snapshot.Share) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), attachLimit)
	defer cancel()
	if err := Attach(ctx, m, servers, saved); err != nil {
		return fmt.Errorf("%w: %w", ErrDetached, err)
	}
	return nil
}

// Attach attaches detached shares to a paused machine. After an error some may be missing.
func Attach(ctx context.Context, m Machine, servers []*Server, saved []snapshot.Share) error {
	for i, sh := range servers {
		theirs, err := sh.connect(ctx)
		if err != nil {
			return err
		}
		if err := m.ThawShare(ctx, saved[i].Device, theirs); err != nil {
			return err
		}
	}
	return nil
}

// Mark makes the server begin a restore point, if it keeps what the guest changes.
func (sh *Server) Mark(ctx context.Context) error {
	if sh.Plan.Options.Undo == "" {
		return nil
	}
	return sh.control.Mark(ctx)
}

// Load gives a new server the state of the one that it replaces. With moved, its
// directory is a copy of that one's.
func (sh *Server) Load(ctx context.Context, state json.RawMessage, moved bool) error {
	if err := sh.control.Load(ctx, state, moved); err != nil {
		return fmt.Errorf("share %s: %w", sh.Plan.Options.Root, err)
	}
	return nil
}
