package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/progress"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/snapshot"
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

func snapshotPath(d store.Dir, name string) string {
	return filepath.Join(d.File(store.SnapshotsFolder), name)
}

func snapshotCreateCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "create SANDBOX [SNAPSHOT]",
		Short:             "Keep the sandbox as it is now, under a name (default: the time)",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: completeNames,
		RunE: func(c *cobra.Command, args []string) error {
			name := time.Now().Format("20060102-150405")
			if len(args) > 1 {
				name = args[1]
			}
			if err := sandbox.CheckName(name); err != nil {
				return fmt.Errorf("snapshot: %w", err)
			}
			sandboxes, spec, err := named(args[:1])
			if err != nil {
				return err
			}
			path := snapshotPath(sandboxes.Dir(spec.Name), name)
			if snapshot.Exists(path) {
				return hint(fmt.Errorf("sandbox %s has a snapshot %s already", spec.Name, name), "bawn snapshot rm %s %s, or another name", spec.Name, name)
			}
			if err := capture(c.Context(), sandboxes, spec.Name, path); err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), name)
			return nil
		},
	}
}

// capture saves a sandbox at path. One that does not run is started for that, and is
// then again what it was.
func capture(ctx context.Context, sandboxes *store.Store, name, path string) error {
	started := false
	if err := bringUp(ctx, sandboxes, name, nil, func() { started = true }); err != nil {
		return err
	}
	err := save(ctx, sandboxes, name, path)
	if started {
		putToRest(ctx, sandboxes.Dir(name))
	}
	return err
}

// putToRest ends a sandbox that was started for a moment, as it was before: suspended,
// or stopped. Somebody who has come to work in it meanwhile keeps it.
func putToRest(ctx context.Context, d store.Dir) {
	st, err := control.NewClient(d.DialControl).Status(ctx)
	switch {
	case err != nil:
	case st.Attached > 0:
		err = errors.New("somebody works in it")
	case st.Resumed:
		err = suspend(ctx, d, false)
	default:
		err = stop(ctx, d, false)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bawn: sandbox %s, which was started for this, goes on running: %s\n", nameOf(d), printable(err.Error()))
	}
}

// save has the supervisor write a snapshot.
func save(ctx context.Context, sandboxes *store.Store, name, path string) error {
	bar := newBars(os.Stderr)
	defer bar.close()
	task := bar.Start("Saving "+name, 0, progress.Steps)
	client := control.NewClient(sandboxes.Dir(name).DialControl)
	err := client.Snapshot(ctx, path)
	if errors.Is(err, syscall.ECONNREFUSED) && startedAgain(ctx, sandboxes, name) { // nothing was begun
		err = client.Snapshot(ctx, path)
	}
	task.Done(err)
	return hint(err, "bawn logs --supervisor %s", name)
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
			sandboxes, err := store.Open()
			if err != nil {
				return err
			}
			if len(args) > 0 {
				_, err = lookup(sandboxes, args[0])
			} else {
				args, err = sandboxes.Names()
			}
			if err != nil {
				return err
			}
			rows := []snapshotRow{}
			for _, name := range args {
				r, err := snapshotsOf(sandboxes.Dir(name))
				if err != nil {
					return err
				}
				rows = append(rows, r...)
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

func snapshotsOf(d store.Dir) ([]snapshotRow, error) {
	removeForked(d)
	entries, err := os.ReadDir(d.File(store.SnapshotsFolder))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var rows []snapshotRow
	for _, e := range entries {
		if snapshot.IsDraft(e.Name()) || strings.HasPrefix(e.Name(), forkedPrefix) {
			continue
		}
		r := snapshotRow{Sandbox: nameOf(d), Name: e.Name()}
		s, err := snapshot.Open(snapshotPath(d, e.Name()))
		if err == nil {
			r.Made, r.Size = s.Meta.Made, s.Size()
			err = s.Probe()
		}
		if err != nil {
			r.Error = err.Error()
		}
		rows = append(rows, r)
	}
	return rows, nil
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
			sandboxes, spec, err := named(args[:1])
			if err != nil {
				return err
			}
			if err := restoreSnapshot(c.Context(), sandboxes.Dir(spec.Name), args[1], force); err != nil {
				return err
			}
			return ensureRunning(c.Context(), sandboxes, spec.Name)
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "also while the sandbox runs: it is ended")
	return c
}

// openSnapshot finds a snapshot of a sandbox by name.
func openSnapshot(d store.Dir, name string) (*snapshot.Snapshot, error) {
	if err := sandbox.CheckName(name); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	s, err := snapshot.Open(snapshotPath(d, name))
	return s, hint(err, "bawn snapshot ls %s", nameOf(d))
}

// verified finds a snapshot whose memory and disk are what was written.
func verified(ctx context.Context, d store.Dir, name string) (*snapshot.Snapshot, error) {
	s, err := openSnapshot(d, name)
	if err != nil {
		return nil, err
	}
	err = showing("Checking snapshot "+name, func() error { return s.Verify(ctx) })
	return s, hint(err, "another of bawn snapshot ls %s", nameOf(d))
}

// restoreSnapshot puts a snapshot in the place of what the sandbox is. Nothing of
// that is given up before the snapshot has been verified and its disk copied. Then
// the sandbox is whole at each step: first without a memory to go on from, then with
// the other disk, then with the memory of that disk.
func restoreSnapshot(ctx context.Context, d store.Dir, name string, force bool) error {
	l, err := d.LockStart(ctx)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := mustBeOff(d); err != nil && !force {
		return err
	}
	s, err := verified(ctx, d, name)
	if err != nil {
		return err
	}
	fresh := d.File(store.DiskFile) + ".restored"
	_ = os.Remove(fresh) // of a restore that was killed
	defer os.Remove(fresh)
	if err := showing("Copying the disk", func() error { return snapshot.CopyDisk(ctx, fresh, s.Disk()) }); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := mustBeOff(d); err != nil {
		if !force {
			return err
		}
		if err := halt(ctx, d, true); err != nil {
			return err
		}
	}
	if err := forgetSuspended(d); err != nil {
		return err
	}
	if err := os.Rename(fresh, d.File(store.DiskFile)); err != nil {
		return err
	}
	if err := d.WriteSpec(s.Meta.Spec); err != nil {
		return err
	}
	return s.Clone(d.File(store.SuspendedState))
}

// mustBeOff is an error while the sandbox runs.
func mustBeOff(d store.Dir) error {
	st, err := d.State()
	if err != nil || st.Phase == sandbox.Stopped || st.Phase == sandbox.Dead {
		return err
	}
	return hint(fmt.Errorf("sandbox %s is %s, and what it is now would be lost", nameOf(d), st.Phase), "--force, or bawn snapshot create %s first", nameOf(d))
}

func snapshotRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rm SANDBOX SNAPSHOT...", Aliases: []string{"remove"},
		Short:             "Remove snapshots",
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: completeNames,
		RunE: func(c *cobra.Command, args []string) error {
			sandboxes, spec, err := named(args[:1])
			if err != nil {
				return err
			}
			d := sandboxes.Dir(spec.Name)
			l, err := d.LockStart(c.Context())
			if err != nil {
				return err
			}
			defer l.Close()
			for _, name := range args[1:] {
				if err := sandbox.CheckName(name); err != nil {
					return fmt.Errorf("snapshot: %w", err)
				}
				path := snapshotPath(d, name)
				if _, err := os.Lstat(path); err != nil {
					return hint(fmt.Errorf("%w: %s", snapshot.ErrNone, name), "bawn snapshot ls %s", spec.Name)
				}
				if err := (&snapshot.Snapshot{Path: path}).Remove(); err != nil {
					return err
				}
				fmt.Fprintln(c.OutOrStdout(), name)
			}
			return nil
		},
	}
}
