package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sys/text"
)

func netCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "net", Short: "Show the network log of a sandbox, and decide about denials",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(netLogCommand(), netAskCommand())
	return c
}

func netLogCommand() *cobra.Command {
	var follow, denied, asJSON bool
	var name string
	c := &cobra.Command{
		Use: "log", Short: "Show every allowed and denied connection of a sandbox", Args: cobra.NoArgs,
		Long: `Show every allowed and denied connection of a sandbox: time, verdict, protocol,
the process in the guest, name or address and port, rule or reason; at the end of a
connection, its bytes and duration. The guest reports the process, and may lie about
it. The size of the log is limited; the oldest entries are dropped first.
docs/policy.md lists the fields of --json.`,
		Example: `  bawn net log -f --denied
  bawn net log --json | jq 'select(.event == "close") | [.name, .sent]'`,
		RunE: func(c *cobra.Command, _ []string) error {
			e, of, err := (&scope{name: name}).open()
			if err != nil {
				return err
			}
			if !asJSON {
				fmt.Fprintln(c.OutOrStdout(), engine.LogHeading)
			}
			read := e.ReadNetLog
			if follow {
				read = e.FollowNetLog
			}
			err = read(c.Context(), of.Sandbox, func(entry engine.LogEntry) error {
				if denied && entry.Verdict != engine.Denied {
					return nil
				}
				return printEntry(c.OutOrStdout(), entry, asJSON)
			})
			if errors.Is(err, context.Canceled) || engine.ReasonOf(err) == engine.NotFound {
				return nil // there is no more to show
			}
			return err
		},
	}
	c.Flags().StringVar(&name, "name", "", "`NAME` of the sandbox (default: this directory's)")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "keep printing new entries")
	c.Flags().BoolVar(&denied, "denied", false, "show denials only")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON lines")
	return c
}

// allowCommand is the command that adds a rule, shown with the rule that is missing.
const allowCommand = "bawn policy allow"

func printEntry(w io.Writer, e engine.LogEntry, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(e)
	}
	_, err := fmt.Fprintln(w, e.Text(allowCommand))
	return err
}

func netAskCommand() *cobra.Command {
	var s scope
	c := &cobra.Command{
		Use: "ask", Short: "Ask about what the agent asks for, and about each new denial",
		Long: `Ask about the rules that the agent in the sandbox asks for, and about each new denial
as it happens, until you press Ctrl-C: allow it until the sandbox stops (once), for
this sandbox (sandbox), for all your sandboxes (always), or leave it denied. A denied
connection has failed by then; the command in the sandbox has to try again. The reason
for a rule is the agent's own: it may be mistaken, or tricked.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if !isTerminal(os.Stdin) {
				return errors.New("bawn net ask needs a terminal; without one, denied traffic stays denied")
			}
			e, of, err := s.open()
			if err != nil {
				return err
			}
			return ask(c.Context(), e, of.Sandbox, os.Stdin, c.OutOrStdout())
		},
	}
	c.Flags().StringVar(&s.name, "name", "", "`NAME` of the sandbox (default: this directory's)")
	return c
}

// ask asks about each rule that is missing, until in ends or ctx does.
func ask(ctx context.Context, e *engine.Engine, name string, in *os.File, out io.Writer) error {
	denials := e.Denials(ctx, name)
	person := newPrompter(in, out)
	fmt.Fprintln(out, "Waiting for denials and for what the agent asks for. Interrupt with Ctrl-C.")
	for d, err := range denials {
		if engine.ReasonOf(err) == engine.NotFound {
			fmt.Fprintln(out, "The sandbox was removed.")
			return nil
		}
		if err != nil {
			return err
		}
		answer, err := askAbout(ctx, person, d)
		if err != nil {
			fmt.Fprintln(out)
			if errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		}
		if err := applyAnswer(ctx, e, name, d, answer, out); err != nil {
			fmt.Fprintf(out, "  %s\n", text.Line(err.Error())) // the next answer may succeed
		}
	}
	return nil
}

// wideWord is what a person types to allow a rule that is wide and that the agent asks for.
const wideWord = "wide"

// askAbout asks about one denial and returns the answer. A second question follows if the rule opens
// services of the host, or if the agent chose the rule and it opens more than one server. If the
// person does not confirm there, the answer is "no".
func askAbout(ctx context.Context, person *prompter, d engine.Denial) (string, error) {
	x, err := engine.ExposureOf(d.Rule)
	if err != nil {
		return "", err
	}
	question := d.Entry.Text(allowCommand) + "\n"
	if x.Opens != "" {
		question += "  " + warning(d) + "the rule would open " + text.Line(x.Opens) + "\n"
	}
	answer, err := person.ask(ctx, fmt.Sprintf("%s  allow %s? [o]nce, [s]andbox, [a]lways, [N]o: ", question, d.Rule))
	what, want := "", ""
	switch {
	case err != nil || denies(answer):
	case x.Severity() == policy.OpensHost:
		what, want = "SERVICES OF THE HOST to the guest", hostWord
	case d.Entry.Verdict == engine.Asked && x.Kinds&policy.KindWide != 0:
		what, want = "far more than one server, and the agent chose it", wideWord
	case d.Entry.Verdict == engine.Asked && x.Severity() == policy.Broad:
		what, want = text.Line(x.Opens)+", and the agent chose it", "yes"
	}
	if want == "" {
		return answer, err
	}
	word, err := person.ask(ctx, fmt.Sprintf("  This opens %s. Type %q to confirm: ", what, want))
	if !strings.EqualFold(word, want) {
		answer = "no"
	}
	return answer, err
}

// warning returns the beginning of the line about what a rule opens. It warns of rules that the agent
// chose, which may be wider than what the agent needs.
func warning(d engine.Denial) string {
	if d.Entry.Verdict == engine.Asked {
		return "WARNING: "
	}
	return ""
}

// denies reports whether an answer is none that allows.
func denies(answer string) bool {
	return !slices.Contains([]string{"o", "once", "s", "sandbox", "a", "always"}, strings.ToLower(answer))
}

// applyAnswer changes the rules as the user answered, and prints the result.
func applyAnswer(ctx context.Context, e *engine.Engine, name string, d engine.Denial, answer string, out io.Writer) error {
	rule := d.Rule
	change := engine.RuleChange{Action: policy.Allow, Rules: []string{rule}}
	var err error
	var result string
	switch strings.ToLower(answer) {
	case "o", "once":
		result = "allowed until the sandbox stops"
		err = e.AllowOnce(ctx, name, rule)
	case "s", "sandbox":
		result = "allowed for this sandbox"
		err = changeRules(ctx, e, engine.Scope{Sandbox: name}, change)
	case "a", "always":
		result = "allowed for all your sandboxes"
		err = changeRules(ctx, e, engine.Scope{All: true}, change)
	default:
		result = "stays denied"
		if d.Entry.Verdict == engine.Asked {
			result = "is refused, and the agent can read that"
			err = e.RefuseAccess(ctx, name, rule)
		}
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "  %s %s\n", rule, result)
	return nil
}
