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
		Short: "Keep machines ready, from which new sandboxes start at once",
		Long: `Keep NUMBER machines restored and ready. A new sandbox with the processors,
memory, disk and image of the last one that was started takes one of them, and
another is made ready. Each takes the memory of an idle sandbox, and ends when the
host does. 0, which is how it is at first, ends them all.

Without NUMBER: list the machines that are ready.`,
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
				return hint(fmt.Errorf("%q machines: want a number from 0 to %d", args[0], engine.MaxPool), "bawn pool 2")
			}
			if err := e.ResizePool(c.Context(), n); err != nil || n == 0 {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "bawn: after the next start, %s kept ready\n", count(n, "machine of this kind is", "machines of this kind are"))
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
