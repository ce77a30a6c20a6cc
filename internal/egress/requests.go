package egress

import (
	"iter"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"bawn.dev/bawn/internal/egress/apibody"
	"bawn.dev/bawn/internal/egress/audit"
	"bawn.dev/bawn/internal/egress/httpwire"
	"bawn.dev/bawn/internal/policy"
)

// Theory of operation: rules about requests
//
// Where a rule is about requests (policy.Decision.Requests), nothing passes but requests of
// HTTP, and each is judged by the rules in force before its head is sent on: those over TLS by
// package inspect, which ends it, those in the clear by httpRelay and http2Relay. What is judged
// is what is sent: the method and the path of the head that goes to the server.
//
// A header or query field that asks a server for another method than the request's makes it a
// request of both methods, and both must be allowed; a header that asks for another path is refused
// (overrides.go).
//
// A request that is under way is listed with its flow, so that a change of the rules that
// forbids it cuts the flow.

// openRequest is a request that was let through.
type openRequest struct {
	f    *flow
	q    policy.Request // with its query
	also []string       // other methods that a server may take for its own
	// changes are those that a push makes, once they are known; nil: none is judged.
	changes []policy.RefChange
	placed  bool // it has one of Gateway.pushes
	// about are the repositories that its body is about, and changed those in which it changes something, once they are
	// known (apirequest.go). asked is what the body asks; nil: it is not GraphQL.
	about, changed []string
	asked          *apibody.Asked
	// unjudged: its body was not judged, as the rules allowed every one by then.
	unjudged bool
	rule     policy.Decision
	began    time.Time
	why      string // of an end that was not the peers' own, for the log
}

// overSSH is the app of flows whose SSH is ended here, in the log.
const overSSH = "ssh"

// status returns the status of an answer as it is logged: sessions of SSH have none of HTTP's.
func (r *openRequest) status(of int) int {
	if r.q.Scheme == overSSH {
		return 0
	}
	return of
}

// deniedRequest is the refusal of a request, which is logged already.
type deniedRequest struct {
	answer  *httpwire.Error
	suggest string // the rule that would allow it, or empty
	api     bool   // it went to the API of a code host
}

func (d *deniedRequest) Error() string { return d.answer.Why }

// Unwrap is for errors.As.
func (d *deniedRequest) Unwrap() error { return d.answer }

// page returns the answer to the request, without a head.
func (d *deniedRequest) page() []byte { return errorText(d.answer.Status, d.answer.Why, d.suggest) }

// maxLogged bounds the method and the path of a request, and each ref of a push, among the recent
// denials, and in an entry on its way to the log, which shortens them further; in bytes each.
const maxLogged = 256

// logged returns a method, a path or a ref as it is logged.
func logged(s string) string {
	if len(s) > maxLogged {
		return s[:maxLogged-3] + "..."
	}
	return s
}

// decideRequest asks the policy in force about a request, as each method that it may be of. A push that
// may be of several is denied: which rules judge its refs differs by method, and git sends none.
func (g *Gateway) decideRequest(q policy.Request, also []string) policy.Decision {
	set := g.current.Load()
	if set == nil {
		return g.decide(q.Flow())
	}
	d := set.DecideRequest(q)
	if q.Scheme == overSSH && d.Allow && !d.SSH {
		return policy.Decision{Reason: "no rule is about repositories of " + q.Name + " any more, so bawn does not log in there: connect again"}
	}
	for _, m := range also {
		if !d.Allow || !d.Requests {
			return d
		}
		q.Method = m
		o := set.DecideRequest(q)
		if o.Allow && (d.Push != nil || o.Push != nil) {
			o = policy.Decision{Requests: true, Reason: "a push is of one method"}
		}
		if o.Allow && (d.Body != nil || o.Body != nil) {
			o = policy.Decision{Requests: true, Reason: "a request whose body is judged is of one method"}
		}
		if !o.Allow {
			o.Reason = "a header or the query asks the server for the method " + m + ": " + o.Reason
			return o
		}
	}
	return d
}

// beginRequest judges a request by the rules, and logs a denial: *deniedRequest. target is its path
// with the query, as it is sent on. The caller ends it.
func (f *flow) beginRequest(method, scheme, target string, header iter.Seq2[string, string]) (*openRequest, error) {
	path, query, _ := strings.Cut(target, "?")
	r := &openRequest{f: f, began: time.Now(), q: policy.Request{Method: method, Scheme: scheme, Name: f.to.Name, Port: f.to.Port, Path: path, Query: query}}
	var hidden string
	r.also, hidden = overrides(query, header)
	return r.begin(hidden)
}

// begin judges a request, and lists it if it may pass. hidden is the header that asks for another path than
// the request's.
func (r *openRequest) begin(hidden string) (*openRequest, error) {
	f := r.f
	// Under the lock: recheck must find the request in the list, or this decision is the new one.
	f.mu.Lock()
	d := f.g.decideRequest(r.q, r.also)
	if d.Requests && d.Allow && hidden != "" {
		d = policy.Decision{Requests: true, Reason: "the header " + hidden + " asks the server for another path than the request's"}
	}
	if r.rule = d; d.Allow {
		if f.requests == nil {
			f.requests = map[*openRequest]struct{}{}
		}
		f.requests[r] = struct{}{}
	}
	e := f.entry()
	f.mu.Unlock()
	if d.Allow {
		return r, nil
	}
	denied := &deniedRequest{answer: &httpwire.Error{Status: http.StatusForbidden, Why: d.Reason}}
	if set := f.g.current.Load(); set != nil && d.Rule == nil && hidden == "" && len(r.also) == 0 {
		denied.suggest = set.SuggestRequest(r.q)
	}
	if d.Malformed {
		denied.answer.Status = http.StatusBadRequest
	}
	if set := f.g.current.Load(); set != nil {
		denied.api = set.IsAPI(r.q)
	}
	e.Method, e.Path, e.Status = logged(r.q.Method), logged(r.q.Path), r.status(denied.answer.Status)
	f.g.deny(e, d, denied.suggest, f.hint)
	return nil, denied
}

// end takes a request off the list and logs it. status is that of its answer; 0: there was
// none, or it is not known. sent and got are the bytes of the bodies.
// Calls after the first do nothing.
func (r *openRequest) end(status int, sent, got int64) {
	f := r.f
	f.mu.Lock()
	open := r.unlist()
	e := f.entry()
	rule := r.rule.RuleText()
	f.mu.Unlock()
	if !open {
		return
	}
	e.Verdict, e.Event, e.Rule = audit.Allowed, audit.EventRequest, rule
	e.Method, e.Path, e.Status = logged(r.q.Method), logged(r.q.Path), status
	e.Sent, e.Got, e.Lasted, e.Reason = sent, got, time.Since(r.began), r.why
	f.g.write(e, f.hint)
}

// unlist takes a request off the list, and reports whether it was there. f.mu is held.
func (r *openRequest) unlist() bool {
	_, open := r.f.requests[r]
	delete(r.f.requests, r)
	if open && r.placed {
		<-r.f.g.pushes
	}
	return open
}

// endRequests ends the requests that were not answered.
func (f *flow) endRequests() {
	f.mu.Lock()
	list := slices.Collect(maps.Keys(f.requests))
	f.mu.Unlock()
	for _, r := range list {
		r.end(0, 0, 0)
	}
}

// setUnlisted notes that requests may be under way that are not listed.
func (f *flow) setUnlisted() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unlisted = true
}

// judgesRequests reports whether a rule is about requests on the flow.
func (f *flow) judgesRequests() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.d.Requests
}
