package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/engine"
)

// stopsAtOnce is how many sandboxes stop at the same time. A stop mostly waits for the guest's
// programs.
const stopsAtOnce = 8

func stopCommand() *cobra.Command {
	var force, all bool
	c := &cobra.Command{
		Use:               "stop [NAME...]",
		Short:             "Stop sandboxes; their disks are kept",
		ValidArgsFunction: completeNames,
		RunE: func(c *cobra.Command, args []string) error {
			return eachAtOnce(stopsAtOnce, args, all, func(e *engine.Engine, name string) error {
				return e.Stop(c.Context(), name, force)
			})
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "turn the sandbox off at once, without shutting the guest down")
	c.Flags().BoolVarP(&all, "all", "a", false, "stop all sandboxes")
	return c
}

func rmCommand() *cobra.Command {
	var force, all bool
	c := &cobra.Command{
		Use: "rm [NAME...]", Aliases: []string{"remove"},
		Short:             "Remove sandboxes with their disks and snapshots; project files are kept",
		ValidArgsFunction: completeNames,
		RunE: func(c *cobra.Command, args []string) error {
			return each(args, all, func(e *engine.Engine, name string) error {
				spec, err := e.Named(name)
				if err != nil && !force && !all {
					return err // a damaged one is removed with --force
				}
				snapshots, _ := e.Snapshots(name) // no reason not to remove it
				if err := e.Remove(c.Context(), name, force); err != nil {
					return err
				}
				if n := len(snapshots); n > 0 {
					fmt.Fprintf(c.ErrOrStderr(), "bawn: removed %s of %s with it\n", count(n, "snapshot", "snapshots"), name)
				}
				if err == nil && spec.ProjectCopy() {
					fmt.Fprintf(c.ErrOrStderr(), "bawn: the fork's copy of the project stays: %s\n", spec.Dir)
				}
				fmt.Fprintln(c.OutOrStdout(), name)
				return nil
			})
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "remove them even while they run or are damaged")
	c.Flags().BoolVarP(&all, "all", "a", false, "remove all sandboxes")
	return c
}
