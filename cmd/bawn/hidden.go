package main

import (
	"context"
	"os"

	"bawn.dev/bawn/internal/process"
)

// execute runs one of the processes that bawn starts itself, if the first argument names one, and
// otherwise a command of a person. Those processes start often, so they do not build the tree of
// commands, for which the descriptions of all agents are read.
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
