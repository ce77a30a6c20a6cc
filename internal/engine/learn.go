package engine

import (
	"context"
	"slices"

	"bawn.dev/bawn/internal/egress"
	"bawn.dev/bawn/internal/policy"
)

// Proposal is a set of rules that would have allowed what a sandbox was denied.
type Proposal struct {
	File  string   // the file that the rules would be added to
	Rules []string // to allow, as ChangeRules takes them; nil if no rule would help
	// Alone are rules that open more than a host of the Internet: services of this host, or a
	// private network. Each is to be decided by itself.
	Alone []string
}

// ProposeRules returns the smallest set of rules that would have allowed what a sandbox's
// network log shows denied for want of a rule. It changes nothing.
func (e *Engine) ProposeRules(ctx context.Context, name string) (Proposal, error) {
	s := Scope{Sandbox: name}
	file, d, err := e.rulesFile(s)
	if err != nil {
		return Proposal{}, err
	}
	rules, err := d.Rules()
	if err != nil {
		return Proposal{}, s.syntax(err)
	}
	flows, err := e.deniedFlows(ctx, name)
	if err != nil {
		return Proposal{}, err
	}
	requests, err := e.deniedRequests(ctx, name)
	if err != nil {
		return Proposal{}, err
	}
	set := policy.Compile(rules)
	repositories, err := e.deniedRepositories(ctx, name, set)
	if err != nil {
		return Proposal{}, err
	}
	propose, alone := set.Propose(flows, egress.ThisHost())
	return Proposal{file, slices.Concat(propose, set.ProposeRequests(requests), repositories), alone}, nil
}

// deniedRepositories returns the rules about repositories that the log's denials suggest and that the
// set still lacks.
func (e *Engine) deniedRepositories(ctx context.Context, name string, set *policy.Set) (rules []string, err error) {
	err = e.ReadNetLog(ctx, name, func(entry LogEntry) error {
		if lacks, ok := set.LacksGit(entry.Suggest); ok && lacks && lacksRule(entry) && !slices.Contains(rules, entry.Suggest) {
			rules = append(rules, entry.Suggest)
		}
		return nil
	})
	slices.Sort(rules)
	return rules, err
}

// deniedRequests returns the requests that the log shows denied for want of a rule. Only those
// on inspected connections have such a line.
func (e *Engine) deniedRequests(ctx context.Context, name string) (list []policy.Request, err error) {
	err = e.ReadNetLog(ctx, name, func(entry LogEntry) error {
		if entry.Method == "" || !lacksRule(entry) {
			return nil
		}
		if q, ok, err := policy.ParseRequest(entry.Suggest); ok && err == nil && !slices.Contains(list, q) {
			list = append(list, q)
		}
		return nil
	})
	return list, err
}

// deniedFlows returns the flows that the log shows denied for want of a rule, each once. A
// name of which only the address was asked for is taken to be meant for HTTPS.
func (e *Engine) deniedFlows(ctx context.Context, name string) (flows []policy.Flow, err error) {
	err = e.ReadNetLog(ctx, name, func(entry LogEntry) error {
		if entry.Method != "" || !lacksRule(entry) {
			return nil
		}
		if f, err := deniedFlow(entry); err == nil && !slices.Contains(flows, f) {
			flows = append(flows, f)
		}
		return nil
	})
	return flows, err
}
