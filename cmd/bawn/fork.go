package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/engine"
)

func forkCommand() *cobra.Command {
	var r engine.ForkRequest
	c := &cobra.Command{
		Use:   "fork SANDBOX [NEW...]",
		Short: "Make copies of a sandbox as it is, with all that runs in it",
		Long: `Make copies of a sandbox, or of a snapshot of it: memory with all that runs, disk
and network rules. The copies have names, addresses, keys and random numbers of
their own. They see the same project directory, or with --copy-project a copy of
its files, made right after the snapshot. Published ports get other numbers on the
host. Commands and shells that are attached to the sandbox are not in the copies. A
sandbox that is stopped or suspended is started for this, and is that again afterwards.
When one of several cannot be made or started, the others stay.`,
		Example: `  bawn fork web try-1 try-2
  bawn fork web --from prepared --copy-project`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeNames,
		RunE: func(c *cobra.Command, args []string) error {
			e, spec, err := namedSandbox(args[:1])
			if err != nil {
				return err
			}
			r.Sandbox, r.Names = spec.Name, args[1:]
			made, err := e.Fork(c.Context(), r)
			for _, n := range made {
				fmt.Fprintln(c.OutOrStdout(), n)
			}
			return err
		},
	}
	c.Flags().StringVar(&r.From, "from", "", "fork from the `SNAPSHOT` instead of the sandbox as it is")
	c.Flags().BoolVar(&r.CopyProject, "copy-project", false, "give each fork a copy of the project's files, in a directory beside it named after the fork")
	return c
}
