package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/sys/text"
)

func reviewCommand() *cobra.Command {
	var since string
	var asJSON, noPager bool
	c := &cobra.Command{
		Use:   "review [flags] [NAME]",
		Short: "Show what the guest changed that your host may run or trust",
		Long: `Show what the guest changed in the project directory since the last session began that
changed anything: first what your host may run or trust (programs, scripts, build and CI
files, lock files, symbolic links that lead out, what looks like a secret), then what the
guest was refused, its own versions of guarded files with their difference to yours, and
all changed paths as git diff --stat has them.

What was changed is known from records of the host; the guest cannot leave anything
out. The list is a help: any source file that was changed does what it likes when you run
it. bawn accept takes a guarded file over, bawn undo takes changes back.`,
		Example: `  bawn review                     the last session
  bawn review --since 2h          the last two hours
  bawn review --since 3           since restore point 3 (bawn undo --list)
  bawn review --since all         all that is kept
  bawn review --json | jq '.findings[].path'`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			from, err := parseSince(since, time.Now())
			if err != nil {
				return err
			}
			e, spec, err := namedSandbox(args)
			if err != nil {
				return err
			}
			r, err := e.Review(c.Context(), spec.Name, from)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(c.OutOrStdout(), r)
			}
			return page(c.OutOrStdout(), !noPager, func(w io.Writer) error { return showReview(w, r) })
		},
		ValidArgsFunction: completeName,
	}
	c.Flags().StringVar(&since, "since", "", "compare with an earlier state: a restore `POINT`, a time such as 2h or 2026-01-31T15:04, or all")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&noPager, "no-pager", false, "do not use a pager")
	return c
}

// parseSince reads the value of --since.
func parseSince(s string, now time.Time) (engine.Since, error) {
	if n, err := strconv.Atoi(s); err == nil && n > 0 {
		return engine.Since{Point: n}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return engine.Since{Time: now.Add(-d)}, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return engine.Since{Time: t}, nil
		}
	}
	switch s {
	case "", "session":
		return engine.Since{}, nil
	case "all":
		return engine.Since{All: true}, nil
	}
	return engine.Since{}, fmt.Errorf("--since %q: write the number of a restore point (bawn undo --list), a time such as 2h, 2026-01-31 or 2026-01-31T15:04, or all", s)
}

// Bounds of what is shown; --json has all.
const (
	mostFindings = 200
	mostRefused  = 50
	mostStats    = 200
)

// showReview shows a review. No byte of what the guest made reaches the terminal as it is.
func showReview(w io.Writer, r *engine.Review) error {
	if r.Empty() {
		_, err := fmt.Fprintf(w, "There is nothing to review: the guest of %s has changed nothing.\n", r.Sandbox)
		return err
	}
	var b strings.Builder
	if r.Point > 0 {
		fmt.Fprintf(&b, "%s since %s (%s ago, restore point %d)\n", r.Sandbox, r.Since.Local().Format("2006-01-02 15:04:05"), age(time.Since(r.Since)), r.Point)
	}
	showRunnable(&b, r)
	if len(r.Refused) > 0 {
		fmt.Fprintln(&b, "\nThe guest was refused to change:")
		for _, ev := range r.Refused[:min(len(r.Refused), mostRefused)] {
			fmt.Fprintf(&b, "  %s\n", text.Line(ev.Share+"/"+ev.Path))
		}
		showMore(&b, len(r.Refused), mostRefused)
	}
	if len(r.Kept) > 0 {
		fmt.Fprintln(&b, "\nThe guest has its own versions of these; yours are as they were:")
		for _, k := range r.Kept {
			showKeptVersion(&b, k)
		}
		fmt.Fprintln(&b, "\n  to take one over: bawn accept PATH")
	}
	showStats(&b, r)
	for _, n := range r.Notes {
		fmt.Fprintln(&b, "Note:", text.Line(n))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func showRunnable(b *strings.Builder, r *engine.Review) {
	if len(r.Findings) == 0 {
		return
	}
	fmt.Fprintln(b, "\nYour host may run or trust these:")
	tw := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, f := range r.Findings[:min(len(r.Findings), mostFindings)] {
		why := text.Line(f.Why)
		if f.Paths > 0 {
			why = fmt.Sprintf("%d %s", f.Paths, why)
		}
		fmt.Fprintf(tw, "  %s\t%s\t%s\n", f.Class, text.Line(f.Path), why)
	}
	_ = tw.Flush() // into memory
	showMore(b, len(r.Findings), mostFindings)
}

func showMore(b *strings.Builder, all, shown int) {
	if all > shown {
		fmt.Fprintf(b, "  ... and %d more (--json has all)\n", all-shown)
	}
}

// showKeptVersion shows one private version with its difference to the host's.
func showKeptVersion(w io.Writer, k engine.ReviewKept) {
	what := map[string]string{"A": "new", "D": "removed", "T": "another kind of file", "M": "changed"}[string(k.Status)]
	if k.Link != "" {
		what += ", symbolic link to " + text.Line(k.Link)
	}
	if k.Exec {
		what += ", executable"
	}
	fmt.Fprintf(w, "\n  %s (%s)\n", text.Line(k.Share+"/"+k.Path), what)
	if k.Note != "" {
		fmt.Fprintf(w, "    %s\n", text.Line(k.Note))
	}
	for l := range strings.Lines(k.Diff) {
		fmt.Fprintf(w, "    %s\n", text.Line(strings.TrimSuffix(l, "\n")))
	}
	if k.Cut {
		fmt.Fprintln(w, "    ... the difference is longer")
	}
}

// showStats shows all changed paths as git diff --stat does.
func showStats(b *strings.Builder, r *engine.Review) {
	if len(r.Changes) > 0 {
		fmt.Fprintln(b, "\nAll changes:")
		tw := tabwriter.NewWriter(b, 0, 0, 1, ' ', 0)
		for _, s := range r.Changes[:min(len(r.Changes), mostStats)] {
			at := text.Line(s.Path)
			if s.From != "" {
				at = text.Line(s.From) + "/ -> " + at + "/"
			}
			fmt.Fprintf(tw, "  %s %s\t| %s\n", s.Status, at, statBar(s))
		}
		_ = tw.Flush() // into memory
		showMore(b, len(r.Changes), mostStats)
	}
	added, removed := 0, 0
	for _, s := range r.Changes {
		added += s.Added
		removed += s.Removed
	}
	if len(r.Changes)+r.InGit > 0 {
		fmt.Fprintf(b, "\n  %s, %s (+), %s (-)", count(len(r.Changes), "path", "paths"), count(added, "line", "lines"), count(removed, "line", "lines"))
		if r.InGit > 0 {
			fmt.Fprintf(b, "; %s below .git", count(r.InGit, "path", "paths"))
		}
		fmt.Fprintln(b)
	}
}

// statBar returns the number of changed lines with a bar of at most 40 signs.
func statBar(s engine.ReviewStat) string {
	const width = 40
	if s.Binary {
		return "Bin"
	}
	n := s.Added + s.Removed
	plus, minus := s.Added, s.Removed
	if n > width {
		plus, minus = (s.Added*width+n-1)/n, s.Removed*width/n
	}
	return strings.TrimRight(fmt.Sprintf("%4d %s%s", n, strings.Repeat("+", plus), strings.Repeat("-", minus)), " ")
}

func acceptCommand() *cobra.Command {
	var name string
	var yes, asJSON bool
	c := &cobra.Command{
		Use:   "accept [flags] PATH...",
		Short: "Take over the guest's version of a guarded file, after you have seen it",
		Long: `Take over the guest's version of a guarded file. bawn shows the difference to yours
and asks. A directory stands for each file in it that the guest has changed, made or removed.

Your file is replaced in one step by what was shown, and kept for bawn undo. If it was
changed since it was shown, nothing is replaced. Afterwards the guest sees your file
again. The host's permissions stay, but for those to execute.`,
		Example: `  bawn accept .vscode/tasks.json
  bawn accept .git/hooks           each hook that the guest has made
  bawn undo                        take it back`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			e, spec, err := openNamed(name)
			if err != nil {
				return err
			}
			a, err := e.Accept(spec.Name, args)
			if err != nil {
				return err
			}
			if err := agreedToAccept(c.OutOrStdout(), a, yes); err != nil {
				return err
			}
			res, err := a.Apply(c.Context())
			if asJSON {
				return errors.Join(err, printJSON(c.OutOrStdout(), res))
			}
			for _, p := range a.Same {
				fmt.Fprintf(c.OutOrStdout(), "%s does not differ: the guest sees yours again\n", text.Line(p))
			}
			showAccepted(c.OutOrStdout(), res)
			return err
		},
	}
	c.Flags().StringVarP(&name, "name", "n", "", "`NAME` of the sandbox (default: this directory's)")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do it without asking")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	_ = c.RegisterFlagCompletionFunc("name", completeNames)
	return c
}

// agreedToAccept shows the versions and asks about them.
func agreedToAccept(w io.Writer, a *engine.Acceptance, yes bool) error {
	switch {
	case yes || len(a.Shown) == 0:
		return nil
	case !attended():
		for _, k := range a.Shown {
			showKeptVersion(w, k)
		}
		return hint(errors.New("nothing was taken over: there is no terminal to ask at"), "bawn accept --yes PATH, when you have read the above")
	}
	for _, k := range a.Shown {
		showKeptVersion(os.Stderr, k)
	}
	if !askYes(fmt.Sprintf("\nPut %s on your host?", count(len(a.Shown), "this version", "these versions"))) {
		return errors.New("nothing was taken over")
	}
	return nil
}

func showAccepted(w io.Writer, r *engine.Accepted) {
	for _, p := range r.Paths {
		fmt.Fprintf(w, "accepted %s\n", text.Line(p))
	}
	if r.Point > 0 {
		fmt.Fprintf(w, "(to take this back: bawn undo --to %d)\n", r.Point)
	}
}

// sayOutcome says in one line, at a terminal, what of a session's work to review.
func sayOutcome(s *engine.Session) {
	if isTerminal(os.Stderr) {
		if line := outcomeLine(s.Outcome(), s.Spec.Throwaway); line != "" {
			fmt.Fprintln(os.Stderr, "bawn:", line)
		}
	}
}

// outcomeLine returns the line, or "" if there is nothing to review.
func outcomeLine(o engine.Outcome, throwaway bool) string {
	var parts []string
	if o.Runs > 0 {
		n := count(o.Runs, "change", "changes")
		if o.More {
			n = fmt.Sprintf("more than %d changes", o.Runs)
		}
		parts = append(parts, n+" that your host may run or trust")
	} else if o.More {
		parts = append(parts, "many changes")
	}
	if o.Kept > 0 {
		parts = append(parts, count(o.Kept, "guarded path", "guarded paths")+" kept from your host")
	}
	if o.Refused > 0 {
		parts = append(parts, fmt.Sprintf("%d refused", o.Refused))
	}
	line := strings.Join(parts, ", ")
	if line != "" && !throwaway {
		line += ": bawn review"
	}
	return line
}
