package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sys/text"
)

func policyCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "policy", Short: "Show and change what a sandbox may reach on the network",
		Long: `Show and change what a sandbox may reach on the network. Nothing is allowed by
default. A rule is HOST[:PORTS], ADDRESS[:PORTS], host:PORT (a service on the
host's loopback address) or preset:NAME (a set of rules). In a HOST, * stands for
one part of the name and ** for any number of parts, or none.

Changes take effect at once, also for open connections.`,
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

// scope is the flags that select the rules of one sandbox or of all.
type scope struct {
	name string
	all  bool
}

func (s *scope) register(c *cobra.Command) {
	c.Flags().StringVar(&s.name, "name", "", "`NAME` of the sandbox (default: this directory's)")
	c.Flags().BoolVar(&s.all, "all", false, "use the rules for all your sandboxes")
}

// arguments returns the scope as flags, for a command to suggest.
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

A rule is [udp:|raw:|ech:][private:]TARGET[:PORTS]. TARGET is
  example.org          this name
  *.example.org        names with one more part; * stands for one part, at any place
  **.example.org       the domain and all names below it
  192.0.2.7, 10.0.0.0/8, 2001:db8::1, [2001:db8::]/32:22
  host                 the host's loopback address, with a port (host:5432)
  host:192.168.1.20    an address of the host's interfaces, with a port; a rule for the
                       address alone means another machine
  preset:NAME          a set of rules (bawn policy presets)
PORTS are numbers and ranges (443,8000-8100) or *. An allow rule without them
means 443 and 80; a deny rule without them means all ports and protocols. udp: makes
a rule about UDP. raw: allows connections without inspecting their contents. ech:
permits Encrypted Client Hello, which browsers send. private: permits a name to have a
private address.

  'GET,HEAD https://api.example.org/v1/**'
is a rule about requests: methods (none: any), https or http, a host as above, and a
path in which * is one segment and ** any number. bawn ends TLS to such a host and
judges each request. A rule about the host without a URL allows all its requests.

  git:github.com/own/app            fetch from this repository over HTTPS and SSH
  git:github.com/own/app:push=main,feature/*
                                    also push to these branches (refs/tags/* for other
                                    refs; :delete behind them allows to delete them)
are rules about one git repository. bawn judges the refs of each push. git:origin is the
repository of that remote in the host's .git/config. github:own/app opens GitHub's API
for one repository: to read it and to write its issues and pull requests (:read: not), by REST and
GraphQL. gitlab:group/project does the same for GitLab (GraphQL: to read). A server of your own stands before
the repository: github:code.example.org/own/app.

A deny rule wins over every allow rule. docs/policy.md explains the reasons.`

func policyChangeCommand(action policy.Action) *cobra.Command {
	var s scope
	var remove bool
	short := map[policy.Action]string{
		policy.Allow: "Allow hosts, addresses and ports",
		policy.Deny:  "Deny hosts, addresses and ports, even where another rule allows them",
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
			err = changeRules(c.Context(), e, of, engine.RuleChange{Action: action, Rules: args, Remove: remove})
			if err == nil && action == policy.Allow && !remove {
				sayOpened(args)
			}
			return err
		},
	}
	s.register(c)
	c.Flags().BoolVar(&remove, "remove", false, "remove these rules instead of adding them")
	return c
}

// sayOpened prints what rules that the user gave open beyond the hosts that they name. It asks
// nothing: a rule on the command line is the user's word.
func sayOpened(rules []string) {
	for _, r := range rules {
		if x, err := engine.ExposureOf(r); err == nil && (x.Opens != "" || strings.Contains(r, "://")) {
			fmt.Fprintf(os.Stderr, "bawn: the guest may reach %s\n", text.Line(x.Text))
		}
	}
}

// changeRules changes rules and prints which of them have no effect.
func changeRules(ctx context.Context, e *engine.Engine, of engine.Scope, change engine.RuleChange) error {
	overruled, err := e.ChangeRules(ctx, of, change)
	for _, o := range overruled {
		fmt.Fprintf(os.Stderr, "bawn: %s stays denied, because a deny rule wins: %q (%s)\n", o.Rule.Text, &o.By, rowOf(o.By).from())
	}
	return err
}

func policyResetCommand() *cobra.Command {
	var s scope
	c := &cobra.Command{
		Use: "reset", Short: "Remove the sandbox's own rules, also those allowed once",
		Long: `Remove the sandbox's own rules, also those allowed once in bawn net ask; with
--all, remove the rules for all your sandboxes. bawn prints which other rules stay
in force.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			e, of, err := s.open()
			if err != nil {
				return err
			}
			left, err := e.ResetRules(c.Context(), of)
			if left.Project {
				fmt.Fprintln(os.Stderr, "bawn: the rules of the project's bawn.yaml stay in force (bawn trust --forget withdraws its approval)")
			}
			if left.Common {
				fmt.Fprintln(os.Stderr, "bawn: the rules for all sandboxes stay in force (bawn policy reset --all removes them)")
			}
			return err
		},
	}
	s.register(c)
	return c
}
