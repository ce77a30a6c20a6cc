package control_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/budget"
	"bawn.dev/bawn/internal/tokens"
)

// standIn is a supervisor that keeps what it was asked. Each method fails with fails, if
// that is set.
type standIn struct {
	control.Broadcaster
	mu     sync.Mutex
	calls  []string
	fails  error
	status control.Status
	hangs  chan struct{} // Stop tells that it began, and waits for its context
}

func (s *standIn) called(format string, args ...any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, fmt.Sprintf(format, args...))
	return s.fails
}

func (s *standIn) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.calls
	s.calls = nil
	return calls
}

func (s *standIn) failWith(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fails = err
}

func (s *standIn) Status() control.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

func (s *standIn) Stop(ctx context.Context, force bool) error {
	if s.hangs != nil {
		s.hangs <- struct{}{}
		<-ctx.Done()
		s.hangs <- struct{}{}
		return context.Cause(ctx)
	}
	return s.called("stop %t", force)
}

func (s *standIn) RefuseAccess(rule string) error { return s.called("refuse %s", rule) }

// someUsage is what a standIn measures.
var someUsage = control.Usage{Time: time.Unix(1, 0).UTC(), CPU: 2, Memory: 3, DiskRead: 4, DiskWritten: 5, NetSent: 6, NetReceived: 7, Tokens: []tokens.Total{{Host: "api.test", Requests: 1, Usage: tokens.Usage{Input: 2}}}}

func (s *standIn) Usage() (control.Usage, error) { return someUsage, s.called("usage") }

func (s *standIn) Suspend(_ context.Context, force bool) error { return s.called("suspend %t", force) }

func (s *standIn) Snapshot(_ context.Context, path string) error {
	return s.called("snapshot %s", path)
}

func (s *standIn) ChangePorts(add []sandbox.Port, remove []uint16) ([]sandbox.Port, error) {
	opened := slices.Clone(add)
	for i := range opened {
		opened[i].Host += 1000
	}
	return opened, s.called("ports %v %v", add, remove)
}

func (s *standIn) SettleLog(context.Context) error { return s.called("settle") }

func (s *standIn) ReloadPolicy() error { return s.called("reload") }

func (s *standIn) AllowOnce(rule string) error { return s.called("once %s", rule) }

func (s *standIn) AllowedOnce() ([]string, error) {
	return []string{"once.test:443"}, s.called("list once")
}

func (s *standIn) ForgetOnce() error { return s.called("forget") }

func (s *standIn) FollowShares(context.Context) error { return s.called("follow") }

func (s *standIn) AddAgent(_ context.Context, a sandbox.Agent) error {
	return s.called("agent %s %s", a.Name, a.Home)
}

func (s *standIn) BeginRestorePoint(context.Context) error { return s.called("restore point") }

func (s *standIn) Subscribe() *control.Subscription { return s.Broadcaster.Subscribe(s.Status) }

// serve serves a stand-in on a Unix socket, and on pipes. Both end with the test, which
// fails if a goroutine is left then.
func serve(t *testing.T, s *standIn) (socket, pipe *control.Client) {
	t.Helper()
	before := runtime.NumGoroutine()
	path := filepath.Join(t.TempDir(), "control.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	pipes := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{Handler: control.Handler(s), ReadHeaderTimeout: time.Minute}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	serving.Go(func() { _ = server.Serve(pipes) })
	t.Cleanup(func() {
		s.Close()
		server.Close()
		serving.Wait()
		deadline := time.Now().Add(10 * time.Second)
		for runtime.NumGoroutine() > before {
			if time.Now().After(deadline) {
				stacks := make([]byte, 1<<20)
				t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
			}
			runtime.Gosched()
		}
	})
	socket = control.NewClient(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	})
	return socket, control.NewClient(pipes.dial)
}

// pipeListener accepts the ends of net.Pipe.
type pipeListener struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (p *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipeListener) Close() error { p.once.Do(func() { close(p.closed) }); return nil }

func (p *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// methods calls each method of a client that asks for something, and says what the service
// is to see of it.
var methods = []struct {
	name string
	call func(context.Context, *control.Client) (any, error)
	sees string
	want any
}{
	{"stop", func(ctx context.Context, c *control.Client) (any, error) { return nil, c.Stop(ctx, false) }, "stop false", nil},
	{"stop by force", func(ctx context.Context, c *control.Client) (any, error) { return nil, c.Stop(ctx, true) }, "stop true", nil},
	{"suspend", func(ctx context.Context, c *control.Client) (any, error) { return nil, c.Suspend(ctx, false) }, "suspend false", nil},
	{"suspend by force", func(ctx context.Context, c *control.Client) (any, error) { return nil, c.Suspend(ctx, true) }, "suspend true", nil},
	{"snapshot", func(ctx context.Context, c *control.Client) (any, error) { return nil, c.Snapshot(ctx, "/a b/ü") }, "snapshot /a b/ü", nil},
	{"open ports", func(ctx context.Context, c *control.Client) (any, error) {
		return c.OpenPorts(ctx, []sandbox.Port{{Host: 1, Guest: 80}, {Guest: 81}})
	}, fmt.Sprintf("ports %v []", []sandbox.Port{{Host: 1, Guest: 80}, {Guest: 81}}), []sandbox.Port{{Host: 1001, Guest: 80}, {Host: 1000, Guest: 81}}},
	{"close ports", func(ctx context.Context, c *control.Client) (any, error) {
		return nil, c.ClosePorts(ctx, []uint16{80, 443})
	}, "ports [] [80 443]", nil},
	{"settle", func(ctx context.Context, c *control.Client) (any, error) { return nil, c.SettleLog(ctx) }, "settle", nil},
	{"reload", func(ctx context.Context, c *control.Client) (any, error) { return nil, c.ReloadPolicy(ctx) }, "reload", nil},
	{"allow once", func(ctx context.Context, c *control.Client) (any, error) { return nil, c.AllowOnce(ctx, "a.test:1") }, "once a.test:1", nil},
	{"allowed once", func(ctx context.Context, c *control.Client) (any, error) { return c.AllowedOnce(ctx) }, "list once", []string{"once.test:443"}},
	{"restore point", func(ctx context.Context, c *control.Client) (any, error) { return nil, c.BeginRestorePoint(ctx) }, "restore point", nil},
	{"agent", func(ctx context.Context, c *control.Client) (any, error) {
		return nil, c.AddAgent(ctx, sandbox.Agent{Name: "claude", Home: "/h"})
	}, "agent claude /h", nil},
	{"follow", func(ctx context.Context, c *control.Client) (any, error) { return nil, c.FollowShares(ctx) }, "follow", nil},
	{"refuse", func(ctx context.Context, c *control.Client) (any, error) { return nil, c.RefuseAccess(ctx, "a.test") }, "refuse a.test", nil},
	{"usage", func(ctx context.Context, c *control.Client) (any, error) { return c.Usage(ctx) }, "usage", someUsage},
	{"forget", func(ctx context.Context, c *control.Client) (any, error) { return nil, c.ForgetOnce(ctx) }, "forget", nil},
}

// TestRoundTrip: every method over a Unix socket and over net.Pipe reaches the service once
// and brings its answer back.
func TestRoundTrip(t *testing.T) {
	s := &standIn{}
	socket, pipe := serve(t, s)
	for transport, c := range map[string]*control.Client{"socket": socket, "pipe": pipe} {
		for _, m := range methods {
			t.Run(transport+"/"+m.name, func(t *testing.T) {
				got, err := m.call(t.Context(), c)
				if err != nil {
					t.Fatal(err)
				}
				if calls := s.take(); len(calls) != 1 || calls[0] != m.sees {
					t.Errorf("the service saw %q, want %q", calls, m.sees)
				}
				if !reflect.DeepEqual(got, m.want) {
					t.Errorf("got %v, want %v", got, m.want)
				}
			})
		}
	}
}

// TestStatusRoundTrip: every field arrives.
func TestStatusRoundTrip(t *testing.T) {
	want := control.Status{
		Name: "box", Phase: sandbox.Running, PID: 1, MachinePID: 2, Since: time.Now().UTC(), Accel: "tcg", Kernel: "6.1",
		Ports: []sandbox.Port{{Host: 1, Guest: 2}}, Mounts: []sandbox.Source{{Host: "/a", Guest: "/b", Mode: sandbox.ReadOnly}},
		Attached: 3, LastUse: time.Now().UTC(), Resumed: true, Starved: true, Access: []control.Access{{Rule: "a.test", Reason: "x", Time: time.Now().UTC()}}, Goroutines: 7, Limits: []budget.Use{{Kind: "flows", Used: 1, Limit: 2}},
	}
	for f := range reflect.ValueOf(want).NumField() {
		if reflect.ValueOf(want).Field(f).IsZero() {
			t.Fatalf("the test leaves out %s", reflect.TypeFor[control.Status]().Field(f).Name)
		}
	}
	s := &standIn{status: want}
	c, _ := serve(t, s)
	got, err := c.Status(t.Context())
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
}

// TestErrors: the reason, the port and the text of an error arrive, from every method.
func TestErrors(t *testing.T) {
	s := &standIn{}
	c, _ := serve(t, s)
	port := sandbox.Port{Host: 80, Guest: 8080}
	for name, e := range map[string]struct {
		err    error
		reason control.Reason
		port   sandbox.Port
	}{
		"plain":   {errors.New("it broke"), "", sandbox.Port{}},
		"reason":  {control.Errorf(control.ReasonAttached, "2 commands are attached"), control.ReasonAttached, sandbox.Port{}},
		"port":    {control.PortErrorf(control.ReasonPortInUse, port, "port 80 is taken"), control.ReasonPortInUse, port},
		"wrapped": {fmt.Errorf("suspend: %w", control.Errorf(control.ReasonSaving, "saving")), control.ReasonSaving, sandbox.Port{}},
		"full":    {fmt.Errorf("write: %w", syscall.ENOSPC), control.ReasonDiskFull, sandbox.Port{}},
	} {
		s.failWith(e.err)
		for _, m := range methods {
			_, err := m.call(t.Context(), c)
			var got *control.Error
			if !errors.As(err, &got) || got.Error() != e.err.Error() || got.Reason != e.reason || got.Port != e.port {
				t.Errorf("%s: %s: got %#v, want the text %q, the reason %q and the port %v", name, m.name, err, e.err, e.reason, e.port)
			}
			if errors.Is(err, syscall.ENOSPC) != errors.Is(e.err, syscall.ENOSPC) {
				t.Errorf("%s: %s: ENOSPC got lost", name, m.name)
			}
		}
	}
}

// deadSocket returns a dialer to a socket whose listener has ended without removing it.
func deadSocket(t *testing.T) func(context.Context) (net.Conn, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dead.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "unix", path) }
}

// TestNoSupervisor: nobody listens, or one listens that knows nothing.
func TestNoSupervisor(t *testing.T) {
	c := control.NewClient(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(t.TempDir(), "none"))
	})
	if _, err := c.Status(t.Context()); control.ReasonOf(err) != control.ReasonNoAnswer || !errors.Is(err, syscall.ENOENT) || !control.NotListening(err) {
		t.Errorf("nobody: %v", err)
	}
	if _, err := control.NewClient(deadSocket(t)).Status(t.Context()); !control.NotListening(err) {
		t.Errorf("a socket that was left: %v", err)
	}
	for _, err := range c.Events(t.Context()) {
		if control.ReasonOf(err) != control.ReasonNoAnswer {
			t.Errorf("nobody: events: %v", err)
		}
	}
	pipes := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	old := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Minute}
	var serving sync.WaitGroup
	serving.Go(func() { _ = old.Serve(pipes) })
	defer serving.Wait()
	defer old.Close()
	if err := control.NewClient(pipes.dial).ReloadPolicy(t.Context()); control.ReasonOf(err) != control.ReasonVersion || control.NotListening(err) {
		t.Errorf("old: %v", err)
	}
}

// TestACallEndsWithItsContext on both sides.
func TestACallEndsWithItsContext(t *testing.T) {
	s := &standIn{hangs: make(chan struct{})}
	c, _ := serve(t, s)
	cause := errors.New("no longer wanted")
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Stop(ctx, false) }()
	<-s.hangs
	cancel(cause)
	if err := <-done; !errors.Is(err, cause) {
		t.Errorf("the client: %v", err)
	}
	<-s.hangs // the service noticed
}

// TestMalformedRequests are refused before the service sees them.
func TestMalformedRequests(t *testing.T) {
	s := &standIn{}
	serve(t, s)
	for name, body := range map[string]string{
		"no JSON":    "{",
		"wrong type": `{"add": 7}`,
		"too large":  `{"add": [` + strings.Repeat(`{"host":1,"guest":1},`, 1<<16) + `{}]}`,
	} {
		w := &recorder{header: http.Header{}}
		r, err := http.NewRequest(http.MethodPost, "/ports", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		control.Handler(s).ServeHTTP(w, r)
		if w.code != http.StatusBadRequest || !strings.Contains(w.body, string(control.ReasonRequest)) {
			t.Errorf("%s: %d %s", name, w.code, w.body)
		}
	}
	if calls := s.take(); len(calls) != 0 {
		t.Errorf("the service saw %q", calls)
	}
}

type recorder struct {
	header http.Header
	code   int
	body   string
}

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) WriteHeader(code int) { r.code = code }

func (r *recorder) Write(b []byte) (int, error) { r.body += string(b); return len(b), nil }

// TestEvents: each kind arrives as it was sent, in order, after the status; the stream ends
// without an error when the sandbox does.
func TestEvents(t *testing.T) {
	s := &standIn{status: control.Status{Name: "box", Phase: sandbox.Running}}
	socket, pipe := serve(t, s)
	now := time.Now().UTC()
	sent := []control.Event{
		{Kind: control.KindAttached, Time: now, Attached: 1},
		{Kind: control.KindDetached, Time: now},
		{Kind: control.KindSpace, Time: now, Starved: true},
		{Kind: control.KindDenial, Time: now, Denial: &control.Denial{
			Proto: "tcp", App: "tls", Name: "a.test", Addr: netip.MustParseAddr("192.0.2.1"), Port: 443, Rule: "deny a.test",
			Reason: "denied", Suggest: "a.test:443", Process: "curl[7]", Count: 2,
		}},
		{Kind: control.KindAccess, Time: now, Access: &control.Access{Rule: "a.test", Reason: "to fetch", Time: now}},
		{Kind: control.KindPhase, Time: now, Phase: sandbox.Stopping, Message: "the guest powered off"},
	}
	var readers sync.WaitGroup
	var ready sync.WaitGroup
	for _, c := range []*control.Client{socket, pipe} {
		ready.Add(1)
		readers.Go(func() {
			var got []control.Event
			for e, err := range c.Events(context.Background()) {
				if err != nil {
					t.Error(err)
					break
				}
				if len(got) == 0 {
					ready.Done()
				}
				got = append(got, e)
			}
			if len(got) == 0 || got[0].Kind != control.KindStatus || got[0].Status == nil || got[0].Status.Name != "box" {
				t.Fatalf("no status first: %+v", got)
			}
			if !reflect.DeepEqual(got[1:], sent) {
				t.Errorf("got  %+v\nwant %+v", got[1:], sent)
			}
		})
	}
	ready.Wait()
	for _, e := range sent {
		s.Send(e)
	}
	s.Close()
	readers.Wait()
}

// TestEventsEndWithTheirContext, and when the caller has enough.
func TestEventsEndWithTheirContext(t *testing.T) {
	s := &standIn{}
	c, _ := serve(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for e, err := range c.Events(ctx) {
		if last = err; e.Kind == control.KindStatus {
			cancel()
		}
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("ended with %v", last)
	}
	for range c.Events(t.Context()) {
		break
	}
}

// TestASlowSubscriberIsDropped: it gets what was kept for it and then KindLagged; others
// lose nothing, and Send never waits.
func TestASlowSubscriberIsDropped(t *testing.T) {
	var b control.Broadcaster
	status := func() control.Status { return control.Status{} }
	slow, quick := b.Subscribe(status), b.Subscribe(status)
	const many = 5000
	got := make(chan int)
	go func() {
		n := 0
		for range quick.Events() {
			n++
			got <- n
		}
		close(got)
	}()
	<-got // the status
	for range many {
		b.Send(control.Event{Kind: control.KindAttached})
		if _, ok := <-got; !ok {
			t.Fatal("the quick one was dropped")
		}
	}
	n := 0
	for range slow.Events() {
		n++
	}
	if !slow.Lagged() || n == 0 || n >= many {
		t.Errorf("the slow one: lagged %t after %d events", slow.Lagged(), n)
	}
	slow.Close()
	quick.Close()
	for range got {
	}
	if quick.Lagged() {
		t.Error("the quick one lagged")
	}
	b.Close()
	if e, ok := <-b.Subscribe(status).Events(); !ok || e.Kind != control.KindStatus {
		t.Errorf("after Close: %+v, %t", e, ok)
	}
}

// TestTheStreamOfASlowClientEndsClearly: the last event says why.
func TestTheStreamOfASlowClientEndsClearly(t *testing.T) {
	s := &standIn{}
	_, c := serve(t, s) // a pipe holds nothing: the client's pace is the server's
	next, stop := iter.Pull2(c.Events(t.Context()))
	defer stop()
	if e, err, _ := next(); err != nil || e.Kind != control.KindStatus {
		t.Fatal(e, err)
	}
	for range 5000 {
		s.Send(control.Event{Kind: control.KindAttached, Message: strings.Repeat("x", 1000)})
	}
	var last control.Event
	for {
		e, err, ok := next()
		if !ok {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		last = e
	}
	if last.Kind != control.KindLagged {
		t.Errorf("the last event: %+v", last)
	}
}
