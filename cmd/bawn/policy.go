package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/policy"
)

func policyCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "policy", Short: "Say what a sandbox may reach on the network",
		Long: `Say what a sandbox may reach on the network. Nothing is allowed by default. A
rule is HOST[:PORTS], ADDRESS[:PORTS], host:PORT (a service on this machine's
loopback) or preset:NAME; * stands for one part of a name, ** for any number of
them, also none.
Changes take effect at once, also on connections that are open.`,
		Example: `  bawn policy allow preset:npm github.com:22,443
  bawn policy allow host:5432
  bawn policy check registry.example.org:443`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(policyShowCommand(), policyCheckCommand(), policyChangeCommand(policy.Allow), policyChangeCommand(policy.Deny),
		policyResetCommand(), policyPresetsCommand(), policyLearnCommand())
	return c
}

// scope is whose rules a verb is about, as its flags say it.
type scope struct {
	name string
	all  bool
}

func (s *scope) register(c *cobra.Command) {
	c.Flags().StringVar(&s.name, "name", "", "`NAME` of the sandbox (default: this directory's)")
	c.Flags().BoolVar(&s.all, "all", false, "the rules that hold for all your sandboxes")
}

// arguments are the flags that mean the same scope again.
func (s *scope) arguments() string {
	switch {
	case s.all:
		return "--all "
	case s.name != "":
		return "--name " + s.name + " "
	}
	return ""
}

// open opens the engine and finds the sandbox that the flags mean.
func (s *scope) open() (*engine.Engine, engine.Scope, error) {
	e, _, err := openEngine()
	if err != nil || s.all {
		return e, engine.Scope{All: true}, err
	}
	spec, err := find(e, s.name)
	if err != nil {
		return nil, engine.Scope{}, err
	}
	return e, engine.Scope{Sandbox: spec.Name}, nil
}

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

// from is where the rule is written.
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
				fmt.Fprintln(c.OutOrStdout(), "no rules: nothing passes")
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
	c := &cobra.Command{
		Use: "check HOST[:PORT]...", Short: "Say whether a target is allowed, and by which rule, without any traffic",
		Long: `Say whether a target is allowed, and by which rule, without any traffic. A
target is HOST, ADDRESS or host with a port (443 if none is given); udp: before
it asks about UDP. To where a name leads is not looked up: a name that leads to
a private address, say, is denied when it is dialled, and the log says so. The
exit status is 0 when all are allowed and 1 when one is not.`,
		Example: `  bawn policy check registry.example.org:443 host:5432
  bawn policy check udp:time.example.org:123 '[2001:db8::1]:22'`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			e, of, err := s.open()
			if err != nil {
				return err
			}
			verdicts, err := e.Decide(c.Context(), of, args)
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
	return c
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
			fmt.Fprintf(w, "  try: bawn policy allow %s%s\n", s.arguments(), row.Suggest)
		}
	}
}

const ruleHelp = `

A rule is [udp:|raw:]TARGET[:PORTS]. TARGET is
  example.org          this name
  *.example.org        one more part before it; * stands for one part anywhere
  **.example.org       the domain and everything below it
  192.0.2.7, 10.0.0.0/8, 2001:db8::1, [2001:db8::]/32:22
  host                 this machine's own loopback, with a port
  preset:NAME          a set of rules (bawn policy presets)
PORTS are numbers and ranges (443,8000-8100) or *. An allow rule without them
means 443 and 80, a deny rule all ports and protocols. udp: is about UDP; raw:
lets bytes pass unseen. Deny wins. docs/policy.md has the reasons.`

func policyChangeCommand(action policy.Action) *cobra.Command {
	var s scope
	var remove bool
	short := map[policy.Action]string{
		policy.Allow: "Allow hosts, addresses and ports, at once and from now on",
		policy.Deny:  "Deny them, whatever else allows them",
	}[action]
	c := &cobra.Command{
		Use: action.String() + " RULE...", Short: short, Long: short + "." + ruleHelp,
		Example: fmt.Sprintf("  bawn policy %[1]s example.org '**.example.net:443,8000-8100'\n  bawn policy %[1]s --remove example.org", action),
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return s.change(c.Context(), engine.RuleChange{Action: action, Rules: args, Remove: remove})
		},
	}
	s.register(c)
	c.Flags().BoolVar(&remove, "remove", false, "take the rules away again")
	return c
}

// change changes the scope's rules and prints which of them have no effect.
func (s *scope) change(ctx context.Context, change engine.RuleChange) error {
	e, of, err := s.open()
	if err != nil {
		return err
	}
	overruled, err := e.ChangeRules(ctx, of, change)
	for _, o := range overruled {
		fmt.Fprintf(os.Stderr, "bawn: %s stays denied, since deny wins: %q (%s)\n", o.Rule.Text, &o.By, rowOf(o.By).from())
	}
	return err
}

func policyResetCommand() *cobra.Command {
	var s scope
	c := &cobra.Command{
		Use: "reset", Short: "Remove the sandbox's own rules, also those allowed once",
		Long: `Remove the sandbox's own rules, also those allowed once; with --all, the rules
that hold for all your sandboxes. bawn prints which other rules stay in force.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			e, of, err := s.open()
			if err != nil {
				return err
			}
			left, err := e.ResetRules(c.Context(), of)
			if left.Project {
				fmt.Fprintln(os.Stderr, "bawn: the rules of the project's bawn.yaml stay (bawn trust --forget withdraws them)")
			}
			if left.Common {
				fmt.Fprintln(os.Stderr, "bawn: the rules for all sandboxes stay (bawn policy reset --all removes them)")
			}
			return err
		},
	}
	s.register(c)
	return c
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
			fmt.Fprintln(tw, "PRESET\tFOR\tRULES")
			for _, p := range list {
				fmt.Fprintf(tw, "%s\t%s\t%s\n", p.Name, p.Summary, strings.Join(p.Rules, " "))
			}
			return tw.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func policyLearnCommand() *cobra.Command {
	var s scope
	var yes bool
	c := &cobra.Command{
		Use: "learn", Short: "Propose the rules that would have allowed what the log shows denied",
		Long: `Propose the smallest set of rules that would have allowed what this sandbox's
network log shows denied, as lines to add. They are added when you agree.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if s.all {
				return errors.New("--all: a log belongs to one sandbox")
			}
			e, of, err := s.open()
			if err != nil {
				return err
			}
			proposal, err := e.ProposeRules(c.Context(), of.Sandbox)
			if err != nil {
				return err
			}
			if len(proposal.Rules) == 0 {
				fmt.Fprintln(c.OutOrStdout(), "nothing to add: the log shows no denial that a rule would lift")
				return nil
			}
			fmt.Fprintf(c.OutOrStdout(), "--- %s\n", proposal.File)
			for _, p := range proposal.Rules {
				fmt.Fprintf(c.OutOrStdout(), "+allow %s\n", p)
			}
			if !yes && !confirm("Add these rules?") {
				return nil
			}
			return s.change(c.Context(), engine.RuleChange{Action: policy.Allow, Rules: proposal.Rules})
		},
	}
	s.register(c)
	c.Flags().BoolVarP(&yes, "yes", "y", false, "add them without asking")
	return c
}

// confirm asks the person; without a terminal the answer is no.
func confirm(question string) bool {
	if !isTerminal(os.Stdin) || !isTerminal(os.Stderr) {
		fmt.Fprintln(os.Stderr, "bawn: nothing is added unattended (--yes adds them)")
		return false
	}
	return askYes(question)
}

// askYes asks the person at the terminal.
func askYes(question string) bool {
	fmt.Fprintf(os.Stderr, "%s [y/N] ", question)
	var answer string
	_, _ = fmt.Fscanln(os.Stdin, &answer)
	return strings.HasPrefix(strings.ToLower(answer), "y")
}
