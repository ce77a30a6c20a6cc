package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sys/text"
)

// ruleRow is a rule as it is printed.
type ruleRow struct {
	Action string `json:"action"`
	Rule   string `json:"rule"`
	Preset string `json:"preset,omitempty"`
	File   string `json:"file"` // empty if it is allowed until the sandbox stops
	Line   int    `json:"line"`
	Column int    `json:"column"`
}

func rowOf(r policy.Rule) ruleRow {
	return ruleRow{r.Action.String(), r.Text, r.Preset, r.Source.File, r.Source.Line, r.Source.Column}
}

// from returns the place where the rule is written.
func (r ruleRow) from() string {
	if r.File == "" {
		return "allowed until the sandbox stops"
	}
	from := fmt.Sprintf("%s:%d", r.File, r.Line)
	if r.Preset != "" {
		from = "preset:" + r.Preset + ", " + from
	}
	return from
}

func policyShowCommand() *cobra.Command {
	var s scope
	var asJSON bool
	c := &cobra.Command{
		Use: "show", Short: "List the rules in force", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			e, of, err := s.open()
			if err != nil {
				return err
			}
			rules, err := e.Rules(c.Context(), of)
			if err != nil {
				return err
			}
			rows := []ruleRow{}
			for _, r := range rules {
				rows = append(rows, rowOf(r))
			}
			if asJSON {
				return printJSON(c.OutOrStdout(), rows)
			}
			if len(rows) == 0 {
				fmt.Fprintln(c.OutOrStdout(), "no rules: all network traffic is denied")
				return nil
			}
			tw := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 3, ' ', 0)
			fmt.Fprintln(tw, "ACTION\tRULE\tFROM")
			for _, r := range rows {
				fmt.Fprintf(tw, "%s\t%s\t%s\n", r.Action, r.Rule, r.from())
			}
			return tw.Flush()
		},
	}
	s.register(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func policyCheckCommand() *cobra.Command {
	var s scope
	var asJSON bool
	var method string
	c := &cobra.Command{
		Use: "check {HOST[:PORT] | [METHOD] URL}...", Short: "Show whether a target is allowed, and by which rule, without any traffic",
		Long: `Show whether a target is allowed, and by which rule, without any traffic. A
target is HOST, ADDRESS or host, with a port (443 if none is given); udp: before
it means UDP. Names are not looked up, so a name that resolves to a private address
is reported as allowed here; the connection is denied, and bawn net log shows why.
A URL asks about a request: its method is the word before the URL, else that of
--method, else GET. The exit status is 0 if all targets are allowed and 1 if one is
not.`,
		Example: `  bawn policy check registry.example.org:443 host:5432
  bawn policy check udp:time.example.org:123 '[2001:db8::1]:22'
  bawn policy check DELETE https://api.example.org/v1/items/7`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			e, of, err := s.open()
			if err != nil {
				return err
			}
			verdicts, err := e.Decide(c.Context(), of, checkTargets(args, method))
			if err != nil {
				return err
			}
			var list []checkRow
			denied := false
			for _, v := range verdicts {
				denied = denied || !v.Allow
				list = append(list, checkRowOf(v))
			}
			if asJSON {
				err = printJSON(c.OutOrStdout(), list)
			} else {
				s.printChecks(c.OutOrStdout(), list)
			}
			if err == nil && denied {
				return exitStatus(1)
			}
			return err
		},
	}
	s.register(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().StringVar(&method, "method", "", "`METHOD` of the URLs (default GET)")
	return c
}

// checkTargets joins each method with the URL behind it, and gives other URLs the method of
// the flag.
func checkTargets(args []string, method string) (targets []string) {
	isURL := func(s string) bool { return strings.Contains(s, "://") }
	for i := 0; i < len(args); i++ {
		t := args[i]
		switch {
		case !isURL(t) && !strings.ContainsAny(t, ".:") && i+1 < len(args) && isURL(args[i+1]) && !strings.Contains(args[i+1], " "):
			i++
			t += " " + args[i]
		case isURL(t) && method != "" && !strings.Contains(t, " "):
			t = method + " " + t
		}
		targets = append(targets, t)
	}
	return targets
}

// checkRow is what the rules say of one target.
type checkRow struct {
	Target  string   `json:"target"`
	Allow   bool     `json:"allow"`
	Reason  string   `json:"reason"`
	Rule    *ruleRow `json:"rule,omitempty"`    // that decided
	Suggest string   `json:"suggest,omitempty"` // the rule that is missing
}

func checkRowOf(v engine.Verdict) checkRow {
	row := checkRow{Target: v.Target.String(), Allow: v.Allow, Reason: v.Reason, Suggest: v.Missing}
	if v.Request != nil {
		row.Target = v.Request.String()
	}
	if v.Rule != nil {
		r := rowOf(*v.Rule)
		row.Rule = &r
	}
	return row
}

func (s *scope) printChecks(w io.Writer, list []checkRow) {
	for _, row := range list {
		word := policy.Deny
		if row.Allow {
			word = policy.Allow
		}
		fmt.Fprintf(w, "%s %s: %s", word, row.Target, row.Reason)
		if row.Rule != nil {
			fmt.Fprintf(w, " (%s)", row.Rule.from())
		}
		fmt.Fprintln(w)
		if row.Suggest != "" {
			fmt.Fprintf(w, "  try: bawn policy allow %s%s\n", s.arguments(), text.ShellWord(row.Suggest))
			if x, err := engine.ExposureOf(row.Suggest); err == nil && x.Opens != "" {
				fmt.Fprintf(w, "  which opens %s\n", x.Opens)
			}
		}
	}
}

func policyPresetsCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "presets [NAME]", Short: "List the presets, or the rules of one", Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			list := policy.Presets()
			if len(args) == 1 {
				list = slices.DeleteFunc(list, func(p policy.Preset) bool { return p.Name != args[0] })
				if len(list) == 0 {
					return hint(fmt.Errorf("there is no preset %q", args[0]), "bawn policy presets")
				}
			}
			if asJSON {
				return printJSON(c.OutOrStdout(), list)
			}
			tw := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 3, ' ', 0)
			fmt.Fprintln(tw, "PRESET\tPURPOSE\tRULES")
			for _, p := range list {
				fmt.Fprintf(tw, "%s\t%s\t%s\n", p.Name, p.Summary, strings.Join(p.Rules, " "))
			}
			if err := tw.Flush(); err != nil {
				return err
			}
			for _, p := range list {
				if p.Publishes != "" {
					fmt.Fprintf(c.OutOrStdout(), "Note: %s %s.\n", p.Name, p.Publishes)
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
