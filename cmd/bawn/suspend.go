package main

import (
	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/engine"
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
			return each(args, all, func(e *engine.Engine, name string) error {
				return e.Suspend(c.Context(), name, force)
			})
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "end the commands and shells that are attached")
	c.Flags().BoolVarP(&all, "all", "a", false, "suspend all sandboxes that run")
	return c
}

func resumeCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "resume [NAME]",
		Short:             "Let a suspended sandbox go on, without running a command",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeName,
		RunE: func(c *cobra.Command, args []string) error {
			e, spec, err := namedSandbox(args)
			if err != nil {
				return err
			}
			return e.Resume(c.Context(), spec.Name)
		},
	}
}
