package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/sys/size"
)

// row is one sandbox in a list.
type row struct {
	*sandbox.Spec
	State  sandbox.State   `json:"state"`
	Status *control.Status `json:"status,omitempty"` // while it runs

	// Bytes on the host: of its disk, its snapshots, and the memory that it is
	// suspended with, where that is not a snapshot's.
	DiskUsed      int64 `json:"diskUsed"`
	SnapshotsUsed int64 `json:"snapshotsUsed"`
	SuspendedUsed int64 `json:"suspendedUsed"`

	Suspended bool `json:"suspended"` // it goes on where it was
}

func describe(ctx context.Context, sandboxes *store.Store, name string) (*row, error) {
	d := sandboxes.Dir(name)
	spec, err := d.Spec()
	if err != nil {
		return nil, err
	}
	st, err := d.State()
	if err != nil {
		return nil, err
	}
	r := &row{Spec: spec, State: st}
	used := usage{}
	r.DiskUsed = used.of(d.File(store.DiskFile))
	r.SnapshotsUsed = used.of(d.File(store.SnapshotsFolder))
	r.SuspendedUsed = used.of(d.File(store.SuspendedFolder))
	if st.Phase == sandbox.Stopped && suspended(d) {
		r.Suspended, r.State.Phase = true, sandbox.Suspended
	}
	if st.Phase == sandbox.Running {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		if s, err := control.NewClient(d.DialControl).Status(ctx); err == nil {
			r.Status = &s
		}
	}
	return r, nil
}

func lsCommand() *cobra.Command {
	var asJSON, quiet bool
	c := &cobra.Command{
		Use: "ls", Aliases: []string{"list", "ps"},
		Short: "List the sandboxes",
		Long: `List the sandboxes. DISK is what a sandbox's disk takes here, of what it may take,
and after a + what its snapshots and its suspended memory take beside it.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			sandboxes, err := store.Open()
			if err != nil {
				return err
			}
			names, err := sandboxes.Names()
			if err != nil {
				return err
			}
			rows := []*row{}
			for _, n := range names {
				r, err := describe(c.Context(), sandboxes, n)
				if store.IsNotFound(err) {
					continue // removed meanwhile
				}
				if err != nil {
					fmt.Fprintln(os.Stderr, "bawn:", err)
					continue
				}
				rows = append(rows, r)
			}
			return list(c.OutOrStdout(), rows, asJSON, quiet)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print names only")
	return c
}

func list(w io.Writer, rows []*row, asJSON, quiet bool) error {
	if asJSON {
		return printJSON(w, rows)
	}
	if quiet {
		for _, r := range rows {
			fmt.Fprintln(w, r.Name)
		}
		return nil
	}
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(tw, "NAME\tSTATE\tCPUS\tMEMORY\tDISK\tPORTS\tDIRECTORY")
	for _, r := range rows {
		fmt.Fprintf(tw, "%s\t%s\t%d\t%s\t%s\t%s\t%s\n", r.Name, stateWords(r), r.CPUs,
			size.Format(r.Memory), diskWords(r), portWords(r), r.Dir)
	}
	return tw.Flush()
}

func diskWords(r *row) string {
	words := size.Format(r.DiskUsed) + " of " + size.Format(r.Disk)
	if kept := r.SnapshotsUsed + r.SuspendedUsed; kept > 0 {
		words += " + " + size.Format(kept)
	}
	return words
}

func stateWords(r *row) string {
	s := r.State
	if r.Status != nil && r.Status.Starved {
		return "waiting: host disk full"
	}
	if s.Phase == sandbox.Running && !s.Since.IsZero() {
		return "running " + age(time.Since(s.Since))
	}
	return string(s.Phase)
}

func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

func portWords(r *row) string {
	ports := r.Ports
	if r.Status != nil {
		ports = r.Status.Ports
	}
	if len(ports) == 0 {
		return "-"
	}
	var words []string
	for _, p := range ports {
		words = append(words, fmt.Sprintf("%s->%d", hostPort(p), p.Guest))
	}
	return strings.Join(words, ",")
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func inspectCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:               "inspect [NAME]",
		Short:             "Show all of a sandbox, as JSON",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeName,
		RunE: func(c *cobra.Command, args []string) error {
			sandboxes, spec, err := named(args)
			if err != nil {
				return err
			}
			r, err := describe(c.Context(), sandboxes, spec.Name)
			if err != nil {
				return err
			}
			return printJSON(c.OutOrStdout(), r)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", true, "print JSON (always so)")
	return c
}

// named opens the store and finds the sandbox of the optional argument.
func named(args []string) (*store.Store, *sandbox.Spec, error) {
	sandboxes, err := store.Open()
	if err != nil {
		return nil, nil, err
	}
	name := ""
	if len(args) > 0 {
		name = args[0]
	}
	spec, err := lookup(sandboxes, name)
	return sandboxes, spec, err
}

func stopCommand() *cobra.Command {
	var force, all bool
	c := &cobra.Command{
		Use:               "stop [NAME...]",
		Short:             "Stop sandboxes; their disks stay",
		ValidArgsFunction: completeNames,
		RunE: func(c *cobra.Command, args []string) error {
			return each(args, all, func(sandboxes *store.Store, name string) error {
				return stop(c.Context(), sandboxes.Dir(name), force)
			})
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "pull the plug: do not let the guest shut down")
	c.Flags().BoolVarP(&all, "all", "a", false, "stop all sandboxes")
	return c
}

func stop(ctx context.Context, d store.Dir, force bool) error {
	st, err := d.State()
	if err != nil {
		return err
	}
	if st.Phase == sandbox.Dead {
		return d.WriteState(sandbox.State{Phase: sandbox.Stopped})
	}
	if st.Phase == sandbox.Stopped {
		return forgetSuspended(d)
	}
	err = halt(ctx, d, force)
	return hint(err, "bawn stop --force %s", nameOf(d))
}

// each does f for the named sandboxes, for all, or for this directory's, and
// goes on after a failure.
func each(args []string, all bool, f func(*store.Store, string) error) error {
	sandboxes, err := store.Open()
	if err != nil {
		return err
	}
	if all {
		if args, err = sandboxes.Names(); err != nil {
			return err
		}
	} else if len(args) == 0 {
		args = []string{""}
	}
	var failed error
	for _, a := range args {
		spec, err := lookup(sandboxes, a)
		if all && err != nil { // damaged, yet to be stopped or removed
			err = f(sandboxes, a)
		} else if err == nil {
			err = f(sandboxes, spec.Name)
		}
		if failed != nil && err != nil {
			fmt.Fprintln(os.Stderr, "bawn:", failed)
		}
		if err != nil {
			failed = err
		}
	}
	return failed
}

func rmCommand() *cobra.Command {
	var force, all bool
	c := &cobra.Command{
		Use: "rm [NAME...]", Aliases: []string{"remove"},
		Short:             "Remove sandboxes with their disks and snapshots; project files stay",
		ValidArgsFunction: completeNames,
		RunE: func(c *cobra.Command, args []string) error {
			return each(args, all, func(sandboxes *store.Store, name string) error {
				snapshots, _ := snapshotsOf(sandboxes.Dir(name)) // no reason not to remove it
				if err := remove(c.Context(), sandboxes, name, force); err != nil {
					return err
				}
				if n := len(snapshots); n > 0 {
					fmt.Fprintf(c.ErrOrStderr(), "bawn: %s of %s went with it\n", count(n, "snapshot", "snapshots"), name)
				}
				fmt.Fprintln(c.OutOrStdout(), name)
				return nil
			})
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "remove them even while they run or are damaged")
	c.Flags().BoolVarP(&all, "all", "a", false, "remove all sandboxes")
	return c
}

func logsCommand() *cobra.Command {
	var follow, own bool
	c := &cobra.Command{
		Use:               "logs [NAME]",
		Short:             "Show what the guest printed on its console",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeName,
		RunE: func(c *cobra.Command, args []string) error {
			sandboxes, spec, err := named(args)
			if err != nil {
				return err
			}
			file := store.ConsoleFile
			if own {
				file = store.SupervisorLogFile
			}
			return showLog(c.Context(), c.OutOrStdout(), sandboxes.Dir(spec.Name).File(file), follow)
		},
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on as more is printed")
	c.Flags().BoolVar(&own, "supervisor", false, "show the supervisor's log instead")
	return c
}

// showLog copies a log, its older part first, and follows it over rotations.
// What the guest printed is hostile: control characters are shown, not obeyed.
func showLog(ctx context.Context, w io.Writer, path string, follow bool) error {
	out := w
	if f, ok := w.(*os.File); ok && isTerminal(f) {
		out = &visible{w: w}
	}
	if old, err := os.Open(path + ".1"); err == nil {
		_, _ = io.Copy(out, old)
		old.Close()
	}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) && !follow {
		return nil // never started
	}
	for err == nil {
		if _, err = io.Copy(out, f); err != nil || !follow {
			break
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil
		case <-time.After(200 * time.Millisecond):
		}
		if _, err := os.Stat(filepath.Dir(path)); errors.Is(err, os.ErrNotExist) {
			break // the sandbox was removed
		}
		f = reopenIfRotated(f, path)
	}
	if f != nil {
		f.Close()
	}
	return err
}

func reopenIfRotated(f *os.File, path string) *os.File {
	here, err1 := f.Stat()
	there, err2 := os.Stat(path)
	if err1 != nil || err2 != nil || os.SameFile(here, there) {
		return f
	}
	n, err := os.Open(path)
	if err != nil {
		return f
	}
	f.Close()
	return n
}

// visible shows control characters instead of sending them to the terminal.
type visible struct{ w io.Writer }

func (v *visible) Write(b []byte) (int, error) {
	_, err := io.WriteString(v.w, printable(string(b)))
	return len(b), err
}

// printable writes control characters other than newline and tab as ^X, and
// those of the second set, which terminals obey as well, as ?. Text of the
// guest's goes through it on its way to a terminal.
func printable(s string) string {
	var out strings.Builder
	for _, c := range s {
		switch {
		case c == '\n' || c == '\t' || c >= ' ' && c < 0x7f || c >= 0xa0:
			out.WriteRune(c)
		case c == '\r':
		case c > 0x7f:
			out.WriteByte('?')
		default:
			out.WriteByte('^')
			out.WriteRune(c ^ 0x40)
		}
	}
	return out.String()
}
