package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/sys/text"
)

// agentFlags are the flags about the agent that bawn run starts.
type agentFlags struct {
	name    string
	version string
	ask     bool
}

func (a *agentFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&a.name, "agent", "", "start the agent `NAME` (bawn agents) with the arguments, instead of a command")
	c.Flags().StringVar(&a.version, "agent-version", "", "use this `VERSION` of the agent's package (default: the sandbox's own, or the installed one)")
	c.Flags().BoolVar(&a.ask, "ask", false, "leave out the agent's flag for full autonomy: it asks before it acts")
	_ = c.RegisterFlagCompletionFunc("agent", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var names []string
		for _, k := range knownAgents() {
			names = append(names, k.Name)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	})
}

// check returns an error for flags that need an agent and have none.
func (a *agentFlags) check() error {
	if a.name == "" && (a.ask || a.version != "") {
		return hint(errors.New("--ask and --agent-version are about an agent, and none is named"), "bawn run --agent NAME --ask")
	}
	return nil
}

// runAgent runs an agent with its arguments in the sandbox that the flags mean.
func runAgent(ctx context.Context, f *specFlags, a agentFlags, throwaway bool, inv invocation, args []string) error {
	e, _, err := openEngine()
	if err != nil {
		return err
	}
	argv, pass, err := e.AgentCommand(a.name, a.ask, args)
	if err != nil {
		return err
	}
	inv.argv = argv
	f.env = agentEnv(pass, f.env)
	inv.agent = &engine.AgentRequest{Name: a.name, Version: a.version}
	return runIn(ctx, f, throwaway, inv)
}

// agentEnv returns the variables of an agent: those of the host that it gets, then those that the
// person names with --env. Of several with one name, the last counts.
func agentEnv(pass, named []string) []string { return slices.Concat(pass, named) }

// agentCommands returns a command for each agent. Its arguments are the agent's own, all of them.
func agentCommands() []*cobra.Command {
	var list []*cobra.Command
	for _, a := range knownAgents() {
		list = append(list, &cobra.Command{
			Use:                a.Name + " [ARGUMENT...]",
			Short:              "Run " + a.Summary + " on this directory",
			DisableFlagParsing: true,
			Long: "Run " + a.Summary + ` on this directory, at full autonomy, in the directory's sandbox.

All that follows the word is the agent's own. bawn's flags are those of bawn run:

  bawn run --agent ` + a.Name + ` [flags] -- [ARGUMENT...]

The first run installs the agent on this host. docs/agents.md has more.`,
			RunE: func(c *cobra.Command, args []string) error {
				var f specFlags
				f.register(c.Flags()) // defaults
				return runAgent(c.Context(), &f, agentFlags{name: a.Name}, false, invocation{}, args)
			},
		})
	}
	return list
}

// knownAgents returns the agents that have a command: those that come with bawn and those of the
// person's agents.yaml. If that file is not valid it returns the first only; bawn agents and the
// start of an agent report what is wrong.
func knownAgents() []engine.Agent {
	return slices.DeleteFunc(engine.NamedAgents(), func(a engine.Agent) bool { return slices.Contains(verbs, a.Name) })
}

// verbs are the words of bawn itself, which no agent can have.
var verbs = strings.Fields("agents login logout run shell exec cp ls stats inspect stop suspend resume snapshot undo review accept fork rm logs port ssh-config image volume cache pool policy net secret trust files doctor version help completion attack")

func agentsCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "agents", Short: "List the agents", Args: cobra.NoArgs,
		Long: `List the agents that bawn starts by one word, as bawn claude does. INSTALLED is the
version on this host; the first start of an agent installs it. RULES are what a sandbox
may reach once it has the agent (bawn policy presets shows them). Of the SECRETS an agent
needs one, if any: bawn secret keeps it on the host, and so does bawn login, for agents
that log in themselves. docs/agents.md has more, and how to add an agent.`,
		Example: `  bawn claude
  bawn login claude
  bawn run --agent claude --memory 8G -- --continue`,
		RunE: func(c *cobra.Command, _ []string) error {
			e, _, err := openEngine()
			if err != nil {
				return err
			}
			list, err := e.Agents()
			if err != nil {
				return err
			}
			return printAgents(c, e, list, asJSON)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// listedAgent is an agent as bawn agents --json prints it.
type listedAgent struct {
	engine.Agent
	Installed string `json:"installed,omitempty"` // version
}

func printAgents(c *cobra.Command, e *engine.Engine, list []engine.Agent, asJSON bool) error {
	var all []listedAgent
	for _, a := range list {
		all = append(all, listedAgent{a, e.InstalledAgent(a.Name)})
	}
	if asJSON {
		return printJSON(c.OutOrStdout(), all)
	}
	w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tINSTALLED\tPACKAGE\tRULES\tSECRETS")
	for _, a := range all {
		installed := a.Installed
		if installed == "" {
			installed = "-"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", a.Name, text.Line(installed), text.Line(a.Package), text.Line(strings.Join(a.Allow, " ")), strings.Join(a.Secrets, " "))
	}
	return w.Flush()
}

// installHint returns the next step when a guest has no such command, if it is an agent; "" for
// any other command.
func installHint(command string) string {
	for _, a := range knownAgents() {
		if a.Name == command {
			return "  try: bawn " + a.Name + "\n"
		}
	}
	return ""
}
