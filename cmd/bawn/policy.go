package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/egress"
	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/sys/atomicfile"
	"bawn.dev/bawn/internal/sys/lockfile"
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

// scope is whose rules a verb is about.
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

// file is where the scope's rules stand, and the sandbox's folder.
func (s *scope) file() (file string, d *store.Dir, err error) {
	if s.all {
		file, err = store.CommonPolicy()
		return file, nil, err
	}
	sandboxes, err := store.Open()
	if err != nil {
		return "", nil, err
	}
	spec, err := lookup(sandboxes, s.name)
	if err != nil {
		return "", nil, err
	}
	dir := sandboxes.Dir(spec.Name)
	return dir.File(store.PolicyFile), &dir, nil
}

// inForce are the rules that a sandbox obeys, or those common to all.
func (s *scope) inForce(ctx context.Context) ([]policy.Rule, error) {
	file, d, err := s.file()
	if err != nil {
		return nil, err
	}
	if d == nil {
		rules, err := store.RulesIn(file)
		return rules, s.mend(err)
	}
	rules, err := d.Rules()
	if err != nil {
		return nil, s.mend(err)
	}
	once, err := rulesOnce(ctx, *d)
	return append(rules, once...), err
}

// rulesOnce are those that a running sandbox has until it stops (bawn net ask).
func rulesOnce(ctx context.Context, d store.Dir) ([]policy.Rule, error) {
	if st, err := d.State(); err != nil || st.Phase != sandbox.Running {
		return nil, err
	}
	texts, err := control.NewClient(d).AllowedOnce(ctx)
	var rules []policy.Rule
	for _, t := range texts {
		r, perr := policy.ParseRule(policy.Allow, t)
		rules, err = append(rules, r...), errors.Join(err, perr)
	}
	return rules, err
}

type ruleRow struct {
	Action string `json:"action"`
	Rule   string `json:"rule"`
	Preset string `json:"preset,omitempty"`
	File   string `json:"file"`
	Line   int    `json:"line"` // and the file is empty of what is allowed until the sandbox stops
	Column int    `json:"column"`
}

func rowOf(r policy.Rule) ruleRow {
	return ruleRow{r.Action.String(), r.Text, r.Preset, r.Source.File, r.Source.Line, r.Source.Column}
}

// from says where the rule stands.
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
			rules, err := s.inForce(c.Context())
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
			rules, err := s.inForce(c.Context())
			if err != nil {
				return err
			}
			set := policy.Compile(rules)
			var list []checkRow
			denied := false
			for _, a := range args {
				f, err := policy.ParseFlow(a)
				if err != nil {
					return err
				}
				row := check(f, egress.Check(set, f))
				denied = denied || !row.Allow
				list = append(list, row)
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

func check(f policy.Flow, d policy.Decision) checkRow {
	row := checkRow{Target: f.String(), Allow: d.Allow, Reason: d.Reason, Suggest: suggestion(f, d)}
	if d.Rule != nil {
		r := rowOf(*d.Rule)
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

// suggestion is the missing rule, when that is all that is missing.
func suggestion(f policy.Flow, d policy.Decision) string {
	if d.Allow || d.Rule != nil {
		return ""
	}
	return policy.Suggest(f)
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
			return s.change(c.Context(), action, args, remove)
		},
	}
	s.register(c)
	c.Flags().BoolVar(&remove, "remove", false, "take the rules away again")
	return c
}

// change adds or removes lines of the scope's file.
func (s *scope) change(ctx context.Context, action policy.Action, texts []string, remove bool) error {
	file, d, err := s.file()
	if err != nil {
		return err
	}
	var lines []string
	for _, t := range texts {
		line, err := ruleLine(action, t)
		if err != nil {
			return err
		}
		lines = append(lines, line)
	}
	if err := s.edit(ctx, file, func(old []string) ([]string, error) {
		if !remove {
			return addLines(old, lines), nil
		}
		for _, l := range lines {
			if !hasLine(old, l) {
				return nil, hint(fmt.Errorf("there is no rule %q in %s", l, file), "bawn policy show")
			}
		}
		return slices.DeleteFunc(old, func(l string) bool { return slices.Contains(lines, ruleOf(l)) }), nil
	}); err != nil {
		return err
	}
	if action == policy.Allow && !remove {
		s.warnOverruled(ctx, texts)
	}
	return s.reload(ctx, d)
}

// warnOverruled tells the person who allows something that it stays denied.
func (s *scope) warnOverruled(ctx context.Context, texts []string) {
	all, err := s.inForce(ctx)
	if err != nil {
		return // which the reload says
	}
	set := policy.Compile(all)
	for _, t := range texts {
		rules, err := policy.ParseRule(policy.Allow, t)
		if err != nil || len(rules) != 1 {
			continue
		}
		if by := set.Overruled(&rules[0]); by != nil {
			fmt.Fprintf(os.Stderr, "bawn: %s stays denied, since deny wins: %q (%s)\n", rules[0].Text, by, rowOf(*by).from())
		}
	}
}

// ruleLine is a rule as a line of a file, in one way of writing.
func ruleLine(action policy.Action, text string) (string, error) {
	text, err := policy.Canonical(action, text)
	return action.String() + " " + text, hint(err, "bawn policy --help")
}

// ruleOf is a line as ruleLine writes it, without its comment; a line that is no
// rule stays.
func ruleOf(line string) string {
	code, _, _ := strings.Cut(line, "#")
	words := strings.Fields(code)
	if len(words) != 2 {
		return line
	}
	for _, a := range []policy.Action{policy.Allow, policy.Deny} {
		if words[0] != a.String() {
			continue
		}
		if text, err := policy.Canonical(a, words[1]); err == nil {
			return a.String() + " " + text
		}
	}
	return line
}

func hasLine(lines []string, rule string) bool {
	return slices.ContainsFunc(lines, func(l string) bool { return ruleOf(l) == rule })
}

func addLines(old, lines []string) []string {
	for _, l := range lines {
		if !hasLine(old, l) {
			old = append(old, l)
		}
	}
	return old
}

// mend is what to do about a file that makes no sense.
func (s *scope) mend(err error) error {
	var wrong *policy.SyntaxError
	if !errors.As(err, &wrong) {
		return err
	}
	flags := s.arguments()
	if common, cerr := store.CommonPolicy(); cerr == nil && common == wrong.File {
		flags = "--all"
	}
	return hint(err, "%s", strings.TrimSpace(fmt.Sprintf("mend %s by hand, or bawn policy reset %s", wrong.File, flags)))
}

// warnRules tells who uses a sandbox that its rules cannot be loaded: without a
// network most commands fail in ways that do not say so.
func warnRules(d store.Dir) {
	if _, err := d.Rules(); err != nil {
		s := scope{name: nameOf(d)}
		report(os.Stderr, s.mend(fmt.Errorf("nothing passes to the network: %w", err)))
	}
}

// edit changes a file of rules under a lock; what is not a rule stays. The
// result must make sense, or the file stays as it was.
func (s *scope) edit(ctx context.Context, file string, edit func([]string) ([]string, error)) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	l, err := lockfile.Acquire(ctx, file+".lock")
	if err != nil {
		return err
	}
	defer l.Close()
	b, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var lines []string
	if len(b) > 0 {
		lines = strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	}
	if lines, err = edit(lines); err != nil {
		return err
	}
	text := []byte(strings.Join(lines, "\n") + "\n")
	if _, err := policy.ParseFile(file, text); err != nil {
		return s.mend(err)
	}
	return atomicfile.Write(file, text)
}

// reload puts the rules in force where sandboxes run.
func (s *scope) reload(ctx context.Context, d *store.Dir) error {
	if d != nil {
		return reloadPolicy(ctx, *d)
	}
	sandboxes, err := store.Open()
	if err != nil {
		return err
	}
	names, err := sandboxes.Names()
	for _, n := range names {
		err = errors.Join(err, reloadPolicy(ctx, sandboxes.Dir(n)))
	}
	return err
}

func reloadPolicy(ctx context.Context, d store.Dir) error {
	if st, err := d.State(); err != nil || st.Phase != sandbox.Running {
		return err
	}
	return control.NewClient(d).ReloadPolicy(ctx)
}

func policyResetCommand() *cobra.Command {
	var s scope
	c := &cobra.Command{
		Use: "reset", Short: "Remove the sandbox's own rules, also those allowed once",
		Long: `Remove the sandbox's own rules, also those allowed once; with --all, the rules
that hold for all your sandboxes. What is left is said.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			file, d, err := s.file()
			if err != nil {
				return err
			}
			if err := removeRules(c.Context(), file); err != nil {
				return err
			}
			if d == nil {
				return s.reload(c.Context(), nil)
			}
			s.sayLeft(*d)
			if st, err := d.State(); err != nil || st.Phase != sandbox.Running {
				return err
			}
			return control.NewClient(*d).ForgetOnce(c.Context())
		},
	}
	s.register(c)
	return c
}

// removeRules removes a file of rules, not in the middle of somebody's change.
func removeRules(ctx context.Context, file string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	l, err := lockfile.Acquire(ctx, file+".lock")
	if err != nil {
		return err
	}
	defer l.Close()
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// sayLeft tells which rules a reset of a sandbox leaves in force.
func (s *scope) sayLeft(d store.Dir) {
	if r, err := store.RulesIn(d.File(store.ProjectPolicyFile)); err != nil || len(r) > 0 {
		fmt.Fprintln(os.Stderr, "bawn: the rules of the project's bawn.yaml stay (bawn trust --forget withdraws them)")
	}
	common, err := store.CommonPolicy()
	if err != nil {
		return
	}
	if r, err := store.RulesIn(common); err != nil || len(r) > 0 {
		fmt.Fprintln(os.Stderr, "bawn: the rules for all sandboxes stay (bawn policy reset --all removes them)")
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
			file, d, err := s.file()
			if err != nil {
				return err
			}
			rules, err := d.Rules()
			if err != nil {
				return err
			}
			settleLog(c.Context(), *d)
			flows, err := deniedFlows(d.File(store.NetLogFile))
			if err != nil {
				return err
			}
			proposal := policy.Compile(rules).Propose(flows)
			if len(proposal) == 0 {
				fmt.Fprintln(c.OutOrStdout(), "nothing to add: the log shows no denial that a rule would lift")
				return nil
			}
			fmt.Fprintf(c.OutOrStdout(), "--- %s\n", file)
			for _, p := range proposal {
				fmt.Fprintf(c.OutOrStdout(), "+allow %s\n", p)
			}
			if !yes && !confirm("Add these rules?") {
				return nil
			}
			return s.change(c.Context(), policy.Allow, proposal, false)
		},
	}
	s.register(c)
	c.Flags().BoolVarP(&yes, "yes", "y", false, "add them without asking")
	return c
}

// deniedFlows are what the log shows denied for want of a rule. A name of which
// only the address was asked for was meant for HTTPS, most likely.
func deniedFlows(log string) ([]policy.Flow, error) {
	var flows []policy.Flow
	err := egress.ReadLog(log, func(e egress.Entry) error {
		if e.Verdict != egress.Denied || e.Suggest == "" || !e.WantsHost() {
			return nil
		}
		if f, err := missing(e); err == nil && !slices.Contains(flows, f) {
			flows = append(flows, f)
		}
		return nil
	})
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return flows, err
}

// missing is the flow that a denial is about. What it suggests may be about an
// address behind its name, and names neither of the usual ports.
func missing(e egress.Entry) (policy.Flow, error) {
	f, err := policy.ParseFlow(e.Suggest)
	if e.Port != 0 {
		f.Port = e.Port
	}
	return f, err
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
