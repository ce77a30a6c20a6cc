package engine

import (
	"context"
	"fmt"
	"slices"

	"bawn.dev/bawn/internal/control"
)

// Rules that the guest of a running sandbox asks the person for (POST http://bawn.internal/ask).
// The guest chose their texts.

// AccessRequest is a rule that a guest asks for, and the reason that it gives.
type AccessRequest = control.Access

// waiting lists the requests of a sandbox's guest that wait for the person; none of one that does
// not run.
func (e *Engine) waiting(ctx context.Context, name string) ([]AccessRequest, error) {
	ctx, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	s, err := control.NewClient(e.sandboxes.Dir(name).DialControl).Status(ctx)
	if control.NotListening(err) {
		return nil, nil
	}
	return s.Access, err
}

// eachWaiting calls f for the requests that wait, as entries of the log.
func (e *Engine) eachWaiting(ctx context.Context, name string, f func(LogEntry) error) error {
	list, _ := e.waiting(ctx, name) // without an answer, the log still has the requests from now on
	for _, r := range list {
		if err := f(LogEntry{Time: r.Time, Verdict: Asked, Suggest: r.Rule, Reason: r.Reason}); err != nil {
			return err
		}
	}
	return nil
}

// stillWaiting reports whether the guest's request for a rule still waits for the person. It reports
// true if the supervisor does not answer: asking twice is better than losing a request.
func (e *Engine) stillWaiting(ctx context.Context, name, rule string) bool {
	list, err := e.waiting(ctx, name)
	if err != nil {
		return true
	}
	return slices.ContainsFunc(list, func(r AccessRequest) bool { return r.Rule == rule })
}

// RefuseAccess tells the guest of a sandbox that the person refused the rule that it asked for.
// The rule is not asked for again until the sandbox stops.
func (e *Engine) RefuseAccess(ctx context.Context, name, rule string) error {
	d, err := e.dirOf(name)
	if err != nil {
		return err
	}
	if err := control.NewClient(d.DialControl).RefuseAccess(ctx, rule); err != nil && control.ReasonOf(err) != control.ReasonNoAnswer {
		return fmt.Errorf("refuse %s: %w", rule, err)
	}
	return nil // one that does not run asks for nothing
}
