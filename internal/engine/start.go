package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/supervisor/launch"
	"bawn.dev/bawn/internal/sys/lockfile"
)

// This file brings a sandbox up:
//
//	EnsureRunning   returns at once if the sandbox runs; otherwise takes its start lock,
//	                changes its spec, and
//	boot            (boot.go) makes what it boots from, checks that there is room, and
//	start           (boot.go) claims a pool machine or launches a supervisor.
//
// The start lock is held from the look at the phase until the sandbox runs, so that two
// processes that start it at once do not interfere.

// EnsureRunning starts the sandbox if it does not run, and returns when it is ready. It
// applies what is approved of the project's bawn.yaml; one that is not approved in
// its present form is a notice.
func (e *Engine) EnsureRunning(ctx context.Context, name string) error {
	if _, err := e.folder(name); err != nil {
		return err
	}
	return e.ensureRunning(ctx, name, startup{})
}

// startup has the options of one start.
type startup struct {
	// change is applied to its spec: at once what can be changed live, the rest only
	// while it is stopped. It is nil if the sandbox was only named: then the user was not
	// asked about its bawn.yaml.
	change *SpecChange
	// reachable, if not nil, is called if the sandbox is started, as soon as its guest
	// can be dialled.
	reachable func()
}

func (e *Engine) ensureRunning(ctx context.Context, name string, s startup) error {
	d := e.sandboxes.Dir(name)
	if s.change.empty() { // the common case takes no lock
		if st, err := d.State(); err == nil && st.Phase == sandbox.Running {
			followed := e.during("Waiting for the sandbox to answer", func() error { return followShares(ctx, d) })
			return errors.Join(followed, e.stayRunning(ctx, d, s))
		}
	}
	for {
		again, err := e.startLocked(ctx, d, s)
		if err != nil || !again {
			return err
		}
	}
}

// followShares makes a running sandbox see what lies at the paths that it shares now.
func followShares(ctx context.Context, d store.Dir) error {
	err := control.NewClient(d.DialControl).FollowShares(ctx)
	if reason := control.ReasonOf(err); reason == control.ReasonVersion || reason == control.ReasonNoAnswer {
		return nil // it cannot, or it has just ended
	}
	return err
}

// stayRunning handles a sandbox that runs and whose spec does not change.
func (e *Engine) stayRunning(ctx context.Context, d store.Dir, s startup) error {
	spec, err := d.Spec()
	if err != nil {
		return err
	}
	if s.change == nil {
		e.warnProject(spec)
		return nil
	}
	return e.syncRunning(ctx, d, spec)
}

// startLocked applies the change and starts the sandbox, under its start lock. It asks
// to be called again after it has waited for another process's start.
func (e *Engine) startLocked(ctx context.Context, d store.Dir, s startup) (again bool, err error) {
	l, err := e.lockStart(ctx, d)
	if err != nil {
		return false, err
	}
	defer l.Close()
	spec, err := d.Spec()
	if err != nil {
		return false, err
	}
	was := *spec
	if s.change == nil {
		e.warnProject(spec)
	}
	st, err := d.State()
	if err != nil {
		return false, err
	}
	change, later := s.change, (*sandbox.Agent)(nil)
	if change != nil && change.Agent != nil && (st.Phase == sandbox.Running || suspended(d)) {
		// It is added to the machine that goes on: a suspended one is resumed as it was saved.
		without := *change
		change, later, without.Agent = &without, change.Agent, nil
	}
	changed, err := e.changeSpec(spec, change, st.Phase)
	if err != nil {
		return false, err
	}
	if err := e.addRules(ctx, spec.Name, s.change); err != nil {
		return false, err
	}
	switch st.Phase {
	case sandbox.Running:
		return false, errors.Join(e.changeRunning(ctx, d, spec, changed), e.addAgent(ctx, d, later))
	case sandbox.Starting: // the process that launched it was killed, and its lock is free
		return true, e.during("Waiting for the sandbox to start", func() error { return launch.AwaitStart(ctx, d) })
	case sandbox.Stopping:
		if err := e.during("Waiting for the sandbox to stop", func() error { return launch.AwaitExit(ctx, d) }); err != nil {
			return false, err
		}
	}
	if err := e.startStopped(ctx, d, spec, &was, s); err != nil {
		return false, err
	}
	return false, e.addAgent(ctx, d, later)
}

// lockStart takes the right to start, change or remove a sandbox.
func (e *Engine) lockStart(ctx context.Context, d store.Dir) (l *lockfile.Lock, err error) {
	err = e.during("Waiting for another bawn command that starts or changes the sandbox", func() error {
		l, err = d.LockStart(ctx)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		if _, none := d.Spec(); store.IsNotFound(none) { // it was removed meanwhile
			err = none
		}
	}
	return l, err
}

// lockNames takes the right to make sandboxes, and to take the lock of one that is to start.
func (e *Engine) lockNames(ctx context.Context) (l *lockfile.Lock, err error) {
	err = e.during("Waiting for another bawn command that creates or starts a sandbox", func() error {
		l, err = e.sandboxes.LockNames(ctx)
		return err
	})
	return l, err
}

// addRules adds the rules of a change to the sandbox's own.
func (e *Engine) addRules(ctx context.Context, name string, c *SpecChange) error {
	for _, change := range c.rules() {
		overruled, err := e.ChangeRules(ctx, Scope{Sandbox: name}, change)
		for _, o := range overruled {
			e.notify(Notice{Reason: RuleOverruled, Sandbox: name, Text: fmt.Sprintf("%s stays denied, because a deny rule wins: %q (%s)", o.Rule.Text, &o.By, ruleSource(&o.By))})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// ruleSource returns the place where a rule was read.
func ruleSource(r *policy.Rule) string {
	from := fmt.Sprintf("%s:%d", r.Source.File, r.Source.Line)
	if r.Preset != "" {
		from = "preset:" + r.Preset + ", " + from
	}
	return from
}

// warnRules reports that a sandbox's rules cannot be loaded: without a network most
// commands fail without a hint at the cause.
func (e *Engine) warnRules(name string) {
	if err := e.CheckRules(name); err != nil {
		e.notify(Notice{Reason: RulesSyntax, Sandbox: name, Text: "all network traffic is denied, because the rules have a mistake: " + err.Error(), Err: err})
	}
}

// changeRunning applies a changed spec to a running sandbox: it opens the ports. A change
// that takes effect at a start is an error.
func (e *Engine) changeRunning(ctx context.Context, d store.Dir, spec *sandbox.Spec, changed []string) error {
	if len(changed) > 0 {
		return &Error{Reason: NeedsRestart, Sandbox: spec.Name, Fields: changed,
			Err: fmt.Errorf("sandbox %s is running; changes to %s take effect at its next start", spec.Name, strings.Join(changed, ", "))}
	}
	return e.during("Waiting for the sandbox to answer", func() error {
		return errors.Join(followShares(ctx, d), publishNew(ctx, d, spec), e.syncRunning(ctx, d, spec))
	})
}

// publishNew opens the ports of the spec that are not open yet and keeps the spec.
func publishNew(ctx context.Context, d store.Dir, spec *sandbox.Spec) error {
	if _, err := control.NewClient(d.DialControl).OpenPorts(ctx, spec.Ports); err != nil {
		return err
	}
	return d.WriteSpec(spec)
}

// startStopped starts a sandbox that does not run. If that fails, the sandbox gets back what
// restoreMountsAndPorts restores.
func (e *Engine) startStopped(ctx context.Context, d store.Dir, spec, was *sandbox.Spec, s startup) error {
	if err := e.syncRules(ctx, d, spec); err != nil {
		return err
	}
	if err := e.checkSigning(ctx, spec); err != nil {
		return err
	}
	if err := portsFree(spec, s.change); err != nil {
		return err
	}
	if err := e.claimDirectories(ctx, spec, suspended(d)); err != nil {
		return errors.Join(err, restoreMountsAndPorts(d, was))
	}
	e.sayHidden(spec)
	e.sayMissingSecrets(spec)
	e.sayLocalDirs(spec)
	e.sayDevcontainer(spec)
	err := e.boot(ctx, spec, s.reachable)
	if err != nil && ctx.Err() == nil {
		return errors.Join(err, restoreMountsAndPorts(d, was))
	}
	return err
}

// claimDirectories gives a sandbox that is about to start the directories that one sandbox at a
// time may write to.
func (e *Engine) claimDirectories(ctx context.Context, spec *sandbox.Spec, resumed bool) error {
	if err := e.claimVolumes(ctx, spec); err != nil {
		return err
	}
	if resumed { // its machine has the homes that it was saved with
		return nil
	}
	return e.chooseHomes(ctx, spec)
}
