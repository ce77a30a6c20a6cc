package engine

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/session"
	"bawn.dev/bawn/internal/supervisor/launch"
	"bawn.dev/bawn/internal/sys/lockfile"
)

// Session is the use of a running sandbox: a connection to its guest and, if the
// sandbox is a throwaway, its life. The caller closes it. It is for one goroutine.
type Session struct {
	// Spec is what the sandbox was started with.
	Spec *sandbox.Spec

	e     *Engine
	d     store.Dir
	user  string
	early *handshake
	conn  *session.Client
	owner *lockfile.Lock // of a throwaway
	began time.Time
}

// Acquire finds or makes the sandbox of the request, starts it and begins to connect. A
// sandbox that it made and that does not start is removed again. If the project's bawn.yaml
// is not approved in its present form, nothing is made or started: the Error has Reason
// NotApproved and the Check to show, and the caller calls again once it is approved (Approve).
func (e *Engine) Acquire(ctx context.Context, r Request) (*Session, error) {
	for _, c := range r.Change.rules() {
		if err := c.Check(); err != nil {
			return nil, err
		}
	}
	if r.Name != "" {
		if err := sandbox.CheckName(r.Name); err != nil {
			return nil, err
		}
	}
	for installed := false; ; {
		if err := e.CheckConsent(r); err != nil {
			return nil, err
		}
		if !installed { // before anything is made of the sandbox
			if err := e.withProjectImage(ctx, &r); err != nil {
				return nil, err
			}
			if err := e.withAgent(ctx, &r); err != nil {
				return nil, err
			}
			installed = true
		}
		in, err := e.resolve(ctx, &r)
		if err != nil {
			return nil, err
		}
		s, err := e.begin(ctx, in, &r.Change, r.User)
		if store.IsNotFound(err) && !in.made && ctx.Err() == nil { // another process has removed it meanwhile
			continue
		}
		return s, err
	}
}

// begin starts the sandbox that was found or made.
func (e *Engine) begin(ctx context.Context, in found, c *SpecChange, user string) (*Session, error) {
	spec := *in.spec
	put(&spec.Devcontainer, c.Devcontainer)
	user, err := e.loginOf(&spec, user)
	if err != nil {
		return nil, err
	}
	s := e.newSession(in.spec.Name, user)
	s.owner = in.owner
	err = s.start(ctx, c)
	switch {
	case err == nil:
		return s, nil
	case in.owner != nil:
		return nil, errors.Join(err, s.removeThrowaway())
	case in.made:
		return nil, errors.Join(err, e.undoCreate(in.spec.Name, ctx.Err() != nil))
	}
	return nil, err
}

// Attach starts the sandbox of that name, if it does not run, and begins to connect as
// user (empty: the user's own name).
func (e *Engine) Attach(ctx context.Context, name, user string) (*Session, error) {
	d, err := e.folder(name)
	if err != nil {
		return nil, err
	}
	if spec, err := d.Spec(); err == nil { // else start tells
		if user, err = e.loginOf(spec, user); err != nil {
			return nil, err
		}
	}
	s := e.newSession(name, user)
	if err := s.start(ctx, nil); err != nil {
		return nil, err
	}
	return s, nil
}

func (e *Engine) newSession(name, user string) *Session {
	return &Session{e: e, d: e.sandboxes.Dir(name), user: user, early: &handshake{}, began: time.Now()}
}

// start brings the sandbox up and begins to connect meanwhile.
func (s *Session) start(ctx context.Context, c *SpecChange) error {
	reachable := func() { s.early.begin(ctx, s.d, s.user) }
	err := s.e.ensureRunning(ctx, nameOf(s.d), startup{change: c, reachable: reachable})
	if err == nil {
		s.Spec, err = s.d.Spec()
	}
	if err != nil {
		s.early.discard()
		return err
	}
	s.e.warnRules(nameOf(s.d))
	return nil
}

// Connect returns when the guest has authenticated the user. Run calls it if need be.
func (s *Session) Connect(ctx context.Context) (err error) {
	if s.conn == nil {
		err = s.e.during("Waiting for the sandbox to answer", func() error {
			s.conn, err = s.early.endWithin(ctx)
			return err
		})
		if err != nil {
			return err
		}
	}
	if s.conn == nil {
		s.conn, err = s.e.Dial(ctx, nameOf(s.d), s.user)
	}
	return err
}

// Run runs one command and returns how it ended. While it runs, notices report when the
// sandbox is paused because the host's disk is full. It returns an Error, a
// session.StillError, a session.OutputError or a session.InputError.
func (s *Session) Run(ctx context.Context, cmd session.Command) (session.Exit, error) {
	if err := s.Connect(ctx); err != nil {
		return session.Exit{}, err
	}
	watching, stop := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { s.e.watchSpace(watching, s.d) })
	exit, err := s.conn.Run(ctx, cmd)
	stop()
	watch.Wait()
	var still session.StillError
	var output session.OutputError
	var input session.InputError
	switch {
	case err == nil, errors.As(err, &output), errors.As(err, &input), errors.As(err, &still):
		return exit, err
	case errors.Is(err, session.ErrGone):
		err = whyGone(ctx, s.d, err)
	}
	return exit, s.e.lost(CommandFailed, s.Spec, err)
}

// Close ends the connection and removes a throwaway sandbox. Another one gets its caches filled by
// what its commands have written into lock files.
func (s *Session) Close() error {
	var err error
	if s.conn != nil {
		err = s.conn.Close()
	} else {
		s.early.discard()
	}
	if s.owner != nil {
		return s.removeThrowaway() // a connection to what is removed need not end well
	}
	if s.Spec != nil {
		fillCaches(s.d, s.Spec)
	}
	return err
}

// removeThrowaway removes the sandbox. It has no context, so that nothing interrupts it.
func (s *Session) removeThrowaway() error {
	defer s.owner.Close()
	if err := s.e.Remove(context.Background(), nameOf(s.d), true); err != nil {
		return fmt.Errorf("remove the throwaway sandbox %s: %w", nameOf(s.d), err)
	}
	return nil
}

// handshake is a connection to a guest that is established while its sandbox still starts:
// under emulation that takes as long as the rest. Its user must have waited for the
// start to end.
type handshake struct {
	done   chan struct{} // nil if it was not begun
	cancel context.CancelFunc
	client *session.Client
}

// begin begins the handshake, or begins again with a machine that replaced the first.
func (h *handshake) begin(ctx context.Context, d store.Dir, user string) {
	if h.cancel != nil {
		h.cancel()
	}
	before, done := h.done, make(chan struct{})
	ctx, h.cancel = context.WithCancel(ctx)
	h.done = done
	go func() {
		defer close(done)
		if before != nil {
			if <-before; h.client != nil {
				h.client.Close()
			}
		}
		h.client, _ = session.Dial(ctx, d, userOr(user)) // Dial tries again, and returns the reason
	}()
}

// end returns the connection, nil if there is none.
func (h *handshake) end() *session.Client {
	if h.done == nil {
		return nil
	}
	<-h.done
	return h.client
}

// earlyLimit is how long Connect waits for the connection that was begun while the sandbox started.
// After that, Connect calls Dial, which connects anew and whose error says what is wrong.
const earlyLimit = 30 * time.Second

// endWithin is end, but gives the handshake up after earlyLimit. When ctx ends first, it returns
// the cause.
func (h *handshake) endWithin(ctx context.Context) (*session.Client, error) {
	if h.done == nil {
		return nil, nil //nolint:nilnil // none was begun
	}
	select {
	case <-h.done:
	case <-time.After(earlyLimit):
		h.cancel()
	case <-ctx.Done():
		h.discard()
		return nil, context.Cause(ctx)
	}
	return h.end(), nil
}

// discard ends the handshake, and closes a connection that was not taken.
func (h *handshake) discard() {
	if h.cancel != nil {
		h.cancel()
	}
	if c := h.end(); c != nil {
		c.Close()
	}
}

// Dial connects to the guest of a running sandbox as user (empty: the user's own
// name). A sandbox that has ended since it was seen running is started again.
func (e *Engine) Dial(ctx context.Context, name, user string) (*session.Client, error) {
	d, err := e.folder(name)
	if err != nil {
		return nil, err
	}
	var c *session.Client
	connect := func() error {
		return e.during("Waiting for the sandbox to answer", func() (err error) {
			answering, done := control.NewClient(d.DialControl).WhileAnswering(ctx)
			defer done()
			c, err = session.Dial(answering, d, userOr(user))
			return err
		})
	}
	err = connect()
	if err != nil && ctx.Err() == nil && !errors.Is(err, session.ErrUser) && e.startedAgain(ctx, name) {
		err = connect()
	}
	switch {
	case err == nil || ctx.Err() != nil:
		return c, err
	case errors.Is(err, session.ErrUser):
		return nil, because(NoGuestUser, name, err)
	}
	failed := &Error{Reason: NotAnswering, Err: err}
	if spec, none := d.Spec(); none == nil && !spec.Throwaway { // or it is gone, or will be
		failed.Sandbox = name
	}
	return nil, failed
}

// goneLimit bounds the wait for the final state of a sandbox that has ended.
const goneLimit = 5 * time.Second

// startedAgain starts a sandbox that ended after it was seen running: it was suspended
// because it was idle, or it was killed. It reports whether it runs again.
func (e *Engine) startedAgain(ctx context.Context, name string) bool {
	ending, cancel := context.WithTimeout(ctx, goneLimit)
	defer cancel()
	return launch.AwaitExit(ending, e.sandboxes.Dir(name)) == nil && e.EnsureRunning(ctx, name) == nil
}

// whyGone adds the reason to the error of a sandbox that has ended, if it is known.
func whyGone(ctx context.Context, d store.Dir, gone error) error {
	ctx, cancel := context.WithTimeout(ctx, goneLimit)
	defer cancel()
	if launch.AwaitExit(ctx, d) != nil || d.AwaitSettled(ctx) != nil {
		return gone
	}
	if _, err := d.Spec(); store.IsNotFound(err) {
		return fmt.Errorf("%w: it was removed", gone)
	}
	st, err := d.State()
	switch {
	case err != nil:
		return gone
	case st.Phase == sandbox.Dead:
		return fmt.Errorf("%w: its supervisor died", gone)
	case suspended(d):
		return fmt.Errorf("%w: it was suspended", gone)
	case st.Message != "":
		return fmt.Errorf("%w: %s", gone, st.Message)
	}
	return fmt.Errorf("%w: it was stopped", gone)
}

// watchSpace reports when the sandbox is paused because the host's disk is full, and when it
// continues, until ctx or the sandbox ends. The guest, and the command in
// it, cannot report that.
func (e *Engine) watchSpace(ctx context.Context, d store.Dir) {
	starved := false
	report := func(now bool) {
		if now == starved {
			return
		}
		if starved = now; starved {
			e.notify(Notice{Reason: HostDiskFull, Sandbox: nameOf(d), Path: d.Path, Text: "the host's disk is full; the sandbox is paused until there is free space"})
		} else {
			e.notify(Notice{Reason: HostDiskFreed, Sandbox: nameOf(d), Text: "the host's disk has free space again; the sandbox continues"})
		}
	}
	for again := true; again; {
		again = false
		for ev, err := range control.NewClient(d.DialControl).Events(ctx) {
			switch {
			case err != nil:
				return
			case ev.Kind == control.KindStatus:
				report(ev.Status.Starved)
			case ev.Kind == control.KindSpace:
				report(ev.Starved)
			case ev.Kind == control.KindLagged:
				again = true
			}
		}
	}
}

// GuestPath returns where a path of the host is in the guest: the same place, or beneath
// another one where the project is a copy. ok is false if the guest does not have it.
func GuestPath(spec *sandbox.Spec, path string) (guest string, ok bool) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if sandbox.Beneath(spec.Project.Host, path) {
		return filepath.Join(spec.Project.Guest, strings.TrimPrefix(path, spec.Project.Host)), true
	}
	for _, m := range spec.Mounts {
		if m.Host == m.Guest && sandbox.Beneath(m.Host, path) {
			return path, true
		}
	}
	return "", false
}
