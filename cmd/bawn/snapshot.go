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
		Short: "Save the state of a sandbox, and restore it later",
		Long: `Save the state of a sandbox (its memory with all running processes, and its disk),
and restore it later. The project directory is not part of a snapshot and is not
restored. Commands and shells that are attached to the sandbox continue, but are not
in the snapshot.

For a snapshot of a stopped or suspended sandbox, bawn starts it and then stops or
suspends it again.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(snapshotCreateCommand(), snapshotListCommand(), snapshotRestoreCommand(), snapshotRemoveCommand())
	return c
}

func snapshotCreateCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "create SANDBOX [SNAPSHOT]",
		Short:             "Save the present state of the sandbox under a name (default: the time)",
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
	Made    time.Time `json:"created"`
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
	fmt.Fprintln(tw, "SANDBOX\tSNAPSHOT\tCREATED\tSIZE")
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
		Short: "Restore the sandbox to a snapshot and resume it",
		Long: `Restore memory, disk and settings of the sandbox from a snapshot, and resume it. Its
present state is lost; the project directory is not changed. Programs that had a
project file open which was renamed, replaced or removed since get an error (ESTALE)
when they use it. bawn verifies the snapshot first; if it is damaged, nothing changes.`,
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
	c.Flags().BoolVarP(&force, "force", "f", false, "restore even if the present state is lost by it: a running sandbox is ended")
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
