package main

import (
	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/engine"
)

func suspendCommand() *cobra.Command {
	var force, all bool
	c := &cobra.Command{
		Use:   "suspend [NAME...]",
		Short: "Save running sandboxes to disk and free their memory; the next command resumes them",
		Long: `Save running sandboxes with all their processes to disk, and free their memory. The
next run, exec or shell resumes them, in about a second. Processes continue where
they were; network connections to the outside are cut. Programs that have a project
file open which is renamed, replaced or removed on the host meanwhile get an error
(ESTALE) when they use it.

A sandbox to which a command or a shell is attached is not suspended, except with
--force, which ends these commands and shells.`,
		ValidArgsFunction: completeNames,
		RunE: func(c *cobra.Command, args []string) error {
			return each(args, all, func(e *engine.Engine, name string) error {
				return e.Suspend(c.Context(), name, force)
			})
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "end the commands and shells that are attached")
	c.Flags().BoolVarP(&all, "all", "a", false, "suspend all running sandboxes")
	return c
}

func resumeCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "resume [NAME]",
		Short:             "Resume a suspended sandbox without running a command",
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
