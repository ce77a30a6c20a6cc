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
			return changeRules(c.Context(), e, of, engine.RuleChange{Action: policy.Allow, Rules: proposal.Rules})
		},
	}
	s.register(c)
	c.Flags().BoolVarP(&yes, "yes", "y", false, "add them without asking")
	return c
}
