package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/sys/text"
)

// loginFlags are those of bawn login.
type loginFlags struct {
	spec     specFlags
	fromHost bool
}

func loginCommand() *cobra.Command {
	var f loginFlags
	c := &cobra.Command{
		Use: "login AGENT [ARGUMENT...]", Short: "Log an agent in; its tokens stay on the host",
		Long: `Log an agent in, in this directory's sandbox, by the agent's own command. The tokens
that its server gives out are kept on the host, for all your sandboxes with that agent;
the guest has placeholders, which bawn replaces on the way to the agent's own servers.
ARGUMENT... are arguments of the agent instead of those with which bawn has it log in.

If the agent is logged in on this host already, bawn asks once whether its sandboxes
shall use that login. bawn only reads its file then, and the agent on the host renews it.

An agent that logs in by itself in a sandbox, while no login is kept, needs no bawn login.
docs/login.md has more.`,
		Example: `  bawn login claude
  bawn login --from-host codex
  bawn login ls`,
		Args: cobra.MinimumNArgs(1), ValidArgsFunction: completeLogins,
		RunE: func(c *cobra.Command, args []string) error { return f.login(c.Context(), args[0], args[1:]) },
	}
	f.spec.register(c.Flags())
	f.spec.complete(c)
	c.Flags().BoolVar(&f.fromHost, "from-host", false, "use the login that the agent has on this host, without asking")
	c.Flags().SetInterspersed(false)
	c.AddCommand(loginLsCommand())
	return c
}

// login does the work of bawn login.
func (f *loginFlags) login(ctx context.Context, agent string, args []string) error {
	e, shown, err := openEngine()
	if err != nil {
		return err
	}
	file, err := e.HostLogin(agent)
	if err != nil {
		return err
	}
	switch {
	case f.fromHost && file == "":
		return hint(fmt.Errorf("%s has no login on this host that bawn can use", text.Line(agent)), "bawn login %s", text.Line(agent))
	case f.fromHost, file != "" && attended() && askYes(fmt.Sprintf("Use the login of %s in %s for its sandboxes? bawn only reads the file.", agent, text.Line(file))):
		if err := e.UseHostLogin(agent); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "bawn: sandboxes with %s use the login in %s\n", agent, text.Line(file))
		return nil
	}
	own, err := e.LoginArguments(agent)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		args = own
	}
	argv, pass, err := e.AgentCommand(agent, true, args)
	if err != nil {
		return err
	}
	f.spec.env = agentEnv(pass, f.spec.env)
	r, err := f.spec.request(false, "")
	if err != nil {
		return err
	}
	r.Agent = &engine.AgentRequest{Name: agent}
	s, err := acquire(ctx, e, r)
	if err != nil {
		return err
	}
	shut, err := e.OpenLogin(agent, s.Spec.ID)
	if err != nil {
		return errors.Join(err, s.Close())
	}
	err = use(ctx, shown, s, invocation{argv: argv, env: f.spec.env})
	return errors.Join(err, shut(), f.tell(e, agent))
}

// tell says whether there is a login now.
func (f *loginFlags) tell(e *engine.Engine, agent string) error {
	list, err := e.Logins()
	if err != nil {
		return err
	}
	for _, l := range list {
		if l.Agent == agent {
			fmt.Fprintf(os.Stderr, "bawn: the login of %s%s is kept on this host\n", agent, ofAccount(l.Account))
			return nil
		}
	}
	fmt.Fprintf(os.Stderr, "bawn: %s did not log in: no login is kept on this host\n", agent)
	return exitStatus(exitFailed)
}

func ofAccount(account string) string {
	if account == "" {
		return ""
	}
	return " (" + text.Line(account) + ")"
}

func loginLsCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "ls", Short: "List the logins, without their tokens", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			e, _, err := openEngine()
			if err != nil {
				return err
			}
			list, err := e.Logins()
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(c.OutOrStdout(), append([]engine.Login{}, list...))
			}
			tw := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 3, ' ', 0)
			fmt.Fprintln(tw, "AGENT\tACCOUNT\tFROM\tRENEWED\tSTATE")
			for _, l := range list {
				fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", l.Agent, text.Line(orDash(l.Account)), loginFrom(l), l.Renewed.Local().Format(time.DateTime), loginState(l))
			}
			return tw.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// loginFrom says where a login was made.
func loginFrom(l engine.Login) string {
	if l.Host {
		return "this host"
	}
	return "sandbox " + text.Line(l.Sandbox)
}

// loginState says whether a login works.
func loginState(l engine.Login) string {
	if l.Refused != "" {
		return "refused by the server (" + text.Line(l.Refused) + "): bawn login " + l.Agent
	}
	return "ok"
}

func logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use: "logout AGENT...", Short: "Remove logins of agents from this host",
		Long: `Remove the tokens of agents from this host. Sandboxes cannot use them from the next
request on. The login is not ended at the server: do that in your account there. A
login that is the host's own stays on the host.`,
		Args: cobra.MinimumNArgs(1), ValidArgsFunction: completeLogins,
		RunE: func(_ *cobra.Command, args []string) error {
			e, _, err := openEngine()
			if err != nil {
				return err
			}
			for _, agent := range args {
				if err := e.Logout(agent); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// completeLogins completes agents whose logins bawn can keep.
func completeLogins(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	for _, a := range engine.NamedAgents() {
		if a.OAuth != nil && len(args) == 0 {
			names = append(names, a.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
