package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/sys/size"
)

func snapshotCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "snapshot",
		Short: "Keep a sandbox as it is, and go back to it",
		Long: `Keep a sandbox as it is: its memory with all that runs, and its disk. The project
directory is not part of a snapshot; it stays what it is on the host. Commands and
shells that are attached go on, but are not in what is restored or forked from it.

A sandbox that is stopped or suspended is started for a snapshot, and is that again
afterwards.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(snapshotCreateCommand(), snapshotListCommand(), snapshotRestoreCommand(), snapshotRemoveCommand())
	return c
}

func snapshotCreateCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "create SANDBOX [SNAPSHOT]",
		Short:             "Keep the sandbox as it is now, under a name (default: the time)",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: completeNames,
		RunE: func(c *cobra.Command, args []string) error {
			e, spec, err := namedSandbox(args[:1])
			if err != nil {
				return err
			}
			name, err := e.CreateSnapshot(c.Context(), spec.Name, strings.Join(args[1:], ""))
			if err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), name)
			return nil
		},
	}
}

// snapshotRow is one snapshot in a list.
type snapshotRow struct {
	Sandbox string    `json:"sandbox"`
	Name    string    `json:"name"`
	Made    time.Time `json:"made"`
	Size    int64     `json:"size"`            // bytes on the host
	Error   string    `json:"error,omitempty"` // why it cannot be used
}

func snapshotListCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "ls [SANDBOX]", Aliases: []string{"list"},
		Short:             "List snapshots, of all sandboxes or of one",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeNames,
		RunE: func(c *cobra.Command, args []string) error {
			e, _, err := openEngine()
			if err != nil {
				return err
			}
			list, err := e.Snapshots(strings.Join(args, ""))
			if err != nil {
				return err
			}
			rows := []snapshotRow{}
			for _, s := range list {
				rows = append(rows, snapshotRowOf(s))
			}
			if asJSON {
				return printJSON(c.OutOrStdout(), rows)
			}
			return listSnapshots(c.OutOrStdout(), rows)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func snapshotRowOf(s engine.Snapshot) snapshotRow {
	r := snapshotRow{Sandbox: s.Sandbox, Name: s.Name, Made: s.Made, Size: s.Size}
	if s.Err != nil {
		r.Error = s.Err.Error()
	}
	return r
}

func listSnapshots(w io.Writer, rows []snapshotRow) error {
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(tw, "SANDBOX\tSNAPSHOT\tMADE\tSIZE")
	for _, r := range rows {
		made := r.Error
		if made == "" {
			made = age(time.Since(r.Made)) + " ago"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", r.Sandbox, r.Name, made, size.Format(r.Size))
	}
	return tw.Flush()
}

func snapshotRestoreCommand() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "restore SANDBOX SNAPSHOT",
		Short: "Make the sandbox what it was, and let it go on there",
		Long: `Make the sandbox what it was when the snapshot was made: memory, disk and settings.
What it is now is lost; the project directory stays as it is. A file of it that has been
renamed, replaced or removed since is stale (ESTALE) to programs that had it open. The
snapshot is verified first; one that is damaged changes nothing.`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: completeNames,
		RunE: func(c *cobra.Command, args []string) error {
			e, spec, err := namedSandbox(args[:1])
			if err != nil {
				return err
			}
			return e.RestoreSnapshot(c.Context(), spec.Name, args[1], force)
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "also while the sandbox runs: it is ended")
	return c
}

func snapshotRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rm SANDBOX SNAPSHOT...", Aliases: []string{"remove"},
		Short:             "Remove snapshots",
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: completeNames,
		RunE: func(c *cobra.Command, args []string) error {
			e, spec, err := namedSandbox(args[:1])
			if err != nil {
				return err
			}
			removed, err := e.RemoveSnapshots(c.Context(), spec.Name, args[1:])
			for _, name := range removed {
				fmt.Fprintln(c.OutOrStdout(), name)
			}
			return err
		},
	}
}
