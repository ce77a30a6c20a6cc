package main

import (
	"context"
	"os"

	"bawn.dev/bawn/internal/process"
)

// execute runs what the arguments say: one of the processes that bawn starts itself, or a command
// of a person. The processes are many and start often, so they do without the tree of commands,
// for which the descriptions of all agents are read.
func execute(ctx context.Context) error {
	if len(os.Args) > 1 {
		for _, v := range process.Verbs() {
			if v.Name == os.Args[1] {
				return v.Run(ctx, os.Args[2:])
			}
		}
	}
	return rootCommand().ExecuteContext(ctx)
}
