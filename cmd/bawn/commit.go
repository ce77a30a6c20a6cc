package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func imageCommitCommand() *cobra.Command {
	return &cobra.Command{
		Use: "commit SANDBOX NAME", Short: "Make an image from the disk of a sandbox",
		Long: `Make an image from the disk of a sandbox: installed programs and all files in home
directories, also the credentials that an agent stored there when you logged in. The
project directory, other mounts, Docker's data and /tmp are left out. Start new
sandboxes from the image with --image local:NAME.`,
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
