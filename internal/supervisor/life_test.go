package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/memory"
	"bawn.dev/bawn/internal/qemu"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/share"
	"bawn.dev/bawn/internal/snapshot"
	"bawn.dev/bawn/internal/supervisor/agent"
	"bawn.dev/bawn/internal/supervisor/handoff"
	"bawn.dev/bawn/internal/supervisor/publish"
	"bawn.dev/bawn/internal/supervisor/shareserver"
	"bawn.dev/bawn/internal/sys/rotate"
	"bawn.dev/bawn/internal/wire"
)

// fakeProcess is a QEMU process without QEMU.
type fakeProcess struct {
	shareserver.Machine // nil: there are no shares
	saveErr             error

	mu    sync.Mutex
	calls []string
	ended bool
	err   error
	done  chan struct{}
}

func (p *fakeProcess) called(what string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, what)
	return nil
}

func (p *fakeProcess) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.ended, p.err = true, err
		close(p.done)
	}
}

func (p *fakeProcess) Pid() int { return os.Getpid() }

func (p *fakeProcess) Kill() { p.end(nil) }

func (p *fakeProcess) Done() <-chan struct{} { return p.done }

func (p *fakeProcess) Wait() error { <-p.done; return p.err }

func (p *fakeProcess) Starved() bool { return false }

func (p *fakeProcess) Pause(context.Context) error { return p.called("pause") }

func (p *fakeProcess) Resume(context.Context) error { return p.called("resume") }

func (p *fakeProcess) SaveState(_ context.Context, w io.Writer) error {
	_ = p.called("save")
	if p.saveErr != nil {
		return p.saveErr
	}
	_, err := io.WriteString(w, "devices")
	return err
}

func (p *fakeProcess) TrackDisk(context.Context, string) (*qemu.Tracked, error) {
	return nil, errors.New("no disk is tracked")
}

// life is a sandbox whose machine is a stand-in.
type life struct {
	s       *supervisor
	process *fakeProcess
	console net.Conn // the guest's end
	client  *control.Client
	signal  context.CancelFunc
	ready   chan struct{}
	ended   chan struct{}
	why     error // of run

	mu    sync.Mutex
	hangs map[wire.Op]bool // the guest does not answer to it
	asked []wire.Op
}

// begin starts the life of a sandbox, and ends it with the test, which fails if a goroutine
// is left then. The guest powers off when it is asked to.
func begin(t *testing.T, options ...func(*life)) *life {
	t.Helper()
	before := runtime.NumGoroutine()
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", "")
	d := store.Dir{Path: filepath.Join(home, "box")}
	if err := os.Mkdir(d.Path, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{store.HostKeyFile: "", store.ClientKeyFile: testKey, store.DiskFile: "disk"} {
		if err := os.WriteFile(d.File(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lock, err := d.Lock()
	if err != nil {
		t.Fatal(err)
	}
	logFile, err := rotate.Open(d.File(store.SupervisorLogFile), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	console, err := rotate.Open(d.File(store.ConsoleFile), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	ctx, signal := context.WithCancel(context.Background())
	l := &life{
		process: &fakeProcess{done: make(chan struct{})}, client: control.NewClient(d.DialControl), signal: signal,
		ready: make(chan struct{}), ended: make(chan struct{}), hangs: map[wire.Op]bool{},
	}
	l.s = &supervisor{
		dir: d, spec: &sandbox.Spec{ID: "0123456789ab", Name: "box", Dir: home}, lock: lock,
		log: slog.New(slog.NewTextHandler(logFile, nil)), logFile: logFile, console: console, life: newLifecycle(ctx),
		report: func(e handoff.StartEvent) {
			if e.Ready {
				close(l.ready)
			}
		},
	}
	for _, set := range options {
		set(l)
	}
	go func() {
		defer close(l.ended)
		l.why = errors.Join(l.s.run(ctx, l.prepare), l.s.close())
	}()
	t.Cleanup(func() {
		signal()
		l.process.Kill()
		<-l.ended
		for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
			if time.Now().After(deadline) {
				stacks := make([]byte, 1<<20)
				t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
			}
		}
	})
	return l
}

// testKey is a client's key, of nobody.
var testKey = newTestKey()

// prepare stands for the start of a machine.
func (l *life) prepare(ctx context.Context) error {
	s := l.s
	ram, err := memory.New(1 << 20)
	if err != nil {
		return err
	}
	control, guest := net.Pipe()
	mux, _ := net.Pipe()
	link, _ := net.Pipe()
	out, printed := net.Pipe()
	l.console = printed
	s.machine = &machine{
		process: l.process, ram: ram, link: link, agent: agent.New(control, mux, s.log), console: keepConsole(out, s.console), kernel: "6.1",
	}
	s.tasks.Go(func() { l.answer(guest) })
	s.tasks.Go(func() { <-l.process.done; guest.Close(); printed.Close() }) // as QEMU's ends are closed
	if s.source.resumed {
		return s.adopt(ctx)
	}
	if err := s.openNetwork(); err != nil {
		return err
	}
	s.ports = publish.New(sandbox.Localhost, s.machine.agent.DialTCP, nil, s.log)
	return s.openSSH()
}

// answer is the guest's agent.
func (l *life) answer(guest net.Conn) {
	requests := json.NewDecoder(guest)
	for {
		var r wire.Request
		if requests.Decode(&r) != nil {
			return
		}
		l.mu.Lock()
		l.asked = append(l.asked, r.Op)
		hangs := l.hangs[r.Op]
		l.mu.Unlock()
		if hangs {
			continue
		}
		_, _ = fmt.Fprintf(guest, `{"id":%d}`+"\n", r.ID)
		if r.Op == wire.OpShutdown {
			l.process.end(nil)
		}
	}
}

func (l *life) hang(op wire.Op) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hangs[op] = true
}

// was returns what the guest was asked, but for its clock.
func (l *life) was() []wire.Op {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(l.asked), func(op wire.Op) bool { return op == wire.OpClock || op == wire.OpTime })
}

// state returns what is on disk of a sandbox that has ended.
func (l *life) state(t *testing.T) sandbox.State {
	t.Helper()
	<-l.ended
	st, err := l.s.dir.State()
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// TestEnds: whatever ends a sandbox, its state says why, and nothing of it is left (begin).
func TestEnds(t *testing.T) {
	broken := errors.New("broken ring")
	for name, c := range map[string]struct {
		end     func(*testing.T, *life)
		why     string
		crashed bool
	}{
		"the guest powers off": {func(_ *testing.T, l *life) { l.process.end(nil) }, "the guest powered off", false},
		"QEMU crashes":         {func(_ *testing.T, l *life) { l.process.end(fmt.Errorf("%w: signal 11", qemu.ErrCrashed)) }, "the machine ended: ", true},
		"the kernel panics": {func(_ *testing.T, l *life) {
			_, _ = io.WriteString(l.console, "Kernel panic - not syncing: test\n")
			l.process.end(qemu.ErrReset)
		}, "Kernel panic - not syncing: test", true},
		"the guest reboots": {func(_ *testing.T, l *life) { l.process.end(qemu.ErrReset) }, "the machine ended: ", false},
		"a share's server dies": {func(_ *testing.T, l *life) {
			l.s.shareLost(shareserver.Plan{Options: share.Options{Root: "/project"}}, broken)
		}, "the share server of /project ended unexpectedly: broken ring", false},
		"a signal": {func(_ *testing.T, l *life) { l.signal() }, "", false},
		"a request": {func(t *testing.T, l *life) {
			if err := l.client.Stop(t.Context(), false); err != nil {
				t.Error(err)
			}
		}, "", false},
		"a request by force, to a guest that hangs": {func(t *testing.T, l *life) {
			l.hang(wire.OpShutdown)
			if err := l.client.Stop(t.Context(), true); err != nil {
				t.Error(err)
			}
		}, "", false},
		"a request that is given up, then force": {func(t *testing.T, l *life) {
			l.hang(wire.OpShutdown)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			if err := l.client.Stop(ctx, false); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the first: %v", err)
			}
			if err := l.client.Stop(t.Context(), true); err != nil {
				t.Error(err)
			}
		}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			l := begin(t)
			<-l.ready
			c.end(t, l)
			st := l.state(t)
			if l.why != nil || st.Phase != sandbox.Stopped || (st.Message == "") != (c.why == "") || !strings.Contains(st.Message, c.why) {
				t.Errorf("%v, %+v, want %q", l.why, st, c.why)
			}
			if l.s.crashed.Load() != c.crashed {
				t.Errorf("crashed: %t", l.s.crashed.Load())
			}
			for _, socket := range []string{store.ControlSocket, store.SSHSocket} {
				if _, err := os.Stat(l.s.dir.File(socket)); !os.IsNotExist(err) {
					t.Errorf("%s: %v", socket, err)
				}
			}
		})
	}
}

// TestStatusOfAStart: a status names a running sandbox's start, also the first status that
// can be had (under -race it would be seen if the time were written beside the lock).
func TestStatusOfAStart(t *testing.T) {
	l := begin(t)
	for {
		s, err := l.client.Status(t.Context())
		if control.ReasonOf(err) == control.ReasonNoAnswer {
			runtime.Gosched()
			continue // it does not listen yet
		}
		if err != nil {
			t.Fatal(err)
		}
		if s.Phase != sandbox.Running || s.Since.IsZero() || s.Kernel != "6.1" || s.Name != "box" {
			t.Errorf("%+v", s)
		}
		break
	}
	<-l.ready
	if st, err := l.s.dir.State(); err != nil || st.Phase != sandbox.Running || st.Since.IsZero() || st.PID != os.Getpid() {
		t.Errorf("on disk: %+v, %v", st, err)
	}
}

// TestAStartThatFails: its error is the cause, where the machine has one.
func TestAStartThatFails(t *testing.T) {
	l := begin(t)
	<-l.ready
	l.s.machine.agent.Close() // as when the machine has closed its ports
	go l.process.end(qemu.ErrCrashed)
	if err := l.s.startError(errors.New("control port ended")); !errors.Is(err, qemu.ErrCrashed) {
		t.Errorf("%v", err)
	}
}

// events collects the events of a sandbox until it ends.
func (l *life) events(t *testing.T) (all func() []control.Event) {
	t.Helper()
	var list []control.Event
	subscribed, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for e, err := range l.client.Events(context.Background()) {
			if err != nil {
				t.Error(err)
				return
			}
			if e.Kind == control.KindStatus {
				close(subscribed)
			}
			list = append(list, e)
		}
	}()
	<-subscribed
	return func() []control.Event { <-done; return list }
}

// phases are the phases of events.
func phases(list []control.Event) (p []sandbox.Phase) {
	for _, e := range list {
		if e.Kind == control.KindPhase {
			p = append(p, e.Phase)
		}
	}
	return p
}

func TestSuspendSaves(t *testing.T) {
	l := begin(t)
	<-l.ready
	events := l.events(t)
	if err := l.client.Suspend(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if st := l.state(t); st.Phase != sandbox.Stopped || st.Message != "" {
		t.Errorf("%+v", st)
	}
	if !snapshot.Exists(l.s.dir.File(store.SuspendedState)) {
		t.Error("nothing was saved")
	}
	if want := []wire.Op{wire.OpSuspend}; !slices.Equal(l.was(), want) {
		t.Errorf("the guest was asked %v", l.was())
	}
	if want := []string{"pause", "save"}; !slices.Equal(l.process.calls, want) {
		t.Errorf("QEMU was asked %v", l.process.calls)
	}
	if got := phases(events()); !slices.Equal(got, []sandbox.Phase{sandbox.Stopping}) {
		t.Errorf("phases %v", got)
	}
}

// TestResumeWaitsForKVM: a machine that was saved under KVM stays saved while it is not known
// whether KVM works. With any other difference the sandbox boots from its disk.
func TestResumeWaitsForKVM(t *testing.T) {
	const underKVM = "a kind of machine under KVM"
	for _, c := range []struct {
		name string
		platform
		want error
		kept bool
	}{
		{"unsettled", platform{kind: "emulated", kvmKind: underKVM}, errNotWithoutKVM, true},
		{"KVM fails", platform{kind: "emulated"}, nil, false},
		{"unsettled, and another machine", platform{kind: "emulated", kvmKind: "other"}, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := begin(t)
			<-l.ready
			if err := l.client.Stop(t.Context(), true); err != nil {
				t.Fatal(err)
			}
			<-l.ended
			path := l.s.dir.File(store.SuspendedState)
			saveMachine(t, l.s.dir.Path, path, underKVM)
			l.s.platform = c.platform
			if resumed, err := l.s.resume(t.Context(), nil); resumed || !errors.Is(err, c.want) {
				t.Errorf("%v, %v, want %v", resumed, err, c.want)
			}
			if snapshot.Exists(path) != c.kept {
				t.Errorf("the saved machine is there: %v", !c.kept)
			}
		})
	}
}

// saveMachine writes a saved machine of a kind.
func saveMachine(t *testing.T, folder, path, kind string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	d, err := snapshot.Begin(folder)
	if err != nil {
		t.Fatal(err)
	}
	ram, err := memory.New(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer ram.Close()
	if err := d.RAM(ram); err != nil {
		t.Fatal(err)
	}
	if err := d.State(func(w io.Writer) error { _, err := io.WriteString(w, "state"); return err }); err != nil {
		t.Fatal(err)
	}
	if err := d.Commit(t.Context(), path, snapshot.Meta{Kind: kind, Spec: &sandbox.Spec{ID: "id"}}); err != nil {
		t.Fatal(err)
	}
}

// TestSuspendThatFails leaves a sandbox that runs, as before.
func TestSuspendThatFails(t *testing.T) {
	l := begin(t)
	<-l.ready
	events := l.events(t)
	l.process.saveErr = errors.New("no room")
	if err := l.client.Suspend(t.Context(), false); err == nil || !strings.Contains(err.Error(), "no room") {
		t.Errorf("%v", err)
	}
	if s, err := l.client.Status(t.Context()); err != nil || s.Phase != sandbox.Running {
		t.Errorf("%+v, %v", s, err)
	}
	if st, err := l.s.dir.State(); err != nil || st.Phase != sandbox.Running {
		t.Errorf("on disk: %+v, %v", st, err)
	}
	if snapshot.Exists(l.s.dir.File(store.SuspendedState)) {
		t.Error("half a state was saved")
	}
	if want := []wire.Op{wire.OpSuspend, wire.OpResume}; !slices.Equal(l.was(), want) {
		t.Errorf("the guest was asked %v", l.was())
	}
	if want := []string{"pause", "save", "resume"}; !slices.Equal(l.process.calls, want) {
		t.Errorf("QEMU was asked %v", l.process.calls)
	}
	if err := l.client.Stop(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if got := phases(events()); !slices.Equal(got, []sandbox.Phase{sandbox.Stopping, sandbox.Running, sandbox.Stopping}) {
		t.Errorf("phases %v", got)
	}
}

// suspendAndHang begins a suspension of a guest that never freezes, and returns when the guest is asked
// to. The channel gets the answer.
func (l *life) suspendAndHang() (suspended <-chan error) {
	l.hang(wire.OpSuspend)
	answer := make(chan error, 1)
	go func() { answer <- l.client.Suspend(context.Background(), false) }()
	for !slices.Contains(l.was(), wire.OpSuspend) {
		runtime.Gosched()
	}
	return answer
}

// TestSuspendEndsWithTheMachine: of a guest that never freezes. Meanwhile another request to
// save it is refused.
func TestSuspendEndsWithTheMachine(t *testing.T) {
	l := begin(t)
	<-l.ready
	suspended := l.suspendAndHang()
	if err := l.client.Snapshot(t.Context(), filepath.Join(t.TempDir(), "one")); control.ReasonOf(err) != control.ReasonSaving {
		t.Errorf("a snapshot meanwhile: %v", err)
	}
	if err := l.client.Stop(t.Context(), true); err != nil {
		t.Error(err)
	}
	if err := <-suspended; err == nil {
		t.Error("it was suspended")
	}
	if st := l.state(t); st.Phase != sandbox.Stopped {
		t.Errorf("%+v", st)
	}
}

// TestAttached: a sandbox with an SSH connection is not suspended without force, and events
// tell who comes and goes.
func TestAttached(t *testing.T) {
	l := begin(t)
	<-l.ready
	events := l.events(t)
	left := l.s.life.attach()
	if err := l.client.Suspend(t.Context(), false); control.ReasonOf(err) != control.ReasonAttached {
		t.Errorf("%v", err)
	}
	if s, err := l.client.Status(t.Context()); err != nil || s.Attached != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	time.AfterFunc(time.Millisecond, left) // it is waited for
	if err := l.client.Suspend(t.Context(), false); err != nil {
		t.Error(err)
	}
	var kinds []control.Kind
	for _, e := range events() {
		kinds = append(kinds, e.Kind)
	}
	want := []control.Kind{control.KindStatus, control.KindAttached, control.KindDetached, control.KindPhase}
	if !slices.Equal(kinds, want) {
		t.Errorf("%v", kinds)
	}
}

// TestTearDownJoins: the sandbox has not ended before all that looks after it has, nor before
// a request that is under way was answered.
func TestTearDownJoins(t *testing.T) {
	l := begin(t)
	<-l.ready
	var task, request atomic.Bool
	l.s.tasks.Go(func() {
		<-l.s.life.ctx.Done()
		time.Sleep(50 * time.Millisecond) // as long as the rest of the end takes, and longer
		task.Store(true)
	})
	stopped := make(chan error, 1)
	go func() {
		err := l.client.Stop(context.Background(), false)
		request.Store(true)
		stopped <- err
	}()
	<-l.ended
	if !task.Load() {
		t.Error("a task goes on after the end")
	}
	if err := <-stopped; err != nil || !request.Load() {
		t.Errorf("the request: %v", err)
	}
}
