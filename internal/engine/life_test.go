package engine_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/engine/enginetest"
	"bawn.dev/bawn/internal/project"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/sys/lockfile"
)

// place is a user's home with two directories, none of which has a sandbox. No QEMU is
// installed there, so that nothing starts.
type place struct {
	*engine.Engine
	shop, inner string // directories, one in the other

	mu      sync.Mutex
	notices []engine.Notice

	noticeC chan engine.Notice // the same, as they come; later ones are dropped
}

func newPlace(t *testing.T) *place {
	t.Helper()
	home := enginetest.TempHome(t)
	t.Setenv("PATH", t.TempDir())
	p := &place{noticeC: make(chan engine.Notice, 16), shop: filepath.Join(home, "shop"), inner: filepath.Join(home, "shop", "inner")}
	if err := os.MkdirAll(p.inner, 0o755); err != nil {
		t.Fatal(err)
	}
	var err error
	p.Engine, err = engine.Open(engine.Options{Events: func(ev engine.Event) {
		if n, ok := ev.(engine.Notice); ok {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.notices = append(p.notices, n)
			select {
			case p.noticeC <- n:
			default:
			}
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// add makes a sandbox of a directory, which is stopped.
func (p *place) add(t *testing.T, name, dir string, change func(*sandbox.Spec)) store.Dir {
	t.Helper()
	s := &sandbox.Spec{ID: sandbox.NewID(), Name: name, Dir: dir, Project: sandbox.Source{Host: dir, Guest: dir}, CPUs: 2, Memory: sandbox.MinMemory, Disk: sandbox.MinDisk}
	if change != nil {
		change(s)
	}
	d, err := p.Sandboxes().Create(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// noticed returns the notices since the last call that have a reason.
func (p *place) noticed(r engine.Reason) (list []engine.Notice) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.notices {
		if n.Reason == r {
			list = append(list, n)
		}
	}
	p.notices = nil
	return list
}

func (p *place) propose(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.shop, project.Name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (p *place) approve(t *testing.T) {
	t.Helper()
	c, err := p.CheckProject(p.shop)
	if err == nil {
		err = p.Approve(t.Context(), c)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// machine answers for the supervisor of a sandbox that runs.
type machine struct {
	control.Service // nil: no other method is called
	lock            *lockfile.Lock
	d               store.Dir
	events          control.Broadcaster
	asked           func() // is called before Status answers; nil for nothing

	mu       sync.Mutex
	ports    []sandbox.Port
	attached bool
	starved  bool
	reloaded int
}

func start(t *testing.T, d store.Dir) *machine {
	t.Helper()
	m := &machine{d: d}
	m.lock = enginetest.Serve(t, d, m)
	return m
}

func (m *machine) Status() control.Status {
	if m.asked != nil {
		m.asked()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return control.Status{Name: "shop", Phase: sandbox.Running, Ports: slices.Clone(m.ports), Starved: m.starved}
}

func (m *machine) ChangePorts(add []sandbox.Port, remove []uint16) ([]sandbox.Port, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range add {
		if p.Host == 1 {
			return nil, control.PortErrorf(control.ReasonPortPrivileged, p, "port 1 is reserved to root")
		}
	}
	m.ports = slices.DeleteFunc(m.ports, func(p sandbox.Port) bool { return slices.Contains(remove, p.Host) || slices.Contains(add, p) })
	m.ports = append(m.ports, add...)
	slices.SortFunc(m.ports, func(a, b sandbox.Port) int { return int(a.Host) - int(b.Host) })
	return add, nil
}

func (m *machine) ReloadPolicy() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reloaded++
	return nil
}

func (m *machine) FollowShares(context.Context) error { return nil }

func (m *machine) BeginRestorePoint(context.Context) error { return nil }

func (m *machine) Subscribe() *control.Subscription { return m.events.Subscribe(m.Status) }

func (m *machine) AllowedOnce() ([]string, error) { return nil, nil }

func (m *machine) Stop(context.Context, bool) error {
	return errors.Join(m.d.WriteState(sandbox.State{Phase: sandbox.Stopped}), m.lock.Close())
}

func (m *machine) Suspend(ctx context.Context, force bool) error {
	if m.attached && !force {
		return control.Errorf(control.ReasonAttached, "1 command is attached")
	}
	return m.Stop(ctx, force)
}

func TestFind(t *testing.T) {
	p := newPlace(t)
	p.add(t, "shop", p.shop, nil)
	for _, dir := range []string{p.shop, p.inner} {
		if spec, err := p.Find(dir); err != nil || spec.Name != "shop" {
			t.Errorf("%s: %v, %v", dir, spec, err)
		}
	}
	_, err := p.Find("/elsewhere")
	if e := engine.As(err); e == nil || e.Reason != engine.NotFound || e.Path != "/elsewhere" || e.Sandbox != "" {
		t.Errorf("%+v", e)
	}
	_, err = p.Named("other")
	if e := engine.As(err); e == nil || e.Reason != engine.NotFound || e.Sandbox != "other" || e.Path != "" {
		t.Errorf("%+v", e)
	}
	if _, err := p.Named("../shop"); err == nil || engine.ReasonOf(err) == engine.NotFound {
		t.Errorf("no name: %v", err)
	}
}

func TestProjectDir(t *testing.T) {
	p := newPlace(t)
	link := filepath.Join(filepath.Dir(p.shop), "link")
	file := filepath.Join(p.shop, "file")
	if err := errors.Join(os.Symlink(p.inner, link), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	t.Chdir(p.shop)
	for path, want := range map[string]string{p.shop: p.shop, link: p.inner, ".": p.shop, "inner/..": p.shop} {
		if got, err := engine.ProjectDir(path); err != nil || got != want {
			t.Errorf("%s: %s, %v", path, got, err)
		}
	}
	for path, want := range map[string]engine.Reason{"none": engine.NoDirectory, "file": engine.NotADirectory} {
		_, err := engine.ProjectDir(path)
		if e := engine.As(err); e == nil || e.Reason != want || e.Path != filepath.Join(p.shop, path) {
			t.Errorf("%s: %+v", path, e)
		}
	}
}

func TestResolveMount(t *testing.T) {
	p := newPlace(t)
	t.Chdir(p.shop)
	for _, m := range []struct{ source, target, wantSource, wantTarget string }{
		{"inner", "", p.inner, p.inner},
		{"~/shop", "/data", p.shop, "/data"},
	} {
		got, err := engine.ResolveMount(sandbox.Source{Host: m.source, Guest: m.target, Mode: sandbox.ReadOnly})
		if want := (sandbox.Source{Host: m.wantSource, Guest: m.wantTarget, Mode: sandbox.ReadOnly}); err != nil || got != want {
			t.Errorf("%s: %v, %v", m.source, got, err)
		}
	}
	_, err := engine.ResolveMount(sandbox.Source{Host: "none"})
	if e := engine.As(err); e == nil || e.Reason != engine.NoMountSource || e.Path != filepath.Join(p.shop, "none") {
		t.Errorf("%+v", e)
	}
}

// TestRefusals: what is wrong with a request has a reason, and makes no sandbox.
func TestRefusals(t *testing.T) {
	p := newPlace(t)
	p.add(t, "shop", p.shop, nil)
	p.add(t, "gone", filepath.Join(p.shop, "gone"), nil)
	p.add(t, "unmounted", p.shop, func(s *sandbox.Spec) {
		s.Mounts = []sandbox.Source{{Host: p.shop + "/gone", Guest: "/data"}}
	})
	home := filepath.Dir(p.shop)
	one, much := 1, int64(1)<<60
	for name, c := range map[string]struct {
		r    engine.Request
		want engine.Reason
	}{
		"no QEMU":               {engine.Request{Dir: p.inner, Name: "new"}, engine.NoQEMU},
		"no QEMU, a throwaway":  {engine.Request{Dir: p.inner, Throwaway: true}, engine.NoQEMU},
		"a throwaway's name":    {engine.Request{Dir: p.shop, Name: "shop", Throwaway: true}, engine.Exists},
		"another directory":     {engine.Request{Dir: p.inner, Name: "shop", OnlyDir: true}, engine.OtherDirectory},
		"the project is gone":   {engine.Request{Dir: p.shop, Name: "gone"}, engine.DirectoryGone},
		"a mount is gone":       {engine.Request{Dir: p.shop, Name: "unmounted"}, engine.MountGone},
		"a home with it all":    {engine.Request{Dir: home, Name: "new"}, engine.ShareOfBawn},
		"bawn's own folder":     {engine.Request{Dir: p.Sandboxes().Root(), Name: "new"}, engine.ShareOfBawn},
		"/proc":                 {engine.Request{Dir: "/proc", Name: "new"}, engine.ShareOfKernel},
		"/etc":                  {engine.Request{Dir: "/etc", Name: "new"}, engine.ShareNotReadOnly},
		"a rule":                {engine.Request{Dir: p.inner, Name: "new", Change: engine.SpecChange{Allow: []string{"https://x.test"}}}, engine.InvalidRule},
		"little memory":         {engine.Request{Dir: p.inner, Name: "new", Change: engine.SpecChange{Memory: new(int64)}}, engine.InvalidSpec},
		"more than the host":    {engine.Request{Dir: p.inner, Name: "new", Change: engine.SpecChange{Memory: &much}}, engine.InvalidSpec},
		"little of an old disk": {engine.Request{Dir: p.shop, Name: "shop", Change: engine.SpecChange{CPUs: &one, Disk: new(int64)}}, engine.InvalidSpec},
	} {
		s, err := p.Acquire(t.Context(), c.r)
		if engine.ReasonOf(err) != c.want {
			t.Errorf("%s: %v (%s), want %s", name, err, engine.ReasonOf(err), c.want)
		}
		if s != nil {
			s.Close()
		}
	}
	if names, err := p.Names(); err != nil || !slices.Equal(names, []string{"gone", "shop", "unmounted"}) {
		t.Errorf("made: %q, %v", names, err)
	}
	if spec, err := p.Named("shop"); err != nil || spec.CPUs != 2 {
		t.Errorf("changed: %+v, %v", spec, err)
	}
}

// TestPortInUse: what is to be done depends on who asked for the port.
func TestPortInUse(t *testing.T) {
	p := newPlace(t)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := sandbox.Port{Host: uint16(l.Addr().(*net.TCPAddr).Port), Guest: 80}
	p.add(t, "kept", p.shop, func(s *sandbox.Spec) { s.Ports = []sandbox.Port{taken} })
	for want, c := range map[engine.Origin]struct {
		r    engine.Request
		file string
	}{
		engine.FromRequest: {engine.Request{Dir: p.shop, Name: "new", Change: engine.SpecChange{Publish: []sandbox.Port{taken}}}, ""},
		engine.FromSandbox: {engine.Request{Dir: p.shop, Name: "kept"}, ""},
		engine.FromProject: {engine.Request{Dir: p.shop, Name: "new"}, fmt.Sprintf("ports: ['%d:80']\n", taken.Host)},
	} {
		p.propose(t, c.file)
		p.approve(t)
		_, err := p.Acquire(t.Context(), c.r)
		e := engine.As(err)
		if e == nil || e.Reason != engine.PortInUse || e.Port != taken || e.Origin != want || e.Sandbox != c.r.Name {
			t.Errorf("%s: %v, %+v", want, err, e)
		}
	}
	if names, err := p.Names(); err != nil || !slices.Equal(names, []string{"kept"}) {
		t.Errorf("made: %q, %v", names, err)
	}
}

// TestConsent: nothing of a bawn.yaml is used before it is approved as it is.
func TestConsent(t *testing.T) {
	p := newPlace(t)
	r := engine.Request{Dir: p.shop}
	aside := engine.Request{Dir: p.shop, Change: engine.SpecChange{NoProject: new(bool)}}
	*aside.Change.NoProject = true
	refused := func(want engine.Reason, status project.Status) {
		t.Helper()
		err := p.CheckConsent(r)
		e := engine.As(err)
		if e == nil || e.Reason != want || e.Path != p.shop || e.Check == nil || e.Check.Status != status {
			t.Errorf("%v, %+v; want %s", err, e, want)
		}
		if _, err := p.Acquire(t.Context(), r); engine.ReasonOf(err) != want {
			t.Errorf("it is used: %v", err)
		}
		if err := p.CheckConsent(aside); err != nil {
			t.Errorf("left aside: %v", err)
		}
	}
	agreed := func() {
		t.Helper()
		if err := p.CheckConsent(r); err != nil {
			t.Error(err)
		}
	}
	agreed()
	p.propose(t, "cpus: 2\n")
	refused(engine.NotApproved, project.New)
	p.approve(t)
	agreed()
	p.propose(t, "cpus: 3\n")
	refused(engine.NotApproved, project.Changed)
	p.propose(t, "cpus: [\n")
	refused(engine.ProjectInvalid, project.Changed)
	c, err := p.CheckProject(p.shop)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Approve(t.Context(), c); engine.ReasonOf(err) != engine.ProjectInvalid {
		t.Errorf("what cannot be read is approved: %v", err)
	}
	if err := os.Remove(c.File()); err != nil {
		t.Fatal(err)
	}
	refused(engine.NotApproved, project.Removed)
	p.approve(t)
	agreed()
	p.propose(t, "cpus: 2\n")
	refused(engine.NotApproved, project.New)
	if names, err := p.Names(); err != nil || len(names) != 0 {
		t.Errorf("made: %q, %v", names, err)
	}
}

// TestChangeRunning: what can be changed while a sandbox runs is, at once; the rest is an
// error or, if it comes of bawn.yaml, a notice.
func TestChangeRunning(t *testing.T) {
	p := newPlace(t)
	d := p.add(t, "shop", p.shop, nil)
	m := start(t, d)
	use := func(c engine.SpecChange) error {
		t.Helper()
		s, err := p.Acquire(t.Context(), engine.Request{Dir: p.inner, Change: c})
		if err == nil {
			err = s.Close()
		}
		return err
	}
	three, hosts := 3, []sandbox.Host{{Name: "x.test"}}
	err := use(engine.SpecChange{CPUs: &three, Hosts: &hosts})
	if e := engine.As(err); e == nil || e.Reason != engine.NeedsRestart || e.Sandbox != "shop" || !slices.Equal(e.Fields, []string{"cpus", "hosts"}) {
		t.Errorf("%v, %+v", err, e)
	}
	port := sandbox.Port{Host: 8080, Guest: 80}
	if err := use(engine.SpecChange{Publish: []sandbox.Port{port}, Allow: []string{"a.test"}, Deny: []string{"a.test"}}); err != nil {
		t.Fatal(err)
	}
	spec, err := p.Named("shop")
	if err != nil || spec.CPUs != 2 || !slices.Equal(spec.Ports, []sandbox.Port{port}) || !slices.Equal(m.Status().Ports, spec.Ports) || m.reloaded == 0 {
		t.Errorf("%+v, %v, %+v", spec, err, m)
	}
	if err := use(engine.SpecChange{Allow: []string{"a.test"}}); err != nil || len(p.noticed(engine.RuleOverruled)) != 1 {
		t.Errorf("a rule without effect: %v", err)
	}
	p.propose(t, "cpus: 4\nports: [3000]\n")
	p.approve(t)
	if err := use(engine.SpecChange{}); err != nil {
		t.Fatal(err)
	}
	if n := p.noticed(engine.NeedsRestart); len(n) != 1 || !slices.Equal(n[0].Fields, []string{"cpus", "ports"}) {
		t.Errorf("%+v", n)
	}
	p.propose(t, "cpus: 5\n")
	if err := p.EnsureRunning(t.Context(), "shop"); err != nil || len(p.noticed(engine.NotApproved)) != 1 {
		t.Errorf("a sandbox that is named: %v", err)
	}
}

func TestChangePorts(t *testing.T) {
	ports := func(list ...uint16) (ports []sandbox.Port) {
		for _, n := range list {
			ports = append(ports, sandbox.Port{Host: n, Guest: n})
		}
		return ports
	}
	for _, running := range []bool{false, true} {
		p := newPlace(t)
		d := p.add(t, "shop", p.shop, func(s *sandbox.Spec) {
			s.Ports, s.Added.Ports = ports(2000, 3000), ports(3000)
		})
		if running {
			start(t, d).ports = ports(2000, 3000)
		}
		want := func(got []sandbox.Port, err error, open ...uint16) {
			t.Helper()
			spec, serr := d.Spec()
			if err := errors.Join(err, serr); err != nil || !slices.Equal(got, ports(open...)) || !slices.Equal(spec.Ports, ports(open...)) {
				t.Errorf("running %v: %v, %v, %v; want %v", running, got, spec.Ports, err, open)
			}
		}
		got, err := p.ChangePorts(t.Context(), "shop", nil, nil)
		want(got, err, 2000, 3000)
		got, err = p.ChangePorts(t.Context(), "shop", ports(4000), []uint16{2000})
		want(got, err, 3000, 4000)
		_, err = p.ChangePorts(t.Context(), "shop", ports(5000), []uint16{2000})
		if e := engine.As(err); e == nil || e.Reason != engine.PortNotPublished || e.Port.Host != 2000 {
			t.Errorf("%v", err)
		}
		if running {
			_, err = p.ChangePorts(t.Context(), "shop", ports(1), []uint16{3000})
			if engine.ReasonOf(err) != engine.PortPrivileged {
				t.Errorf("%v", err)
			}
		}
		got, err = p.ChangePorts(t.Context(), "shop", nil, nil)
		want(got, err, 3000, 4000)
		got, err = p.ChangePorts(t.Context(), "shop", ports(3000), nil)
		want(got, err, 3000, 4000)
		if spec, err := d.Spec(); err != nil || len(spec.Added.Ports) != 0 {
			t.Errorf("a port that a person asked for is bawn.yaml's: %v, %v", spec.Added.Ports, err)
		}
	}
}

func TestList(t *testing.T) {
	p := newPlace(t)
	p.add(t, "off", p.shop, nil)
	start(t, p.add(t, "on", p.shop, nil))
	bad := p.add(t, "bad", p.shop, nil)
	if err := os.WriteFile(bad.File("spec.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	list, failed, err := p.List(t.Context())
	if err != nil || len(list) != 2 || len(failed) != 1 || engine.ReasonOf(failed["bad"]) != engine.Damaged || engine.As(failed["bad"]).Sandbox != "bad" {
		t.Fatalf("%v, %v, %v", list, failed, err)
	}
	if off := list[0]; off.Name != "off" || off.State.Phase != sandbox.Stopped || off.Status != nil || off.Suspended {
		t.Errorf("%+v", off)
	}
	if on := list[1]; on.Name != "on" || on.State.Phase != sandbox.Running || on.Status == nil {
		t.Errorf("%+v", on)
	}
	if _, err := p.Describe(t.Context(), "none"); engine.ReasonOf(err) != engine.NotFound {
		t.Errorf("%v", err)
	}
}

// TestListAsksAllAtOnce: each sandbox answers when the other was asked too.
func TestListAsksAllAtOnce(t *testing.T) {
	p := newPlace(t)
	var others sync.WaitGroup
	others.Add(2)
	both := make(chan struct{})
	go func() { others.Wait(); close(both) }()
	for _, name := range []string{"one", "two"} {
		m := &machine{d: p.add(t, name, p.shop, nil)}
		once := sync.OnceFunc(others.Done)
		m.asked = func() {
			once()
			select {
			case <-both:
			case <-t.Context().Done():
			}
		}
		m.lock = enginetest.Serve(t, m.d, m)
	}
	list, failed, err := p.List(t.Context())
	if err != nil || len(failed) > 0 || len(list) != 2 {
		t.Fatal(list, failed, err)
	}
	for _, i := range list {
		if i.Status == nil {
			t.Errorf("%s was asked after another had not answered", i.Name)
		}
	}
}

func TestEnds(t *testing.T) {
	p := newPlace(t)
	d := p.add(t, "shop", p.shop, nil)
	phase := func(want sandbox.Phase) {
		t.Helper()
		if st, err := d.State(); err != nil || st.Phase != want {
			t.Errorf("%s, %v; want %s", st.Phase, err, want)
		}
	}
	ctx := t.Context()
	if err := errors.Join(p.Stop(ctx, "shop", false), p.Suspend(ctx, "shop", false)); err != nil {
		t.Errorf("one that is stopped: %v", err)
	}
	if err := p.Resume(ctx, "shop"); engine.ReasonOf(err) != engine.NotSuspended {
		t.Errorf("resume: %v", err)
	}
	m := start(t, d)
	if err := p.Remove(ctx, "shop", false); engine.ReasonOf(err) != engine.StillRunning {
		t.Errorf("remove: %v", err)
	}
	if err := p.Resume(ctx, "shop"); err != nil {
		t.Errorf("resume: %v", err)
	}
	m.attached = true
	if err := p.Suspend(ctx, "shop", false); engine.ReasonOf(err) != engine.Attached {
		t.Errorf("suspend: %v", err)
	}
	phase(sandbox.Running)
	if err := p.Suspend(ctx, "shop", true); err != nil {
		t.Errorf("suspend: %v", err)
	}
	phase(sandbox.Stopped)
	start(t, d)
	if err := p.Stop(ctx, "shop", false); err != nil {
		t.Errorf("stop: %v", err)
	}
	phase(sandbox.Stopped)
	start(t, d).lock.Close() // as if it was killed
	phase(sandbox.Dead)
	if err := p.Stop(ctx, "shop", false); err != nil {
		t.Errorf("stop: %v", err)
	}
	phase(sandbox.Stopped)
	start(t, d)
	if err := p.Remove(ctx, "shop", true); err != nil {
		t.Errorf("remove: %v", err)
	}
	if _, err := p.Named("shop"); engine.ReasonOf(err) != engine.NotFound {
		t.Errorf("it is left: %v", err)
	}
}

func TestPoolSize(t *testing.T) {
	p := newPlace(t)
	size := func(want int) {
		t.Helper()
		if n, err := p.PoolSize(); err != nil || n != want {
			t.Errorf("%d, %v; want %d", n, err, want)
		}
	}
	size(0)
	for _, bad := range []int{-1, engine.MaxPool + 1} {
		if err := p.ResizePool(t.Context(), bad); engine.ReasonOf(err) != engine.InvalidPoolSize {
			t.Errorf("%d: %v", bad, err)
		}
	}
	size(0)
	for _, n := range []int{2, engine.MaxPool, 0} {
		if err := p.ResizePool(t.Context(), n); err != nil {
			t.Error(err)
		}
		size(n)
	}
	if list, err := p.Pool(); err != nil || list == nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	file := filepath.Join(p.Sandboxes().Root(), "pool.size")
	if err := os.WriteFile(file, []byte("many"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := p.PoolSize()
	if e := engine.As(err); e == nil || e.Reason != engine.PoolSizeDamaged || e.Path != file || !strings.Contains(err.Error(), `"many"`) {
		t.Errorf("%v", err)
	}
}

func TestGuestPath(t *testing.T) {
	p := newPlace(t)
	spec := &sandbox.Spec{Dir: p.shop, Project: sandbox.Source{Host: p.shop, Guest: "/work"}, Mounts: []sandbox.Source{{Host: "/usr", Guest: "/usr"}, {Host: "/etc", Guest: "/host"}}}
	for path, want := range map[string]string{p.shop: "/work", p.inner: "/work/inner", "/usr/lib": "/usr/lib", "/etc": "", filepath.Dir(p.shop): ""} {
		if path == "/usr/lib" {
			if real, err := filepath.EvalSymlinks(path); err != nil || real != path {
				continue
			}
		}
		if got, ok := engine.GuestPath(spec, path); got != want || ok != (want != "") {
			t.Errorf("%s: %q, %v", path, got, ok)
		}
	}
}

// TestNames: no method takes a name that leads elsewhere, or that nobody has.
func TestNames(t *testing.T) {
	p := newPlace(t)
	ctx := t.Context()
	outside := filepath.Join(p.Sandboxes().Root(), "outside")
	if err := os.Mkdir(outside, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func(name string) error{
		"EnsureRunning": func(n string) error { return p.EnsureRunning(ctx, n) },
		"Attach":        func(n string) error { _, err := p.Attach(ctx, n, ""); return err },
		"Acquire":       func(n string) error { _, err := p.Acquire(ctx, engine.Request{Dir: "/", Name: n}); return err },
		"Dial":          func(n string) error { _, err := p.Dial(ctx, n, ""); return err },
		"Stop":          func(n string) error { return p.Stop(ctx, n, true) },
		"Suspend":       func(n string) error { return p.Suspend(ctx, n, true) },
		"Resume":        func(n string) error { return p.Resume(ctx, n) },
		"Remove":        func(n string) error { return p.Remove(ctx, n, true) },
		"Describe":      func(n string) error { _, err := p.Describe(ctx, n); return err },
		"ChangePorts":   func(n string) error { _, err := p.ChangePorts(ctx, n, nil, nil); return err },
		"LogFiles":      func(n string) error { _, _, err := p.LogFiles(n); return err },
	} {
		if err := f("../outside"); err == nil || !strings.Contains(err.Error(), "invalid sandbox name") {
			t.Errorf("%s: %v", name, err)
		}
		if name == "Acquire" { // which makes it
			continue
		}
		err := f("nobody")
		if e := engine.As(err); e == nil || e.Reason != engine.NotFound || e.Sandbox != "nobody" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Lstat(outside); err != nil {
		t.Error(err)
	}
}
