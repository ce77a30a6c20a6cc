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
		Short: "Make running copies of a sandbox, with its memory and disk",
		Long: `Make running copies (forks) of a sandbox, or of one of its snapshots: memory with all
running processes, disk and network rules. Each fork has its own name, addresses, keys
and random numbers. All share the same project directory; with --copy-project, each
fork gets a copy of its files, made right after the snapshot. Published ports get
other numbers on the host. Commands and shells that are attached to the sandbox are
not in the forks. bawn starts a stopped or suspended sandbox for this, and then stops
or suspends it again. If one of several forks cannot be made or started, the others
are kept.`,
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
	c.Flags().StringVar(&r.From, "from", "", "fork from this `SNAPSHOT` instead of the sandbox's present state")
	c.Flags().BoolVar(&r.CopyProject, "copy-project", false, "give each fork its own copy of the project directory, beside it and named after the fork")
	return c
}
