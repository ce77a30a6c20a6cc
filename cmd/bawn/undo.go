package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/sys/size"
	"bawn.dev/bawn/internal/sys/text"
)

// undoFlags are those of bawn undo.
type undoFlags struct {
	name                      string
	to                        int
	list, dryRun, yes, asJSON bool
}

func undoCommand() *cobra.Command {
	var f undoFlags
	c := &cobra.Command{
		Use:   "undo [flags] [PATH...]",
		Short: "Take back what the guest changed in the project directory",
		Long: `Take back what the guest changed in the project directory since the last session
began that changed anything, or since an earlier restore point (--to). bawn shows what
comes back and what goes, and asks first.

Contents, modes, times, symbolic links and removed files come back, and files that the
guest made are removed. What was changed on the host since stays as it is; name its PATH
to undo that too. An undo can be undone: it is a restore point of its own.

Restore points are kept beside the sandbox, for 14 days and up to 4 GiB, and go with it
(bawn rm). They hold changes of the project directory only, not of other mounts or of the
sandbox's own disk (see bawn snapshot).`,
		Example: `  bawn undo                    undo the last session's changes
  bawn undo --dry-run          only show what that would be
  bawn undo src/main.go        undo the changes of one file, also the host's
  bawn undo --list             list the restore points
  bawn undo --to 3             go back to restore point 3`,
		RunE: func(c *cobra.Command, args []string) error {
			e, spec, err := openNamed(f.name)
			if err != nil {
				return err
			}
			u, err := e.OpenUndo(spec.Name)
			if err != nil {
				return err
			}
			if u == nil {
				return nothingToUndo(c.OutOrStdout(), &f)
			}
			defer u.Close()
			return f.run(c.Context(), c.OutOrStdout(), u, args)
		},
	}
	c.Flags().StringVarP(&f.name, "name", "n", "", "`NAME` of the sandbox (default: this directory's)")
	c.Flags().IntVar(&f.to, "to", 0, "go back to this restore `POINT` (default: the last session's)")
	c.Flags().BoolVarP(&f.list, "list", "l", false, "list the restore points, and change nothing")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "show what would be done, and change nothing")
	c.Flags().BoolVarP(&f.yes, "yes", "y", false, "do it without asking")
	c.Flags().BoolVar(&f.asJSON, "json", false, "print JSON")
	c.MarkFlagsMutuallyExclusive("list", "to")
	_ = c.RegisterFlagCompletionFunc("name", completeNames)
	return c
}

// nothingToUndo is the answer of a sandbox whose guests changed nothing.
func nothingToUndo(w io.Writer, f *undoFlags) error {
	switch {
	case f.asJSON && f.list:
		return printJSON(w, []pointRow{})
	case f.asJSON:
		return printJSON(w, &engine.UndoPlan{Steps: []engine.UndoStep{}, Kept: []engine.UndoKept{}})
	}
	fmt.Fprintln(w, "There is nothing to undo: the guest has changed nothing in the project.")
	return nil
}

// run is the command for a sandbox that has restore points.
func (f *undoFlags) run(ctx context.Context, w io.Writer, u *engine.Undo, args []string) error {
	points, err := u.Points()
	if err != nil {
		return err
	}
	if f.list {
		return listPoints(w, points, f.asJSON)
	}
	q, err := f.request(u, points, args)
	if err != nil {
		return err
	}
	if q.To == 0 {
		return nothingToUndo(w, f)
	}
	plan, err := u.Plan(q)
	if err != nil {
		return err
	}
	switch {
	case f.dryRun && f.asJSON:
		return printJSON(w, plan)
	case f.dryRun || len(plan.Steps) == 0 && u.Unfinished == nil && !f.asJSON:
		showPlan(w, plan)
		return nil
	case !f.yes && !attended():
		return hint(errors.New("nothing was undone: there is no terminal to ask at"), "bawn undo --yes (or --dry-run, to see what it would do)")
	case !f.yes:
		showPlan(os.Stderr, plan)
		if !askYes(fmt.Sprintf("Undo %s?", count(len(plan.Steps), "change", "changes"))) {
			return errors.New("nothing was undone")
		}
	}
	res, err := u.Apply(ctx, q, plan)
	if f.asJSON {
		return errors.Join(err, printJSON(w, res))
	}
	if err == nil {
		if !f.yes {
			res.Kept = res.Kept[len(plan.Kept):] // the plan has shown the others
		}
		showResult(w, res)
	}
	return err
}

// request returns what the user asks for, or the rest of what was asked for last.
func (f *undoFlags) request(u *engine.Undo, points []engine.UndoPoint, args []string) (engine.UndoRequest, error) {
	if u.Unfinished != nil {
		fmt.Fprintln(os.Stderr, "bawn: the last undo was interrupted: this finishes it")
		return *u.Unfinished, nil
	}
	q := engine.UndoRequest{To: f.to}
	if q.To == 0 {
		q.To = engine.LastSession(points)
	}
	for _, a := range args {
		p, err := u.Path(a)
		if err != nil {
			return q, err
		}
		q.Paths = append(q.Paths, p)
	}
	return q, nil
}

// pointRow is one restore point in a list.
type pointRow struct {
	Number  int       `json:"number"`
	At      time.Time `json:"at"`
	Why     string    `json:"why"` // session, start or undo
	Changes int       `json:"changes"`
	Bytes   int64     `json:"bytes"`             // of kept contents
	Missing string    `json:"missing,omitempty"` // why later changes were not recorded
}

func listPoints(w io.Writer, points []engine.UndoPoint, asJSON bool) error {
	rows := []pointRow{}
	for _, p := range points {
		r := pointRow{p.Number, p.At, text.Line(p.Why), p.Changes, p.Bytes, text.Line(p.Full)}
		if p.Damaged {
			r.Missing = "the last records are damaged"
		}
		rows = append(rows, r)
	}
	if asJSON {
		return printJSON(w, rows)
	}
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(tw, "POINT\tBEGAN\tBY\tCHANGES\tSIZE")
	for _, r := range rows {
		changes := strconv.Itoa(r.Changes)
		if r.Missing != "" {
			changes += " (" + r.Missing + ")"
		}
		fmt.Fprintf(tw, "%d\t%s ago\t%s\t%s\t%s\n", r.Number, age(time.Since(r.At)), r.Why, changes, size.Format(r.Bytes))
	}
	return tw.Flush()
}

// showPlan shows what an undo would do.
func showPlan(w io.Writer, p *engine.UndoPlan) {
	if len(p.Steps) == 0 {
		fmt.Fprintln(w, "There is nothing to undo.")
	}
	for _, s := range p.Steps {
		line := fmt.Sprintf("%-8s %s", s.Action, text.Line(s.Path))
		switch {
		case s.Action == engine.UndoMove:
			line = fmt.Sprintf("%-8s %s -> %s", s.Action, text.Line(s.From), text.Line(s.Path))
		case s.Kind == engine.UndoDir:
			line += "/"
		case s.Action == engine.UndoRestore && s.Kind == engine.UndoFile:
			line += fmt.Sprintf(" (%s)", size.Format(s.Size))
		}
		fmt.Fprintln(w, line)
	}
	showKept(w, p.Kept)
	for _, n := range p.Notes {
		fmt.Fprintln(w, "Note:", text.Line(n))
	}
}

func showKept(w io.Writer, kept []engine.UndoKept) {
	if len(kept) == 0 {
		return
	}
	fmt.Fprintf(w, "%s as it is now:\n", count(len(kept), "path stays", "paths stay"))
	for _, k := range kept {
		fmt.Fprintf(w, "  %s: %s\n", text.Line(k.Path), text.Line(k.Why))
	}
}

// showResult shows what an undo did, the paths that stayed, and those that it cannot be taken back of.
func showResult(w io.Writer, r *engine.UndoResult) {
	fmt.Fprintf(w, "%s undone", count(len(r.Done), "change was", "changes were"))
	if r.Point > 0 {
		fmt.Fprintf(w, " (to take this back: bawn undo --to %d)", r.Point)
	}
	fmt.Fprintln(w)
	showKept(w, r.Kept)
	if len(r.Lost) == 0 {
		return
	}
	fmt.Fprintf(w, "This undo cannot be taken back of %s, since what was there could not be kept:\n", count(len(r.Lost), "path", "paths"))
	for _, k := range r.Lost {
		fmt.Fprintf(w, "  %s: %s\n", text.Line(k.Path), text.Line(k.Why))
	}
}
