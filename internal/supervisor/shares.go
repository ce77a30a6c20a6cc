package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"

	"bawn.dev/bawn/internal/confine"
	"bawn.dev/bawn/internal/qemu"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/share"
	"bawn.dev/bawn/internal/snapshot"
	"bawn.dev/bawn/internal/wire"
)

// shareServer is one process that serves one directory.
type shareServer struct {
	plan    sharePlan
	cmd     *exec.Cmd
	control *share.Control
	exited  chan struct{}
	ending  atomic.Bool // we end it
}

func (sh *shareServer) kill() {
	sh.ending.Store(true)
	_ = sh.cmd.Process.Kill() // already gone is as good
	<-sh.exited
	sh.control.Close()
}

// connect gives the server its next QEMU, and returns QEMU's end of the socket.
func (sh *shareServer) connect(ctx context.Context) (*os.File, error) {
	conn, theirs, err := qemu.SocketPair()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	unix, ok := conn.(*net.UnixConn)
	if !ok {
		theirs.Close()
		return nil, errors.New("socket pair: not a Unix socket")
	}
	ours, err := unix.File()
	if err == nil {
		err = sh.control.Serve(ctx, ours)
	}
	if err != nil {
		theirs.Close()
		return nil, err
	}
	return theirs, nil
}

// sharePlan is one share to be: what it serves and where the guest mounts it.
type sharePlan struct {
	Options share.Options `json:"options"`
	Mount   wire.Mount    `json:"mount"`
}

// shareTag is what the guest knows the i-th share by.
func shareTag(i int) string { return fmt.Sprintf("share%d", i) }

func (s *supervisor) sharePlans() ([]sharePlan, error) {
	all := append([]sandbox.Mount{{Source: s.spec.Dir, Target: s.spec.GuestDir()}}, s.spec.Mounts...)
	var plans []sharePlan
	for i, m := range all {
		fi, err := os.Stat(m.Source)
		if err != nil {
			return nil, fmt.Errorf("share %s: %w", m.Source, err)
		}
		p := sharePlan{
			Options: share.Options{Root: m.Source, ReadOnly: m.ReadOnly},
			Mount:   wire.Mount{Tag: shareTag(i), Path: m.Target, ReadOnly: m.ReadOnly},
		}
		switch {
		case fi.Mode().IsRegular():
			p.Options.Root, p.Options.File = filepath.Split(m.Source)
			p.Options.Root = filepath.Clean(p.Options.Root)
			p.Mount.File = p.Options.File
		case !fi.IsDir():
			return nil, fmt.Errorf("share %s: neither a directory nor a regular file", m.Source)
		}
		plans = append(plans, p)
	}
	return plans, nil
}

// plugAll serves and plugs every share.
func (s *supervisor) plugAll(ctx context.Context) error {
	plans, err := s.sharePlans()
	if err != nil {
		return err
	}
	for _, p := range plans {
		sh, err := s.serveShare(p)
		if err == nil {
			err = sh.plug(ctx, s.machine)
		}
		if err != nil {
			return fmt.Errorf("share %s: %w", p.Options.Root, err)
		}
	}
	return nil
}

// plug gives the machine a device that the server serves.
func (sh *shareServer) plug(ctx context.Context, m *qemu.Process) error {
	theirs, err := sh.connect(ctx)
	if err != nil {
		return err
	}
	return m.PlugShare(ctx, sh.plan.Mount.Tag, theirs)
}

// mountAll lets the guest mount every share, which it has.
func (s *supervisor) mountAll(ctx context.Context) error {
	for _, sh := range s.shares {
		if err := s.agent.call(ctx, wire.OpMount, sh.plan.Mount, nil); err != nil {
			return fmt.Errorf("share %s: %w", sh.plan.Options.Root, err)
		}
	}
	return nil
}

// serveShare starts the share's server.
func (s *supervisor) serveShare(p sharePlan) (*shareServer, error) {
	sh, err := startShare(s.self, s.spawner, p, func(err error) { s.lost("the server of the shared directory "+p.Options.Root, err) })
	if err != nil {
		return nil, err
	}
	s.shares = append(s.shares, sh)
	return sh, nil
}

// startShare starts a share's server; lost is called if it ends by itself.
func startShare(self string, spawner *confine.Spawner, p sharePlan, lost func(error)) (*shareServer, error) {
	options, err := json.Marshal(p.Options)
	if err != nil {
		return nil, err
	}
	control, theirs, err := share.NewControl()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	cmd := exec.Command(self, ShareVerb, string(options)) //nolint:noctx // it lives as long as the machine
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = os.Stderr
	if err := spawner.Start(cmd); err != nil {
		control.Close()
		return nil, fmt.Errorf("start its server: %w", err)
	}
	sh := &shareServer{plan: p, cmd: cmd, control: control, exited: make(chan struct{})}
	go func() {
		err := cmd.Wait()
		close(sh.exited)
		if !sh.ending.Load() {
			lost(err)
		}
	}()
	return sh, nil
}

func (s *supervisor) killShares() {
	for _, sh := range s.shares {
		sh.kill()
	}
	s.shares = nil
}

// lost ends the sandbox because a part of it died: QEMU hangs with a
// vhost-user backend that is gone, so it is ended too.
func (s *supervisor) lost(what string, err error) {
	select {
	case <-s.stopped: // it ended because the machine did
		return
	default:
	}
	if err == nil { // it saw QEMU hang up, whose end tells why
		return
	}
	s.log.Error("lost "+what, "error", err)
	s.end <- fmt.Sprintf("%s died: %v", what, err)
	s.machine.Kill()
}

// takeOut takes shares out of a paused machine and returns what is needed to put
// them back, here or elsewhere. After an error they are in it still, or putBack
// has been tried.
func takeOut(ctx context.Context, m *qemu.Process, servers []*shareServer) (saved []snapshot.Share, err error) {
	for _, sh := range servers {
		v := snapshot.Share{}
		if v.Plan, err = json.Marshal(sh.plan); err != nil {
			return nil, err
		}
		if v.Device, err = m.FreezeShare(sh.plan.Mount.Tag); err != nil {
			return nil, err
		}
		if v.State, err = sh.control.Save(ctx); err != nil {
			return nil, fmt.Errorf("share %s: %w", sh.plan.Options.Root, err)
		}
		saved = append(saved, v)
	}
	for i, sh := range servers {
		if err := m.EjectShare(ctx, sh.plan.Mount.Tag); err != nil {
			return nil, errors.Join(err, putBack(ctx, m, servers[:i], saved[:i]))
		}
	}
	return saved, nil
}

// putBack puts shares into a paused machine.
func putBack(ctx context.Context, m *qemu.Process, servers []*shareServer, saved []snapshot.Share) error {
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

// succeed starts servers that take the places of saved ones. With moved, the
// directories are copies of those.
func (s *supervisor) succeed(ctx context.Context, plans []sharePlan, saved []snapshot.Share, moved bool) error {
	for i, p := range plans {
		sh, err := s.serveShare(p)
		if err != nil {
			return fmt.Errorf("share %s: %w", p.Options.Root, err)
		}
		if err := sh.control.Load(ctx, saved[i].State, moved && i == 0); err != nil {
			return fmt.Errorf("share %s: %w", p.Options.Root, err)
		}
	}
	return nil
}
