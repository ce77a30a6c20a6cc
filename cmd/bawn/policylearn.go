package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/policy"
)

func policyLearnCommand() *cobra.Command {
	var s scope
	var yes bool
	c := &cobra.Command{
		Use: "learn", Short: "Propose rules that allow what the network log shows as denied",
		Long: `Propose the smallest set of rules that allows what this sandbox's network log
shows as denied. bawn asks before it adds them.`,
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
			if len(proposal.Rules) == 0 {
				fmt.Fprintln(c.OutOrStdout(), "no rules to propose: the network log has no denial that a rule could allow")
				return nil
			}
			fmt.Fprintf(c.OutOrStdout(), "--- %s\n", proposal.File)
			for _, p := range proposal.Rules {
				fmt.Fprintf(c.OutOrStdout(), "+allow %s\n", p)
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
