package main

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/sys/size"
)

func poolCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "pool [NUMBER]",
		Short: "Keep pool machines ready, from which new sandboxes start at once",
		Long: `Keep NUMBER pool machines ready: virtual machines that are started before they are
needed. They have the CPUs, memory, disk and image of the sandbox that was started
last. A new sandbox with the same settings takes one of them, and bawn starts
another. Each pool machine uses as much memory as an idle sandbox. They end when the
host shuts down; the next start of a sandbox starts them again. 0 (the default) ends
them all.

Without NUMBER, list the pool machines.`,
		Example: `  bawn pool 2
  bawn pool 0`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			e, _, err := openEngine()
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return listPool(c.OutOrStdout(), e, asJSON)
			}
			n, err := strconv.Atoi(args[0])
			if err != nil {
				return hint(fmt.Errorf("%q is not a number of pool machines: use 0 to %d", args[0], engine.MaxPool), "bawn pool 2")
			}
			if err := e.ResizePool(c.Context(), n); err != nil || n == 0 {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "bawn: after the next start of a sandbox, bawn keeps %s like it ready\n", count(n, "pool machine", "pool machines"))
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func listPool(w io.Writer, e *engine.Engine, asJSON bool) error {
	members, err := e.Pool()
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(w, members)
	}
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(tw, "ID\tSTATE\tCPUS\tMEMORY\tDISK\tIMAGE")
	for _, m := range members {
		image := m.Image
		if image == "" {
			image = "default"
		}
		fmt.Fprintf(tw, "%s\t%s\t%d\t%s\t%s\t%s\n", m.ID, m.State, m.CPUs, size.Format(m.Memory), size.Format(m.Disk), image)
	}
	return tw.Flush()
}
