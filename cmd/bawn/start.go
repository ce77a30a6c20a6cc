package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/image"
	"bawn.dev/bawn/internal/initramfs"
	"bawn.dev/bawn/internal/kernel"
	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/progress"
	"bawn.dev/bawn/internal/project"
	"bawn.dev/bawn/internal/qemu"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/session"
	"bawn.dev/bawn/internal/supervisor/launch"
	"bawn.dev/bawn/internal/supervisor/pool"
	"bawn.dev/bawn/internal/supervisor/publish"
	"bawn.dev/bawn/internal/supervisor/templatebuild"
	"bawn.dev/bawn/internal/sys/lockfile"
	"bawn.dev/bawn/internal/sys/size"
	"bawn.dev/bawn/internal/sys/xdg"
	"bawn.dev/bawn/internal/wire"
)

// lookup finds a sandbox by name; an empty name means that of this directory.
func lookup(sandboxes *store.Store, name string) (*sandbox.Spec, error) {
	if name == "" {
		f := specFlags{}
		dir, err := f.directory()
		if err != nil {
			return nil, err
		}
		spec, err := sandboxes.Find(dir)
		return spec, hint(err, "bawn ls, or bawn run to make one here")
	}
	if err := sandbox.CheckName(name); err != nil {
		return nil, err
	}
	spec, err := sandboxes.Dir(name).Spec()
	if store.IsNotFound(err) {
		return nil, hint(err, "bawn ls")
	}
	return spec, err
}

// found is the sandbox that a command is to run in.
type found struct {
	spec  *sandbox.Spec
	made  bool           // just now
	owner *lockfile.Lock // of a throwaway, to be held until it is removed
}

// resolve finds the sandbox that the flags mean, or makes it.
func (f *specFlags) resolve(ctx context.Context, sandboxes *store.Store, throwaway bool) (found, error) {
	dir, err := f.directory()
	if err != nil {
		return found{}, err
	}
	if f.name != "" {
		if err := sandbox.CheckName(f.name); err != nil {
			return found{}, err
		}
	}
	l, err := sandboxes.LockNames(ctx)
	if err != nil {
		return found{}, err
	}
	defer l.Close()
	spec, err := f.existing(sandboxes, dir, throwaway)
	if err == nil || !store.IsNotFound(err) {
		return found{spec: spec}, err
	}
	return f.create(sandboxes, dir, throwaway)
}

// unmake removes a sandbox that was just made, if no machine of it was tried: it
// holds nothing, and what it was refused for would be asked of it again.
func unmake(sandboxes *store.Store, name string) error {
	d := sandboxes.Dir(name)
	switch _, err := os.Stat(d.File(store.SupervisorLogFile)); {
	case errors.Is(err, fs.ErrNotExist):
		return remove(context.Background(), sandboxes, name, false)
	case err != nil:
		return err
	}
	l, err := d.LockStart(context.Background())
	if err != nil {
		return err
	}
	defer l.Close()
	return takeBack(d, &sandbox.Spec{})
}

// takeBack gives a sandbox whose start failed the mounts and ports that it had
// before: a start fails because of them, and would do so again. What did not
// change is not touched. The caller holds the start lock.
func takeBack(d store.Dir, was *sandbox.Spec) error {
	spec, err := d.Spec()
	if err != nil {
		return err
	}
	spec.Mounts, spec.Project.Mounts = was.Mounts, was.Project.Mounts
	spec.Ports, spec.Project.Ports = was.Ports, was.Project.Ports
	return d.WriteSpec(spec)
}

func (f *specFlags) existing(sandboxes *store.Store, dir string, throwaway bool) (*sandbox.Spec, error) {
	if f.name == "" && !throwaway {
		return sandboxes.Find(dir)
	}
	if f.name == "" {
		return nil, errNoSandbox(sandboxes, dir)
	}
	spec, err := sandboxes.Dir(f.name).Spec()
	if err != nil {
		return nil, err
	}
	if throwaway {
		return nil, hint(fmt.Errorf("a sandbox named %s exists already, and --rm would remove it", f.name), "bawn run --rm without --name")
	}
	if f.dir != "" && spec.Dir != dir {
		return nil, hint(fmt.Errorf("sandbox %s belongs to %s, not to %s", f.name, spec.Dir, dir), "another --name")
	}
	return spec, nil
}

// errNoSandbox is the not-found error of a name that cannot exist.
func errNoSandbox(sandboxes *store.Store, dir string) error {
	_, err := sandboxes.Dir(".none").Spec()
	return fmt.Errorf("%s: %w", dir, err)
}

func (f *specFlags) create(sandboxes *store.Store, dir string, throwaway bool) (found, error) {
	name := f.name
	if name == "" {
		base := sandbox.NameFor(dir)
		if throwaway {
			base += "-" + sandbox.NewID()[:6]
		}
		var err error
		if name, err = sandboxes.FreeName(base); err != nil {
			return found{}, err
		}
	}
	spec, err := f.newSpec(name, dir)
	if err != nil {
		return found{}, err
	}
	spec.Throwaway = throwaway
	if err := checkShares(sandboxes, spec); err != nil {
		return found{}, err
	}
	n := found{spec: spec, made: true}
	if throwaway {
		n.owner, err = sandboxes.CreateOwned(spec)
	} else {
		_, err = sandboxes.Create(spec)
	}
	return n, err
}

// checkShares says whether all that the spec shares may be shared, and is there.
func checkShares(sandboxes *store.Store, spec *sandbox.Spec) error {
	all := append([]sandbox.Mount{{Source: spec.Dir, Target: spec.GuestDir()}}, spec.Mounts...)
	for i, m := range all {
		err := sandboxes.CheckShare(m.Source, m.ReadOnly)
		switch {
		case errors.Is(err, fs.ErrNotExist) && i > 0 && !slices.Contains(spec.Project.Mounts, m):
			return hint(fmt.Errorf("--mount %s: %s is gone", m, m.Source), "mkdir %s, or bawn run --name %s --mount '' to go without what --mount has shared", pathArgument(m.Source), spec.Name)
		case errors.Is(err, fs.ErrNotExist):
			return hint(fmt.Errorf("cannot share %s: it is gone", m.Source), "mkdir %s", pathArgument(m.Source))
		case err != nil:
			return err
		}
	}
	return nil
}

// ensureRunning starts the sandbox if it does not run.
func ensureRunning(ctx context.Context, sandboxes *store.Store, name string) error {
	return bringUp(ctx, sandboxes, name, nil, func() {})
}

// bringUp starts the sandbox if it does not run. The flags, if any, change its
// spec: at once what can be changed live, the rest only while it is stopped.
// reachable is called if the sandbox is started, as soon as its guest can be dialled.
func bringUp(ctx context.Context, sandboxes *store.Store, name string, f *specFlags, reachable func()) error {
	d := sandboxes.Dir(name)
	if f == nil || f.flags.NFlag() == 0 { // the common case takes no lock
		if st, err := d.State(); err == nil && st.Phase == sandbox.Running {
			spec, err := d.Spec()
			switch {
			case err != nil:
				return err
			case f == nil:
				warnProject(spec)
				return nil
			}
			return stayRunning(ctx, d, spec)
		}
	}
	var l *lockfile.Lock
	err := showing("Waiting for another bawn that starts or changes the sandbox", func() (err error) {
		l, err = d.LockStart(ctx)
		return err
	})
	if err != nil {
		return err
	}
	defer l.Close()
	spec, err := d.Spec()
	if err != nil {
		return err
	}
	was := *spec
	was.Ports = slices.Clone(spec.Ports) // addPort changes it in place
	if f == nil {
		warnProject(spec)
	}
	st, err := d.State()
	if err != nil {
		return err
	}
	changed, err := specChange(spec, f, st.Phase)
	if err != nil {
		return err
	}
	if err := f.applyRules(ctx, name); err != nil {
		return err
	}
	switch st.Phase {
	case sandbox.Running:
		if len(changed) > 0 {
			return hint(fmt.Errorf("sandbox %s is running, and %s takes effect at a start", name, strings.Join(changed, ", ")), "bawn stop %s, then again", name)
		}
		return showing("Waiting for the sandbox to answer", func() error {
			return errors.Join(publishNew(ctx, d, spec), stayRunning(ctx, d, spec))
		})
	case sandbox.Starting: // who launched it was killed
		if err := showing("Waiting for the sandbox's start", func() error { return launch.AwaitStart(ctx, d) }); err != nil {
			return err
		}
		l.Close()
		return bringUp(ctx, sandboxes, name, f, reachable)
	case sandbox.Stopping:
		if err := showing("Waiting for the sandbox's stop", func() error { return launch.AwaitExit(ctx, d) }); err != nil {
			return err
		}
	}
	if err := syncRules(ctx, d, spec); err != nil {
		return err
	}
	if err := f.portsFree(spec); err != nil {
		return err
	}
	err = boot(ctx, sandboxes, spec, reachable)
	if err != nil && ctx.Err() == nil {
		return errors.Join(err, takeBack(d, &was))
	}
	return err
}

// portsFree finds a port of the host that is taken before a machine is started for
// nothing, and before the spec says that it is to be published.
func (f *specFlags) portsFree(spec *sandbox.Spec) error {
	var given []sandbox.Port
	if f != nil {
		given, _ = parsePorts(f.ports) // they were read before
	}
	for _, p := range spec.Ports {
		err := publish.Check(p)
		switch {
		case err == nil:
		case slices.Contains(given, p):
			return err
		case slices.Contains(spec.Project.Ports, p):
			return hint(err, "another in %s, then bawn trust; or --no-project-file to go without", project.Name)
		default: // an earlier command gave it
			return hint(err, "bawn port --name %s --remove %d, to go without it", spec.Name, p.Host)
		}
	}
	return nil
}

// applyRules adds the rules of --allow and --deny to the sandbox's own.
func (f *specFlags) applyRules(ctx context.Context, name string) error {
	if f == nil {
		return nil
	}
	s := scope{name: name}
	for _, c := range f.ruleChanges() {
		if err := s.change(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// ruleChanges are the rules of --allow and --deny.
func (f *specFlags) ruleChanges() (list []engine.RuleChange) {
	if len(f.allow) > 0 {
		list = append(list, engine.RuleChange{Action: policy.Allow, Rules: f.allow})
	}
	if len(f.deny) > 0 {
		list = append(list, engine.RuleChange{Action: policy.Deny, Rules: f.deny})
	}
	return list
}

// checkRules finds mistakes in --allow and --deny before anything is made.
func (f *specFlags) checkRules() error {
	for _, c := range f.ruleChanges() {
		if err := c.Check(); err != nil {
			return (&scope{}).hint(err)
		}
	}
	return nil
}

// specChange makes the spec what the flags and the approved bawn.yaml say. While
// the sandbox runs, what bawn.yaml added at its start stays.
func specChange(spec *sandbox.Spec, f *specFlags, phase sandbox.Phase) (changed []string, err error) {
	if f == nil {
		f = noFlags()
	}
	was := *spec
	if f.flags.Changed("no-project-file") {
		spec.NoProject = f.noProject
	}
	add := spec.Project
	if phase != sandbox.Running && phase != sandbox.Starting {
		if add, err = approvedAdditions(spec); err != nil {
			return nil, err
		}
	}
	if changed, err = f.apply(spec, add); err != nil {
		return nil, err
	}
	if spec.Boot.ImageDigest != "" { // started before: its disk is laid over that image
		if slices.Contains(changed, "--image") {
			return nil, hint(fmt.Errorf("sandbox %s was made from another image, which cannot be changed", spec.Name), "bawn rm %s, or another --name", spec.Name)
		}
		if spec.Disk < was.Disk && slices.Contains(changed, "--disk") {
			return nil, hint(fmt.Errorf("the disk of sandbox %s is %s and cannot shrink", spec.Name, size.Format(was.Disk)), "bawn rm %s, then again", spec.Name)
		}
		keepDisk(spec, &was)
	}
	return changed, spec.Check()
}

// noFlags are flags that nobody gave.
func noFlags() *specFlags {
	f := &specFlags{}
	f.register(pflag.NewFlagSet("", pflag.ContinueOnError))
	return f
}

// publishNew opens the ports of the spec that are not open yet and keeps the spec.
func publishNew(ctx context.Context, d store.Dir, spec *sandbox.Spec) error {
	if _, err := control.NewClient(d.DialControl).OpenPorts(ctx, spec.Ports); err != nil {
		return err
	}
	return d.WriteSpec(spec)
}

// boot brings a stopped sandbox up. The caller holds its start lock.
func boot(ctx context.Context, sandboxes *store.Store, spec *sandbox.Spec, reachable func()) error {
	if err := checkShares(sandboxes, spec); err != nil {
		return err
	}
	d := sandboxes.Dir(spec.Name)
	cache, err := xdg.Cache()
	if err != nil {
		return err
	}
	if _, err := qemu.Find(ctx, cache); err != nil { // before minutes are spent on an image
		return hint(err, "bawn doctor")
	}
	bar := newBars(os.Stderr)
	defer bar.close()
	b, err := prepare(ctx, spec, suspended(d), bar)
	if err != nil {
		return err
	}
	spec.Boot = *b
	if err := checkMachine(ctx, bar); err != nil {
		return err
	}
	if err := session.MakeKeys(d, spec.Name); err != nil {
		return err
	}
	if err := d.WriteSpec(spec); err != nil {
		return err
	}
	lock, err := admit(ctx, sandboxes, spec)
	if err != nil {
		return err
	}
	return start(ctx, sandboxes, spec, lock, bar, reachable)
}

// checkMachine finds out, once per boot of this host, whether KVM works; the supervisor then finds the same answer at once.
func checkMachine(ctx context.Context, bar *bars) error {
	cache, err := xdg.Cache()
	if err != nil {
		return err
	}
	task := bar.Start("Trying KVM", 0, progress.Steps)
	a, err := qemu.Accelerator(ctx, cache)
	task.Done(err)
	if err != nil {
		return err
	}
	bar.around(func() { tellAccel(a) })
	return nil
}

// start runs a supervisor, which takes the sandbox's lock over, or lets one that
// waits become the sandbox's, and waits until the sandbox is ready.
func start(ctx context.Context, sandboxes *store.Store, spec *sandbox.Spec, lock *lockfile.Lock, r *bars, reachable func()) error {
	d := sandboxes.Dir(spec.Name)
	task := r.Start("Starting the sandbox", 0, progress.Steps)
	on := launch.Progress{Stage: task.Note, Reachable: reachable}
	how, waited, err := claimWaiting(ctx, sandboxes, spec, lock, on)
	if waited && err != nil && ctx.Err() == nil {
		r.around(func() {
			fmt.Fprintf(os.Stderr, "bawn: the machine that waited did not become the sandbox's, which starts without it: %v\n", err)
		})
		waited = false
		lock, err = d.Lock()
	}
	if err == nil && !waited {
		how, err = startWithRetry(ctx, d, lock, on, r)
	}
	task.Done(err)
	for _, n := range how.Notes {
		r.around(func() { fmt.Fprintln(os.Stderr, "bawn:", n) })
	}
	if err != nil && ctx.Err() == nil {
		return hint(err, "%s", lookInto(sandboxes, spec))
	}
	if err == nil {
		readyNext(sandboxes, d, how.Cold)
	}
	return err
}

// lookInto is where to look when a sandbox failed: it, or what is left of it, will
// be there when the person reads it.
func lookInto(sandboxes *store.Store, spec *sandbox.Spec) string {
	if spec.Throwaway {
		return "the same without --rm, which keeps the sandbox and its logs"
	}
	if _, err := sandboxes.Dir(spec.Name).Spec(); store.IsNotFound(err) {
		return "bawn ls"
	}
	return "bawn ls, then bawn logs " + spec.Name
}

// startWithRetry starts a supervisor, and once more if the guest's kernel panicked or QEMU
// crashed as it started: nothing of the person's had run.
func startWithRetry(ctx context.Context, d store.Dir, lock *lockfile.Lock, on launch.Progress, r *bars) (launch.Result, error) {
	how, err := launch.Start(ctx, d, lock, on)
	if !launch.Crashed(err) || ctx.Err() != nil {
		return how, err
	}
	r.around(func() { fmt.Fprintf(os.Stderr, "bawn: starting it once more: %s\n", printable(err.Error())) })
	if lock, err = d.Lock(); err != nil {
		return how, err
	}
	return launch.Start(ctx, d, lock, on)
}

// readyNext makes the next start quick. If this fails it is as slow as this one
// was, and the sandbox's log says why.
func readyNext(sandboxes *store.Store, d store.Dir, cold bool) {
	if cold {
		_ = templatebuild.Launch(d) // fills the pool as well
	} else if n, err := poolSize(sandboxes); err == nil && n > 0 {
		_ = pool.LaunchTopUp(d)
	}
}

func nameOf(d store.Dir) string { return d.Path[strings.LastIndexByte(d.Path, '/')+1:] }

// prepare makes or finds what the sandbox boots from, or goes on with.
func prepare(ctx context.Context, spec *sandbox.Spec, suspended bool, r progress.Reporter) (*sandbox.Boot, error) {
	cache, err := xdg.Cache()
	if err != nil {
		return nil, err
	}
	k, err := kernelFor(ctx, kernel.Open(cache), spec, suspended, r)
	if err != nil {
		return nil, err
	}
	initrd, err := initramfs.Cached(ctx, cache, k.BootModules)
	if err != nil {
		return nil, err
	}
	ref := spec.Image
	if spec.Boot.ImageDigest != "" {
		ref = spec.Boot.ImageDigest // a newer image of that name must not slip under an old disk
	}
	img, err := image.Open(cache).Get(ctx, ref, r)
	if err != nil {
		return nil, err
	}
	return &sandbox.Boot{
		KernelVersion: k.Version, Kernel: k.Image, Modules: k.Modules, Initrd: initrd,
		ImageDigest: img.Digest, Image: img.Path, ImageEnv: img.Env,
	}, nil
}

// kernelFor is the newest kernel, or the one that a suspended machine runs, as long as
// the cache has it.
func kernelFor(ctx context.Context, kernels *kernel.Store, spec *sandbox.Spec, suspended bool, r progress.Reporter) (*kernel.Kernel, error) {
	if suspended {
		if k, err := kernels.At(spec.Boot.Kernel); err == nil {
			return k, nil
		}
	}
	return kernels.Kernel(ctx, r)
}

// guestUser is the person who runs bawn, as the guest knows them.
func guestUser() wire.User {
	u := wire.User{Name: "user", Group: "user", UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), Home: "/home/user"}
	if me, err := user.Current(); err == nil && me.Username != "" {
		u.Name, u.Group, u.Home = me.Username, me.Username, me.HomeDir
		if g, err := user.LookupGroupId(me.Gid); err == nil {
			u.Group = g.Name
		}
	}
	if u.UID == 0 {
		u.Name, u.Group, u.Home = "root", "root", "/root"
	}
	return u
}

// remove stops the sandbox, if it runs, and deletes it.
func remove(ctx context.Context, sandboxes *store.Store, name string, force bool) error {
	d := sandboxes.Dir(name)
	l, err := d.LockStart(ctx)
	if err != nil {
		return err
	}
	defer l.Close()
	st, err := d.State()
	if err != nil && !force {
		return err
	}
	if st.Phase != sandbox.Stopped && st.Phase != sandbox.Dead {
		if !force {
			return hint(fmt.Errorf("sandbox %s is %s", name, st.Phase), "bawn stop %s, or bawn rm --force %s", name, name)
		}
		if err := halt(ctx, d, true); err != nil {
			return err
		}
	}
	return d.Remove()
}

// forceLimit is how long a supervisor may take to pull the plug. One that stands
// still never does.
const forceLimit = 10 * time.Second

// stopLimit is how long a supervisor may take to stop a sandbox: twice what it gives
// the guest.
const stopLimit = 2 * time.Minute

// stopPatience is how long a guest may take to shut down before the person hears
// what the stop waits for.
const stopPatience = 5 * time.Second

// halt stops a sandbox and waits until its supervisor is gone.
func halt(ctx context.Context, d store.Dir, force bool) error {
	if force {
		return showing("Stopping "+nameOf(d), func() error { return pullPlug(ctx, d, forceLimit) })
	}
	bar := newBars(os.Stderr)
	defer bar.close()
	late := time.AfterFunc(stopPatience, func() {
		bar.around(func() {
			fmt.Fprintf(os.Stderr, "bawn: waiting for the guest to shut down; one that does not within a minute is turned off\n  try: bawn stop --force %s, to do so now\n", nameOf(d))
		})
	})
	defer late.Stop()
	task := bar.Start("Stopping "+nameOf(d), 0, progress.Steps)
	err := shutDown(ctx, d, stopLimit)
	task.Done(err)
	return err
}

// shutDown lets a sandbox's guest shut down.
func shutDown(ctx context.Context, d store.Dir, limit time.Duration) error {
	asking, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := errors.Join(control.NewClient(d.DialControl).Stop(asking, false), launch.AwaitExit(asking, d))
	if asking.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("the supervisor of %s does not answer", nameOf(d))
	}
	return err
}

// pullPlug ends a sandbox at once: through its supervisor or, if that does not do
// it in time, together with it.
func pullPlug(ctx context.Context, d store.Dir, limit time.Duration) error {
	asking, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := control.NewClient(d.DialControl).Stop(asking, true)
	if err == nil {
		err = launch.AwaitExit(asking, d)
	}
	if err == nil || ctx.Err() != nil {
		return err
	}
	if err := launch.Kill(ctx, d); err != nil {
		return err
	}
	return d.WriteState(sandbox.State{Phase: sandbox.Stopped})
}
