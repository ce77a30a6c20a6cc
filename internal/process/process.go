// Package process has the main functions of the processes that bawn starts of its own
// program: supervisors, pool members, template builders, share servers and the step that
// confines another program. A front end runs the one whose verb is its first argument.
package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"bawn.dev/bawn/internal/confine"
	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/share"
	"bawn.dev/bawn/internal/supervisor"
	"bawn.dev/bawn/internal/supervisor/handoff"
	"bawn.dev/bawn/internal/supervisor/templatebuild"
)

// Verb is one kind of process.
type Verb struct {
	Name string
	// Run is its main function. It gets the arguments that follow the verb as they are,
	// and returns when the process is to end.
	Run func(ctx context.Context, args []string) error
}

// Verbs are all kinds. Their names begin with two underscores.
func Verbs() []Verb {
	return []Verb{
		{handoff.SuperviseVerb, inFolder(supervise)},
		{handoff.PoolMemberVerb, inFolder(poolMember)},
		{handoff.TopUpVerb, ofSandbox(topUpPool)},
		{handoff.AgentsVerb, ofSandbox(updateAgents)},
		{handoff.CachesVerb, ofSandbox(fillCaches)},
		{handoff.TemplateVerb, ofSandbox(buildTemplate)},
		{handoff.ShareVerb, serveShare},
		{confine.Verb, func(_ context.Context, args []string) error { return confine.Main(args) }},
	}
}

// inFolder is a main function whose argument is a sandbox's folder.
func inFolder(run func(context.Context, store.Dir) error) func(context.Context, []string) error {
	return func(ctx context.Context, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("%d arguments: expected one, the sandbox's folder", len(args))
		}
		return run(ctx, store.Dir{Path: args[0]})
	}
}

// ofSandbox is inFolder for a main function that uses the engine and the sandbox's spec.
func ofSandbox(run func(context.Context, *engine.Engine, *sandbox.Spec) error) func(context.Context, []string) error {
	return inFolder(func(ctx context.Context, d store.Dir) error {
		e, err := engine.Open(engine.Options{})
		if err != nil {
			return err
		}
		spec, err := d.Spec()
		if err != nil {
			return err
		}
		return run(ctx, e, spec)
	})
}

// supervise runs the supervisor of a sandbox.
func supervise(ctx context.Context, d store.Dir) error {
	return supervisor.Run(ctx, d, engine.GuestUser())
}

// poolMember runs the supervisor of a pool member, which becomes that of a sandbox.
func poolMember(ctx context.Context, d store.Dir) error {
	return supervisor.RunPoolMember(ctx, d, engine.GuestUser(), func(ctx context.Context) error { return engine.WarmUp(ctx, d) })
}

// topUpDelay is how long a start has the processors for itself before the next pool
// machine is started.
const topUpDelay = 2 * time.Second

// topUpPool tops the pool up with machines of a sandbox's kind.
func topUpPool(ctx context.Context, e *engine.Engine, spec *sandbox.Spec) error {
	select { // the command that the sandbox was started for comes first
	case <-time.After(topUpDelay):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return e.TopUpPool(ctx, spec)
}

// updateAgents installs newer versions of a sandbox's agents, for new sandboxes.
func updateAgents(ctx context.Context, e *engine.Engine, spec *sandbox.Spec) error {
	return e.UpdateAgents(ctx, spec)
}

// fillCaches fetches the packages that the caches of a sandbox lack. What is wrong goes to the log.
func fillCaches(ctx context.Context, e *engine.Engine, spec *sandbox.Spec) error {
	results, err := e.FillCachesInTurn(ctx, spec.Name)
	for _, r := range results {
		if r.Why != "" {
			err = errors.Join(err, fmt.Errorf("packages of %s: %s", r.Kind, r.Why))
		}
	}
	return err
}

// buildTemplate makes the template that the next sandbox of that kind starts from, and
// then tops the pool up.
func buildTemplate(ctx context.Context, e *engine.Engine, spec *sandbox.Spec) error {
	if err := templatebuild.Make(ctx, spec, engine.GuestUser()); err != nil {
		return err
	}
	return e.TopUpPool(ctx, spec)
}

// serveShare serves one share, as the supervisor says on the inherited socket.
func serveShare(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%d arguments: expected one, the share's options", len(args))
	}
	var opt share.Options
	if err := json.Unmarshal([]byte(args[0]), &opt); err != nil {
		return fmt.Errorf("share options: %w", err)
	}
	control := os.NewFile(handoff.ShareFD, "control")
	p, level, err := share.Prepare(opt)
	if err != nil {
		return err
	}
	if !level.Full() {
		fmt.Fprintf(os.Stderr, "share %s: %s\n", opt.Root, level)
	}
	return p.Serve(ctx, control)
}
