package main

import (
	"context"
	"fmt"
	"os"

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
			e, of, err := s.open()
			if err != nil {
				return err
			}
			return changeRules(c.Context(), e, of, engine.RuleChange{Action: action, Rules: args, Remove: remove})
		},
	}
	s.register(c)
	c.Flags().BoolVar(&remove, "remove", false, "take the rules away again")
	return c
}

// changeRules changes rules and prints which of them have no effect.
func changeRules(ctx context.Context, e *engine.Engine, of engine.Scope, change engine.RuleChange) error {
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
