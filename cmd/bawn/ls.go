package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/size"
	"bawn.dev/bawn/internal/sys/text"
)

func lsCommand() *cobra.Command {
	var asJSON, quiet bool
	c := &cobra.Command{
		Use: "ls", Aliases: []string{"list", "ps"},
		Short: "List the sandboxes",
		Long: `List the sandboxes. DISK is the space that a sandbox's disk takes on the host, and
its largest size; the number after a + is the space of its snapshots and of its
suspended memory. Below the table is what agents ask for (bawn net ask).`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			e, _, err := openEngine()
			if err != nil {
				return err
			}
			rows, failed, err := e.List(c.Context())
			if err != nil {
				return err
			}
			for _, name := range slices.Sorted(maps.Keys(failed)) {
				fmt.Fprintln(os.Stderr, "bawn:", message(failed[name]))
			}
			return list(c.OutOrStdout(), append([]*engine.Info{}, rows...), asJSON, quiet)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print names only")
	return c
}

func inspectCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:               "inspect [NAME]",
		Short:             "Show the settings and the state of a sandbox as JSON",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeName,
		RunE: func(c *cobra.Command, args []string) error {
			e, spec, err := namedSandbox(args)
			if err != nil {
				return err
			}
			i, err := e.Describe(c.Context(), spec.Name)
			if err != nil {
				return err
			}
			return printJSON(c.OutOrStdout(), i)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", true, "print JSON (always so)")
	return c
}

func list(w io.Writer, rows []*engine.Info, asJSON, quiet bool) error {
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
	if err := tw.Flush(); err != nil {
		return err
	}
	return listAsked(w, rows)
}

// maxListedAsks bounds the requests of one sandbox that bawn ls shows.
const maxListedAsks = 3

// listAsked prints what the agents in sandboxes ask for.
func listAsked(w io.Writer, rows []*engine.Info) (err error) {
	for _, r := range rows {
		if r.Status == nil || len(r.Status.Access) == 0 {
			continue
		}
		var rules []string
		for _, a := range r.Status.Access {
			rules = append(rules, text.Line(a.Rule))
		}
		if more := len(rules) - maxListedAsks; more > 0 {
			rules = append(rules[:maxListedAsks], fmt.Sprintf("%d more", more))
		}
		_, err = fmt.Fprintf(w, "The agent in %s asks for %s; to decide: bawn net ask --name %s\n", r.Name, strings.Join(rules, ", "), r.Name)
	}
	return err
}

func diskWords(r *engine.Info) string {
	words := size.Format(r.DiskUsed) + " of " + size.Format(r.Disk)
	if kept := r.SnapshotsUsed + r.SuspendedUsed; kept > 0 {
		words += " + " + size.Format(kept)
	}
	return words
}

func stateWords(r *engine.Info) string {
	s := r.State
	if r.Status != nil && r.Status.Starved {
		return "paused: host disk full"
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

func portWords(r *engine.Info) string {
	ports := r.Ports
	if r.Status != nil {
		ports = r.Status.Ports
	}
	var words []string
	for _, p := range ports {
		words = append(words, fmt.Sprintf("%s->%d", hostPort(p), p.Guest))
	}
	return orDash(strings.Join(words, ","))
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
