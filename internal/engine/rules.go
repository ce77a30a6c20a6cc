package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/egress"
	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
)

// Rules of the network. A sandbox has the rules of up to three files (store.Dir.Rules):
// those common to all sandboxes, those of the approved bawn.yaml, and its own; while it
// runs, also those that were allowed until it stops. Methods that change a file put the change in
// force in every running sandbox that uses the file before they return.

// The reasons about rules.
const (
	// RulesSyntax: a file of rules is invalid, so that all traffic is denied (Path of the
	// file; Sandbox unless it is the common file). Err holds each policy.SyntaxError.
	RulesSyntax Reason = "rules-syntax"
	// InvalidRule: a rule that was given is invalid.
	InvalidRule Reason = "rule-invalid"
	// RuleNotFound: a rule that shall be removed is not in the file (Path of the file).
	RuleNotFound Reason = "rule-not-found"
	// InvalidTarget: what is to be checked cannot be the target of a connection.
	InvalidTarget Reason = "target-invalid"
)

// Scope selects the rules of one sandbox, or those common to all.
type Scope struct {
	Sandbox string // name
	All     bool   // the common ones; Sandbox is empty
}

// rulesFile returns the file with the scope's rules, and the sandbox's folder, nil for the
// common ones.
func (e *Engine) rulesFile(s Scope) (file string, d *store.Dir, err error) {
	if s.All {
		file, err = store.CommonPolicy()
		return file, nil, err
	}
	dir, err := e.dirOf(s.Sandbox)
	return dir.File(store.PolicyFile), &dir, err
}

// Rules returns the rules in force in a sandbox, also those allowed until it stops, which
// have no Source.File; or the common ones. A file with a mistake is RulesSyntax: no
// rule is in force then.
func (e *Engine) Rules(ctx context.Context, s Scope) ([]policy.Rule, error) {
	file, d, err := e.rulesFile(s)
	if err != nil {
		return nil, err
	}
	if d == nil {
		rules, err := store.RulesIn(file)
		return rules, s.syntax(err)
	}
	rules, err := d.Rules()
	if err != nil {
		return nil, s.syntax(err)
	}
	once, err := rulesOnce(ctx, *d)
	return append(rules, once...), err
}

// CheckRules returns RulesSyntax if a file of a sandbox's rules has a mistake.
func (e *Engine) CheckRules(name string) error {
	_, err := e.sandboxes.Dir(name).Rules()
	return Scope{Sandbox: name}.syntax(err)
}

// rulesOnce returns the rules that a running sandbox has until it stops.
func rulesOnce(ctx context.Context, d store.Dir) ([]policy.Rule, error) {
	if st, err := d.State(); err != nil || st.Phase != sandbox.Running {
		return nil, err
	}
	texts, err := control.NewClient(d.DialControl).AllowedOnce(ctx)
	var rules []policy.Rule
	for _, t := range texts {
		r, perr := policy.ParseRule(policy.Allow, t)
		rules, err = append(rules, r...), errors.Join(err, perr)
	}
	return rules, err
}

// syntax gives the syntax errors of a file their reason. Other errors stay as they are.
func (s Scope) syntax(err error) error {
	var wrong *policy.SyntaxError
	if !errors.As(err, &wrong) {
		return err
	}
	name := s.Sandbox
	if common, cerr := store.CommonPolicy(); cerr == nil && common == wrong.File {
		name = ""
	}
	return &Error{Reason: RulesSyntax, Sandbox: name, Path: wrong.File, Err: err}
}

// Verdict is the decision of the rules about one target.
type Verdict struct {
	Target policy.Flow // a connection, or the one that Request needs
	// Request is what was asked about; nil: the connection.
	Request *policy.Request
	policy.Decision
	Missing string // the rule that would allow it, if only that is missing
}

// Decide returns the decisions of the rules in force about targets, in the syntax of
// policy.ParseFlow or policy.ParseRequest, without any traffic. An invalid target is InvalidTarget.
func (e *Engine) Decide(ctx context.Context, s Scope, targets []string) ([]Verdict, error) {
	rules, err := e.Rules(ctx, s)
	if err != nil {
		return nil, err
	}
	set := policy.Compile(rules)
	var list []Verdict
	for _, t := range targets {
		q, isRequest, err := policy.ParseRequest(t)
		if isRequest && err == nil {
			list = append(list, Verdict{q.Flow(), &q, egress.CheckRequest(set, q), set.SuggestRequest(q)})
			continue
		}
		var f policy.Flow
		if !isRequest {
			f, err = policy.ParseFlow(t)
		}
		if err != nil {
			return nil, &Error{Reason: InvalidTarget, Err: err}
		}
		d := egress.Check(set, f)
		ask := f
		if f.Name != "" && !strings.Contains(t, ":") {
			ask.Port = 0 // nobody asked about one
		}
		list = append(list, Verdict{f, nil, d, missingRule(ask, d)})
	}
	return list, nil
}

// missingRule returns the rule that would allow a flow; "" if no rule would, or if nobody
// is to be asked about it.
func missingRule(f policy.Flow, d policy.Decision) string {
	if d.Allow || d.Rule != nil {
		return ""
	}
	rule := policy.Suggest(f)
	if e, err := ExposureOf(rule); err != nil || !f.Host && e.Severity() == policy.OpensHost {
		return ""
	}
	return rule
}

// ExposureOf returns what an allow rule opens on this host. For a rule about IPv6 addresses it
// may ask the host's resolver, for two seconds.
func ExposureOf(rule string) (policy.Exposure, error) {
	rules, err := policy.ParseRule(policy.Allow, rule)
	if err != nil {
		return policy.Exposure{}, err
	}
	return policy.ExposureOf(rule, egress.HostFor(context.Background(), &rules[0]))
}

// RuleChange adds rules to a file, or removes them.
type RuleChange struct {
	Action policy.Action
	Rules  []string // in the syntax of policy.ParseRule, or with a remote (gitremote.go)
	Remove bool
}

// lines returns the rules as lines of a file, in their canonical form.
func (c RuleChange) lines() ([]string, error) {
	var lines []string
	for _, text := range withAnyRepository(c.Rules) {
		rules, err := policy.ParseRule(c.Action, text)
		if err == nil && len(rules) == 1 && !c.Remove {
			err = checkHostPorts(&rules[0], text)
		}
		if err == nil {
			text, err = policy.Canonical(c.Action, text)
		}
		if err != nil {
			return nil, &Error{Reason: InvalidRule, Err: err}
		}
		lines = append(lines, c.Action.String()+" "+text)
	}
	return lines, nil
}

// checkHostPorts refuses a rule for one of the host's own addresses that opens more of its
// services than the same rule with "host" may.
func checkHostPorts(r *policy.Rule, text string) error {
	if err := r.CheckHostPorts(egress.ThisHost()); err != nil {
		return &policy.SyntaxError{Text: text, Msg: err.Error()}
	}
	return nil
}

// Check finds mistakes in the rules: InvalidRule. What a remote (git:origin) leads to is not looked at.
func (c RuleChange) Check() error {
	_, err := c.lines()
	return err
}

// Overruled is a rule that was just added, to allow something, and has no effect: deny
// wins.
type Overruled struct {
	Rule, By policy.Rule
}

// ChangeRules changes a scope's file and puts it in force. Rules that are there already
// are not added again, however they are written. A remote that a rule names is looked up; if that fails,
// the error is RemoteUnusable. To remove one that is not there is RuleNotFound, and changes nothing; a file
// with a mistake is RulesSyntax, and stays as it is.
//
// The error may also be about a running sandbox that did not take the change: the file is
// changed then, and the rest of the result is right.
func (e *Engine) ChangeRules(ctx context.Context, s Scope, c RuleChange) ([]Overruled, error) {
	file, d, err := e.rulesFile(s)
	if err != nil {
		return nil, err
	}
	if c.Rules, err = e.withRemotes(s, c.Rules); err != nil {
		return nil, err
	}
	lines, err := c.lines()
	if err != nil {
		return nil, err
	}
	if err := editRules(ctx, file, func(old ruleLines) (ruleLines, error) {
		if !c.Remove {
			return old.add(lines), nil
		}
		for _, l := range lines {
			if !old.has(l) {
				return nil, &Error{Reason: RuleNotFound, Sandbox: s.Sandbox, Path: file, Err: fmt.Errorf("there is no rule %q in %s", l, file)}
			}
		}
		return old.remove(lines), nil
	}); err != nil {
		return nil, s.syntax(err)
	}
	var without []Overruled
	if c.Action == policy.Allow && !c.Remove {
		without = e.overruled(ctx, s, c.Rules)
	}
	return without, e.reload(ctx, d)
}

// overruled returns the rules among those given that stay without effect, and reports those about
// requests beside which another rule opens the whole host.
func (e *Engine) overruled(ctx context.Context, s Scope, texts []string) (list []Overruled) {
	all, err := e.Rules(ctx, s)
	if err != nil {
		return nil // the reload returns it
	}
	set := policy.Compile(all)
	for _, t := range texts {
		rules, err := policy.ParseRule(policy.Allow, t)
		if err != nil {
			continue
		}
		if by := set.Widened(&rules[0]); by != nil {
			e.notify(Notice{Reason: RuleWidened, Sandbox: s.Sandbox, Text: fmt.Sprintf("%s keeps nothing out: %q (%s) allows every request to that host", t, by, ruleSource(by))})
		}
		if len(rules) != 1 { // a preset
			continue
		}
		if by := set.Overruled(&rules[0]); by != nil {
			list = append(list, Overruled{rules[0], *by})
		}
	}
	return list
}

// reload puts the rules in force in a sandbox, or in all, if they run.
func (e *Engine) reload(ctx context.Context, d *store.Dir) error {
	if d != nil {
		return reloadRules(ctx, *d)
	}
	names, err := e.sandboxes.Names()
	for _, n := range names {
		err = errors.Join(err, reloadRules(ctx, e.sandboxes.Dir(n)))
	}
	return err
}

// reloadRules puts the rules in the files of a sandbox in force, if it runs.
func reloadRules(ctx context.Context, d store.Dir) error {
	if st, err := d.State(); err != nil || st.Phase != sandbox.Running {
		return err
	}
	return control.NewClient(d.DialControl).ReloadPolicy(ctx)
}

// RulesLeft tells which other files have rules, or mistakes, after a reset.
type RulesLeft struct {
	Project bool // those of the approved bawn.yaml
	Common  bool // those for all sandboxes
}

// ResetRules removes the file of a scope, also one with mistakes, and the rules that a
// sandbox has until it stops. The result tells which other rules stay in force; it is empty
// for the common rules.
func (e *Engine) ResetRules(ctx context.Context, s Scope) (left RulesLeft, err error) {
	file, d, err := e.rulesFile(s)
	if err != nil {
		return left, err
	}
	if err := removeRules(ctx, file); err != nil {
		return left, err
	}
	if d == nil {
		return left, e.reload(ctx, nil)
	}
	left.Project = hasRules(d.File(store.ProjectPolicyFile))
	if common, err := store.CommonPolicy(); err == nil {
		left.Common = hasRules(common)
	}
	if st, err := d.State(); err != nil || st.Phase != sandbox.Running {
		return left, err
	}
	return left, control.NewClient(d.DialControl).ForgetOnce(ctx)
}

// hasRules reports whether a file has rules, or cannot be read.
func hasRules(file string) bool {
	r, err := store.RulesIn(file)
	return err != nil || len(r) > 0
}

// AllowOnce adds an allow rule to a running sandbox, until it stops.
func (e *Engine) AllowOnce(ctx context.Context, name, rule string) error {
	d, err := e.dirOf(name)
	if err != nil {
		return err
	}
	return control.NewClient(d.DialControl).AllowOnce(ctx, rule)
}
