package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func imageCommitCommand() *cobra.Command {
	return &cobra.Command{
		Use: "commit SANDBOX NAME", Short: "Make an image of what is installed in a sandbox",
		Long: `Make an image of what a sandbox has on its disk: programs that were installed, and
all that is in home directories, what an agent knows of you after a log-in among it.
The project, other mounts, Docker's data and /tmp are left out. New sandboxes start
from it with --image local:NAME.`,
		Example: `  bawn run --allow preset:npm -- sudo npm install -g @openai/codex
  bawn image commit shop agents
  cd ../other && bawn run --image local:agents -- codex`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: completeName,
		RunE: func(c *cobra.Command, args []string) error {
			e, spec, err := namedSandbox(args[:1])
			if err != nil {
				return err
			}
			i, err := e.CommitImage(c.Context(), spec.Name, args[1])
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s\t%s\n", i.Ref, i.Digest)
			return nil
		},
	}
}
