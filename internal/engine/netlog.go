package engine

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/egress/audit"
	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/sys/rotate"
)

// LogEntry is one decision on a sandbox's traffic.
type LogEntry = audit.Entry

// LogHeading is a line to print above lines made by LogEntry.Text.
var LogHeading = audit.Heading

// Verdicts of a LogEntry.
const (
	Allowed = audit.Allowed
	Denied  = audit.Denied
	Asked   = audit.Asked // not about traffic: the guest asks for a rule
)

// settleLimit is how long ReadNetLog waits for the last entries.
const settleLimit = time.Second

// ReadNetLog calls each for the entries of a sandbox's network log, the oldest first, up
// to the decisions made before the call. An error of each ends it and is returned.
func (e *Engine) ReadNetLog(ctx context.Context, name string, each func(LogEntry) error) error {
	d, err := e.dirOf(name)
	if err != nil {
		return err
	}
	settleNetLog(ctx, d)
	return audit.Read(d.File(store.NetLogFile), each)
}

// FollowNetLog is ReadNetLog, and then calls each for new entries until ctx ends, when it
// returns nil. If the sandbox is removed it returns NotFound.
func (e *Engine) FollowNetLog(ctx context.Context, name string, each func(LogEntry) error) error {
	d, err := e.dirOf(name)
	if err != nil {
		return err
	}
	return followedLog(name, audit.Follow(ctx, d.File(store.NetLogFile), each))
}

// followedLog returns NotFound for the error of following a log of a sandbox that was removed.
func followedLog(name string, err error) error {
	if errors.Is(err, rotate.ErrGone) {
		return &Error{Reason: NotFound, Sandbox: name, Err: fmt.Errorf("sandbox %s was removed", name)}
	}
	return err
}

// settleNetLog waits until a running sandbox has logged its decisions of before the call:
// an entry is held back until the name of its process is known.
func settleNetLog(ctx context.Context, d store.Dir) {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	_ = control.NewClient(d.DialControl).SettleLog(ctx) // one that is stopped has logged all
}

// Denial is a decision that a rule would turn; if the entry's verdict is Asked, it is a rule that
// the guest asks for.
type Denial struct {
	Entry LogEntry
	Rule  string // the rule that is missing, as AllowOnce and ChangeRules take it
}

// Denials yields the rules that a sandbox's guest asks for, beginning with those that wait, and
// what the sandbox is denied from now on for want of a rule: each missing rule once, and not if
// a rule decides about it by the time that it is reached. It ends when ctx ends; on a failure,
// the last element is the error (NotFound if the sandbox was removed).
func (e *Engine) Denials(ctx context.Context, name string) iter.Seq2[Denial, error] {
	began := time.Now()
	return func(yield func(Denial, error) bool) {
		type question struct{ verdict, rule string }
		reported := map[question]bool{}
		report := func(entry LogEntry) error {
			q := question{entry.Verdict, entry.Suggest}
			if reported[q] {
				return nil
			}
			missing, err := e.stillMissing(ctx, name, entry)
			if err != nil || !missing {
				return err
			}
			reported[q] = true
			if !yield(Denial{entry, entry.Suggest}, nil) {
				return errStop
			}
			return nil
		}
		err := e.eachWaiting(ctx, name, report)
		if err == nil {
			err = e.FollowNetLog(ctx, name, func(entry LogEntry) error {
				if entry.Time.Before(began) {
					return nil
				}
				return report(entry)
			})
		}
		if err != nil && !errors.Is(err, errStop) && ctx.Err() == nil {
			yield(Denial{}, err)
		}
	}
}

// errStop ends the reading of a log because the caller wants no more.
var errStop = errors.New("stop")

// stillMissing reports whether a rule would turn an entry's decision, and none decides
// about it by now.
func (e *Engine) stillMissing(ctx context.Context, name string, entry LogEntry) (bool, error) {
	if entry.Verdict == Asked {
		return e.stillWaiting(ctx, name, entry.Suggest), nil
	}
	if !lacksRule(entry) {
		return false, nil
	}
	rules, err := e.sandboxes.Dir(name).Rules()
	if err != nil {
		return false, Scope{Sandbox: name}.syntax(err)
	}
	set := policy.Compile(rules)
	if q, ok, err := policy.ParseRequest(entry.Suggest); ok {
		return err == nil && set.SuggestRequest(q) != "", nil
	}
	if lacks, ok := set.LacksGit(entry.Suggest); ok {
		return lacks, nil
	}
	f, err := deniedFlow(entry)
	return err == nil && missingRule(f, set.Decide(f)) != "", nil
}

// lacksRule reports whether an entry is a denial for want of a rule.
func lacksRule(entry LogEntry) bool {
	return entry.Verdict == audit.Denied && entry.Suggest != "" && entry.WantsHost()
}

// deniedFlow returns the flow that a denial is about. Suggest leaves out the usual ports, and
// may be about an address behind the name.
func deniedFlow(entry LogEntry) (policy.Flow, error) {
	f, err := policy.ParseFlow(entry.Suggest)
	if entry.Port != 0 {
		f.Port = entry.Port
	}
	return f, err
}
