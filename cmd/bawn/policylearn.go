package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sys/text"
)

func policyLearnCommand() *cobra.Command {
	var s scope
	var yes bool
	c := &cobra.Command{
		Use: "learn", Short: "Propose rules that allow what the network log shows as denied",
		Long: `Propose the smallest set of rules that allows what this sandbox's network log
shows as denied. bawn asks before it adds them. Rules that open services of the host or
a private network are shown with what they open, and never added here.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if s.all {
				return errors.New("--all cannot be used here: each sandbox has a network log of its own (use --name)")
			}
			e, of, err := s.open()
			if err != nil {
				return err
			}
			proposal, err := e.ProposeRules(c.Context(), of.Sandbox)
			if err != nil {
				return err
			}
			out := c.OutOrStdout()
			defer showAlone(out, &s, proposal.Alone)
			if len(proposal.Rules) == 0 {
				fmt.Fprintln(out, "no rules to propose: the network log has no denial that a rule for hosts on the Internet could allow")
				return nil
			}
			fmt.Fprintf(out, "--- %s\n", proposal.File)
			for _, p := range proposal.Rules {
				fmt.Fprintf(out, "+allow %s\n", p)
			}
			if !yes && !confirm("Add these rules?") {
				return nil
			}
			return changeRules(c.Context(), e, of, engine.RuleChange{Action: policy.Allow, Rules: proposal.Rules})
		},
	}
	s.register(c)
	c.Flags().BoolVarP(&yes, "yes", "y", false, "add them without asking")
	return c
}

// showAlone prints the rules that are not part of the proposal, with what they open.
func showAlone(w io.Writer, s *scope, rules []string) {
	for _, r := range rules {
		if x, err := engine.ExposureOf(r); err == nil {
			fmt.Fprintf(w, "not proposed: %s would open %s; if you want that: bawn policy allow %s%s\n", r, x.Opens, s.arguments(), text.ShellWord(r))
		}
	}
}
