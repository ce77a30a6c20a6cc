package main

import (
	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/process"
)

// hiddenCommands returns the processes that bawn starts itself; they are not for users.
func hiddenCommands() []*cobra.Command {
	var list []*cobra.Command
	for _, v := range process.Verbs() {
		list = append(list, &cobra.Command{
			Use: v.Name, Hidden: true, DisableFlagParsing: true,
			RunE: func(c *cobra.Command, args []string) error { return v.Run(c.Context(), args) },
		})
	}
	return list
}
