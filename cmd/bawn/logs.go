package main

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/sys/rotate"
	"bawn.dev/bawn/internal/sys/text"
)

func logsCommand() *cobra.Command {
	var follow, own bool
	c := &cobra.Command{
		Use:               "logs [NAME]",
		Short:             "Show what the guest printed on its console",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeName,
		RunE: func(c *cobra.Command, args []string) error {
			e, spec, err := namedSandbox(args)
			if err != nil {
				return err
			}
			log, supervisor, err := e.LogFiles(spec.Name)
			if err != nil {
				return err
			}
			if own {
				log = supervisor
			}
			return showLog(c.Context(), c.OutOrStdout(), log, follow)
		},
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "keep printing new output")
	c.Flags().BoolVar(&own, "supervisor", false, "show the supervisor's log instead")
	return c
}

// showLog copies a log, its older part first, and follows it over rotations. What the
// guest printed is hostile: on a terminal it is shown with escapes. A log that is removed
// while it is followed has ended.
func showLog(ctx context.Context, w io.Writer, path string, follow bool) error {
	if f, ok := w.(*os.File); ok && isTerminal(f) {
		safe := text.NewWriter(w)
		defer func() { _ = safe.Flush() }() // the terminal is gone if this fails
		w = safe
	}
	if !follow {
		return rotate.Read(path, w)
	}
	if err := rotate.Follow(ctx, path, w); !errors.Is(err, rotate.ErrGone) {
		return err
	}
	return nil
}
