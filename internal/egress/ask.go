package egress

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"bawn.dev/bawn/internal/egress/audit"
	"bawn.dev/bawn/internal/policy"
)

// Access requests: rules that the agent in the guest asks the person for.
//
// Theory of operation. A request is a rule and a reason, both chosen by the guest. It changes
// nothing: it is kept in a list of bounded length and written to the log, from where front ends
// show it as text. Each one then waits until the rules in force allow it, however the person did
// that, or the person refuses it. A request that was refused is not shown to the person again.
// The list belongs to the gateway, so it ends with the machine.

const (
	maxAsks       = 32  // requests that are kept, with those that are decided
	maxAskRule    = 200 // bytes of a rule; the log has room for it
	maxAskReason  = 500 // bytes of a reason
	askEvery      = 10 * time.Second
	askBurst      = 8       // requests at once; after that one more each askEvery
	maxAskRequest = 4 << 10 // bytes of the body of a POST
)

// AskState is the state of an access request. Its values are stable.
type AskState string

// The states.
const (
	AskWaiting AskState = "waiting" // for the person
	AskAllowed AskState = "allowed" // the rules in force allow it
	AskRefused AskState = "refused" // the person refused it, or a rule denies it
)

// AccessRequest is a rule that the guest asks for.
type AccessRequest struct {
	Rule   string    `json:"rule"`   // in its canonical form
	Reason string    `json:"reason"` // as the guest wrote it: it may lie
	Time   time.Time `json:"time"`
	State  AskState  `json:"state"`
}

// askError is why a request was not taken, with the HTTP status that says so.
type askError struct {
	status int
	msg    string
}

func (e *askError) Error() string { return e.msg }

// checkAsk returns what is wrong with the texts of a request.
func checkAsk(rule, reason string) error {
	switch {
	case rule == "":
		return errors.New("rule is missing: name what you need, as HOST:PORT")
	case reason == "":
		return errors.New("reason is missing: tell the user in a sentence what you need it for")
	case len(rule) > maxAskRule:
		return fmt.Errorf("rule has %d bytes, and at most %d are taken", len(rule), maxAskRule)
	case len(reason) > maxAskReason:
		return fmt.Errorf("reason has %d bytes, and at most %d are taken: shorten it", len(reason), maxAskReason)
	case !utf8.ValidString(rule) || !utf8.ValidString(reason):
		return errors.New("rule and reason must be UTF-8")
	}
	return nil
}

// parseAsk returns the canonical form of the rule and the rules that it stands for.
func parseAsk(rule string) (canonical string, rules []policy.Rule, err error) {
	if rules, err = policy.ParseRule(policy.Allow, rule); err != nil {
		return "", nil, err
	}
	if canonical, err = policy.Canonical(policy.Allow, rule); err != nil {
		return "", nil, err
	}
	for i := range rules {
		if err := rules[i].CheckHostPorts(policy.Host{}); err != nil { // what the person's command refuses as well
			return "", nil, err
		}
	}
	return canonical, rules, nil
}

// ask takes a request of the guest. created reports whether it is a new one.
func (g *Gateway) ask(rule, reason string) (r AccessRequest, created bool, err error) {
	rule, reason = strings.TrimSpace(rule), strings.TrimSpace(reason)
	if err := checkAsk(rule, reason); err != nil {
		return r, false, &askError{http.StatusBadRequest, err.Error()}
	}
	canonical, rules, err := parseAsk(rule)
	if err != nil {
		return r, false, &askError{http.StatusBadRequest, err.Error()}
	}
	r = AccessRequest{Rule: canonical, Reason: reason, Time: time.Now(), State: AskWaiting}
	if deny := g.denies(rules); deny != "" {
		return r, false, &askError{http.StatusForbidden, fmt.Sprintf("the user's rule %q denies this, and no other rule changes that. Do without it", deny)}
	}
	if g.allows(canonical, rules) {
		r.State = AskAllowed
		return r, false, nil
	}
	g.mu.Lock()
	known, err := g.addAsk(r)
	g.judgeAsks() // the rules may have changed since they were asked
	g.mu.Unlock()
	if err != nil {
		return r, false, err
	}
	if known != nil {
		return *known, false, nil
	}
	g.write(audit.Entry{Time: r.Time, Verdict: audit.Asked, Suggest: r.Rule, Reason: r.Reason}, nil)
	return r, true, nil
}

// addAsk adds a request to the list, or returns the one about the same rule. g.mu is held.
func (g *Gateway) addAsk(r AccessRequest) (known *AccessRequest, err error) {
	i := slices.IndexFunc(g.asks, func(o AccessRequest) bool { return o.Rule == r.Rule })
	if i >= 0 && g.asks[i].State != AskAllowed { // one that was allowed is not any more
		k := g.asks[i]
		return &k, nil
	}
	if i >= 0 {
		g.asks = slices.Delete(g.asks, i, i+1)
	}
	if len(g.asks) >= maxAsks {
		if i = slices.IndexFunc(g.asks, func(o AccessRequest) bool { return o.State == AskAllowed }); i < 0 {
			return nil, &askError{http.StatusTooManyRequests, fmt.Sprintf("%d requests wait for the user or were refused, and no more are taken: go on without, or tell the user what you need", maxAsks)}
		}
		g.asks = slices.Delete(g.asks, i, i+1)
	}
	if !g.limiter.asks.Allow() {
		return nil, &askError{http.StatusTooManyRequests, fmt.Sprintf("too many requests at once: one more is taken each %v", askEvery)}
	}
	g.asks = append(g.asks, r)
	return nil, nil
}

// AccessRequests lists the requests of the guest, the oldest first.
func (g *Gateway) AccessRequests() []AccessRequest {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.asks)
}

// RefuseAccess notes that the person refused a request, which the guest may read. false: there is
// no such request.
func (g *Gateway) RefuseAccess(rule string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.asks {
		if g.asks[i].Rule == rule {
			g.asks[i].State = AskRefused
			return true
		}
	}
	return false
}

// judgeAsks notes which requests the policy in force allows by now. A request that the policy
// allowed and does not allow any more was decided, too. g.mu is held.
func (g *Gateway) judgeAsks() {
	for i := range g.asks {
		r := &g.asks[i]
		rules, err := policy.ParseRule(policy.Allow, r.Rule)
		if err == nil && r.State != AskAllowed && g.allows(r.Rule, rules) {
			r.State = AskAllowed
		}
	}
}

// denies returns the deny rule that keeps one of the rules from taking effect, or "".
func (g *Gateway) denies(rules []policy.Rule) string {
	set := g.current.Load()
	if set == nil {
		return ""
	}
	for i := range rules {
		if by := set.Overruled(&rules[i]); by != nil {
			return by.String()
		}
	}
	return ""
}

// allows reports whether the policy in force has the rules, or allows the one target that they
// are about in another way.
func (g *Gateway) allows(canonical string, rules []policy.Rule) bool {
	set := g.current.Load()
	if set == nil {
		return false
	}
	has := map[string]bool{}
	for _, r := range set.Rules() {
		has[r.String()] = true
	}
	if !slices.ContainsFunc(rules, func(r policy.Rule) bool { return !has[r.String()] }) {
		return true
	}
	f, err := policy.ParseFlow(canonical)
	if err != nil || !set.Decide(f).Allow {
		return false
	}
	web, err := policy.ParseFlow(canonical + ":80") // a rule without ports is about 443 and 80
	return err != nil || set.Decide(web).Allow
}
