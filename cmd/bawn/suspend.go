package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/snapshot"
	"bawn.dev/bawn/internal/supervisor/launch"
)

func suspendCommand() *cobra.Command {
	var force, all bool
	c := &cobra.Command{
		Use:   "suspend [NAME...]",
		Short: "Write sandboxes with all that runs in them to disk; the next command goes on there",
		Long: `Write sandboxes with all that runs in them to disk, and free their memory. The
next run, exec or shell goes on there, in about a second. Programs do not notice,
but for the time that has passed and for connections to the world, which are cut. A
file of the project that is renamed, replaced or removed on the host meanwhile is
stale (ESTALE) to those that have it open.

A sandbox in which a command or a shell is attached stays as it is, except with
--force, which ends them.`,
		ValidArgsFunction: completeNames,
		RunE: func(c *cobra.Command, args []string) error {
			return each(args, all, func(sandboxes *store.Store, name string) error {
				return suspend(c.Context(), sandboxes.Dir(name), force)
			})
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "end the commands and shells that are attached")
	c.Flags().BoolVarP(&all, "all", "a", false, "suspend all sandboxes that run")
	return c
}

func suspend(ctx context.Context, d store.Dir, force bool) error {
	l, err := d.LockStart(ctx)
	if err != nil {
		return err
	}
	defer l.Close()
	st, err := d.State()
	if err != nil {
		return err
	}
	switch st.Phase {
	case sandbox.Running:
	case sandbox.Stopped:
		return nil // suspended or off, it takes no memory
	default:
		return fmt.Errorf("sandbox %s is %s", nameOf(d), st.Phase)
	}
	return showing("Suspending "+nameOf(d), func() error {
		if err := control.NewClient(d.DialControl).Suspend(ctx, force); err != nil {
			if control.ReasonOf(err) == control.ReasonAttached { // report has a better hint
				return err
			}
			return hint(err, "bawn logs --supervisor %s", nameOf(d))
		}
		return launch.AwaitExit(ctx, d)
	})
}

func resumeCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "resume [NAME]",
		Short:             "Let a suspended sandbox go on, without running a command",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeName,
		RunE: func(c *cobra.Command, args []string) error {
			sandboxes, spec, err := named(args)
			if err != nil {
				return err
			}
			d := sandboxes.Dir(spec.Name)
			if st, err := d.State(); err != nil || st.Phase == sandbox.Running {
				return err
			}
			if !suspended(d) {
				return hint(fmt.Errorf("sandbox %s is not suspended", spec.Name), "bawn exec %s -- COMMAND starts it", spec.Name)
			}
			return ensureRunning(c.Context(), sandboxes, spec.Name)
		},
	}
}

// suspended says whether a sandbox that does not run would go on where it was.
func suspended(d store.Dir) bool { return snapshot.Exists(d.File(store.SuspendedState)) }

// forgetSuspended removes what a sandbox was suspended as: it is to be off.
func forgetSuspended(d store.Dir) error {
	s, err := snapshot.Open(d.File(store.SuspendedState))
	if errors.Is(err, snapshot.ErrNone) {
		return nil
	}
	if err != nil {
		s = &snapshot.Snapshot{Path: d.File(store.SuspendedState)}
	}
	return s.Remove()
}
