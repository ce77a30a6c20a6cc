package engine

import (
	"context"
	"errors"

	"bawn.dev/bawn/internal/image"
	"bawn.dev/bawn/internal/initramfs"
	"bawn.dev/bawn/internal/kernel"
	"bawn.dev/bawn/internal/progress"
	"bawn.dev/bawn/internal/qemu"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/session"
	"bawn.dev/bawn/internal/supervisor/launch"
	"bawn.dev/bawn/internal/supervisor/pool"
	"bawn.dev/bawn/internal/supervisor/templatebuild"
	"bawn.dev/bawn/internal/sys/lockfile"
	"bawn.dev/bawn/internal/sys/settings"
	"bawn.dev/bawn/internal/sys/xdg"
)

// boot starts a sandbox that does not run, or resumes a suspended one. The caller
// holds its start lock.
func (e *Engine) boot(ctx context.Context, spec *sandbox.Spec, reachable func()) error {
	if err := e.checkShares(spec); err != nil {
		return err
	}
	if err := settings.CheckCertificates(); err != nil { // the supervisor would refuse all connections by them
		return err
	}
	d := e.sandboxes.Dir(spec.Name)
	cache, err := xdg.Cache()
	if err != nil {
		return err
	}
	if _, err := qemu.Find(ctx, cache); err != nil { // before minutes are spent on an image
		return because(NoQEMU, spec.Name, err)
	}
	b, err := e.prepare(ctx, spec, suspended(d))
	if err != nil {
		return err
	}
	spec.Boot = *b
	if !spec.NoGitIdentity {
		spec.Boot.Author = gitAuthor(ctx, spec)
	}
	if err := e.checkAccelerator(ctx); err != nil {
		return err
	}
	if err := session.MakeKeys(d, spec.Name); err != nil {
		return err
	}
	if err := e.keepSSHConfig(d, spec.Name); err != nil {
		return err
	}
	if err := d.WriteSpec(spec); err != nil {
		return err
	}
	lock, err := e.admit(ctx, spec)
	if err != nil {
		return err
	}
	return e.start(ctx, spec, lock, reachable)
}

// prepare finds or makes the files that the sandbox boots or resumes from.
func (e *Engine) prepare(ctx context.Context, spec *sandbox.Spec, suspended bool) (*sandbox.Boot, error) {
	cache, err := xdg.Cache()
	if err != nil {
		return nil, err
	}
	ref := spec.Image
	if spec.Boot.ImageDigest != "" {
		ref = spec.Boot.ImageDigest // a newer image of that name must not slip under an old disk
	}
	// The image comes first: what it lacks to be built shows at once, and the kernel takes a minute.
	img, err := image.Open(cache).Get(ctx, ref, e.progress())
	if err != nil {
		return nil, err
	}
	k, err := e.kernelFor(ctx, kernel.Open(cache), spec, suspended)
	if err != nil {
		return nil, err
	}
	initrd, err := initramfs.Cached(ctx, cache, k.BootModules)
	if err != nil {
		return nil, err
	}
	caches, err := cacheSources(spec, img.Env)
	if err != nil {
		return nil, err
	}
	if suspended { // its machine has them where it had them
		caches = spec.Boot.Caches
	}
	return &sandbox.Boot{
		KernelVersion: k.Version, Kernel: k.Image, Modules: k.Modules, Initrd: initrd,
		ImageDigest: img.Digest, Image: img.Path, ImageEnv: img.Env,
		Volumes: e.volumes().Root(), Caches: caches,
	}, nil
}

// kernelFor returns the newest kernel or, for a suspended machine, the one that it runs if
// the cache still has it.
func (e *Engine) kernelFor(ctx context.Context, kernels *kernel.Store, spec *sandbox.Spec, suspended bool) (*kernel.Kernel, error) {
	if suspended {
		if k, err := kernels.At(spec.Boot.Kernel); err == nil {
			return k, nil
		}
	}
	return kernels.Kernel(ctx, e.progress())
}

// checkAccelerator finds out whether KVM works; the supervisor then finds the kept answer.
func (e *Engine) checkAccelerator(ctx context.Context) error {
	cache, err := xdg.Cache()
	if err != nil {
		return err
	}
	var a qemu.Accel
	err = e.during("Testing KVM", func() error {
		a, err = qemu.Accelerator(ctx, cache)
		return err
	})
	if err == nil && !a.OK() {
		reason := SoftwareEmulation
		if a.Unsettled {
			reason = KVMUnsettled
		}
		e.notify(Notice{Reason: reason, Text: a.Reason, Remedy: a.Remedy, Detail: a.Output})
	}
	return err
}

// start claims a machine of the warm pool or launches a supervisor, either of which
// takes the sandbox's lock over, and returns when the sandbox is ready.
func (e *Engine) start(ctx context.Context, spec *sandbox.Spec, lock *lockfile.Lock, reachable func()) error {
	if reachable == nil {
		reachable = func() {}
	}
	d := e.sandboxes.Dir(spec.Name)
	task := e.progress().Start("Starting "+spec.Name, 0, progress.Steps)
	on := launch.Progress{Stage: task.Note, Reachable: reachable}
	how, claimed, err := e.claim(ctx, spec, lock, on)
	if claimed && err != nil && ctx.Err() == nil {
		e.notify(Notice{Reason: PoolMemberFailed, Sandbox: spec.Name, Text: "could not use a pool machine, starting a new virtual machine", Err: err})
		claimed = false
		lock, err = d.Lock()
	}
	if err == nil && !claimed {
		how, err = e.startTwice(ctx, d, lock, on)
	}
	task.Done(err)
	for _, n := range how.Notes {
		e.notify(Notice{Reason: StartNote, Sandbox: spec.Name, Text: n})
	}
	switch {
	case err != nil && ctx.Err() != nil:
	case errors.Is(err, launch.ErrNoReason):
		return e.lost(SupervisorDied, spec, err)
	case err != nil:
		return e.lost(StartFailed, spec, err)
	default:
		e.prepareNext(d, how.Cold)
		updateAgents(d, spec)
		fillCaches(d, spec)
	}
	return err
}

// lost returns the error of a sandbox that failed. It names the sandbox only if that still
// exists, so that a front end does not point to logs that are gone.
func (e *Engine) lost(r Reason, spec *sandbox.Spec, err error) error {
	failed := &Error{Reason: r, Throwaway: spec.Throwaway, Err: err}
	if _, err := e.sandboxes.Dir(spec.Name).Spec(); !store.IsNotFound(err) {
		failed.Sandbox = spec.Name
	}
	return failed
}

// startTwice starts a supervisor, and once more if the guest's kernel panicked or QEMU
// crashed as it started: no command of the user had run.
func (e *Engine) startTwice(ctx context.Context, d store.Dir, lock *lockfile.Lock, on launch.Progress) (launch.Result, error) {
	how, err := launch.Start(ctx, d, lock, on)
	if !launch.Crashed(err) || ctx.Err() != nil {
		return how, err
	}
	e.notify(Notice{Reason: StartRepeated, Sandbox: nameOf(d), Text: "the start failed, trying once more", Err: err})
	if lock, err = d.Lock(); err != nil {
		return how, err
	}
	return launch.Start(ctx, d, lock, on)
}

// prepareNext makes the next start quick, in the background. If this fails, that start
// is as slow as this one was, and the sandbox's log says why.
func (e *Engine) prepareNext(d store.Dir, cold bool) {
	if cold {
		_ = templatebuild.Launch(d) // fills the pool as well
	} else if n, err := e.PoolSize(); err == nil && n > 0 {
		_ = pool.LaunchTopUp(d)
	}
}
