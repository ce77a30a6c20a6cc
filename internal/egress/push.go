package egress

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"bawn.dev/bawn/internal/egress/gitwire"
	"bawn.dev/bawn/internal/inspect"
	"bawn.dev/bawn/internal/policy"
)

// Theory of operation: pushes to repositories of git
//
// The rules say of a request that pushes (policy.Decision.Push) that the refs in its body decide.
// So package inspect reads its list of refs before it sends anything on, and asks judgePush. All
// of them must be allowed, by the rules that are in force then: a push with one ref that is not
// is refused as a whole. The changes are kept with the request, so that a change of the rules
// cuts a push which they no longer allow.
//
// A refused push is answered as by a server that took none of its refs, with the reason among the
// server's messages: git shows those, and not the page of an error of HTTP.

// errPushType refuses a push with another Content-Type than git's: a server might read its body in
// another way.
var errPushType = errors.New("the request's Content-Type is not that of a push")

// maxPushes bounds the pushes under way whose lists of refs are held, each up to gitwire.MaxHead.
const maxPushes = 32

var errManyPushes = fmt.Errorf("more than %d pushes are under way: try again when they have ended", maxPushes)

// takePlace reports whether there is a place for one more push. unlist gives it back.
func (r *openRequest) takePlace() bool {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	if _, open := r.f.requests[r]; !open { // the flow has ended
		return false
	}
	select {
	case r.f.g.pushes <- struct{}{}:
		r.placed = true
	default:
	}
	return r.placed
}

// pushJudge returns the judge of the body of a request that pushes; nil: it does not.
func (r *openRequest) pushJudge(header http.Header) func(*bufio.Reader) (io.Reader, *inspect.Answer) {
	if r.rule.Push == nil {
		return nil
	}
	return func(body *bufio.Reader) (io.Reader, *inspect.Answer) {
		if t := header.Values("Content-Type"); len(t) != 1 || t[0] != gitwire.RequestType {
			return nil, r.refusePush(&gitwire.Push{}, errPushType, nil)
		}
		push, refusal := r.admitPush(body, gitwire.Read)
		if refusal != nil {
			return nil, refusal
		}
		return io.MultiReader(bytes.NewReader(push.Head()), body), nil
	}
}

// admitPush reads the list of refs of a push and judges it. It returns the push, or the answer that refuses
// it.
func (r *openRequest) admitPush(body *bufio.Reader, read func(*bufio.Reader) (*gitwire.Push, error)) (*gitwire.Push, *inspect.Answer) {
	if !r.takePlace() {
		return nil, r.refusePush(&gitwire.Push{}, errManyPushes, nil)
	}
	push, err := read(body)
	if err != nil {
		return nil, r.refusePush(push, err, nil)
	}
	if denied := r.judgePush(push); len(denied) > 0 {
		return nil, r.refusePush(push, nil, denied)
	}
	return push, nil
}

// deniedRefs are the changes of a push that are denied, by the name of the ref.
type deniedRefs map[string]policy.Decision

// judgePush notes the changes of a push, and returns those that the rules in force deny.
func (r *openRequest) judgePush(push *gitwire.Push) deniedRefs {
	// Under the lock: recheck must find the changes, or this decision is the new one.
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	r.changes = nil
	for _, c := range push.Changes {
		r.changes = append(r.changes, policy.RefChange{Ref: c.Ref, Delete: c.Deleted()})
	}
	return r.f.g.deniedChanges(r)
}

// deniedChanges returns the changes of a push that the rules in force deny. The request itself may
// be denied by now: then recheck cuts it.
func (g *Gateway) deniedChanges(r *openRequest) deniedRefs {
	d := g.decideRequest(r.q, r.also)
	denied := deniedRefs{}
	for _, c := range r.changes {
		one := d
		if d.Allow && d.Push != nil {
			one = d.Push.Judge(c)
		}
		if !one.Allow {
			denied[c.Ref] = one
		}
	}
	return denied
}

// refusePush logs the refusal of a push and returns the answer to it.
func (r *openRequest) refusePush(push *gitwire.Push, unpack error, denied deniedRefs) *inspect.Answer {
	d, suggest, message := r.pushDenial(push, unpack, denied)
	f := r.f
	f.mu.Lock()
	r.unlist() // it ends here, denied
	e := f.entry()
	f.mu.Unlock()
	e.Method, e.Path, e.Status = logged(r.q.Method), logged(r.q.Path), r.status(http.StatusForbidden)
	f.g.deny(e, d, suggest, f.hint)
	answer := push.Refused(message, unpack, func(c gitwire.Change) string {
		if _, no := denied[c.Ref]; no {
			return "not allowed by bawn's policy"
		}
		return "another ref of this push is not allowed"
	})
	if answer == nil {
		return &inspect.Answer{Status: http.StatusForbidden, Type: "text/plain; charset=utf-8", Body: []byte(message)}
	}
	return &inspect.Answer{Status: http.StatusOK, Type: gitwire.ContentType, Body: answer}
}

// maxNamed bounds the refs that the message about a refused push names.
const maxNamed = 8

// pushDenial returns the decision about a refused push, the rule that is missing, and what the guest
// is told.
func (r *openRequest) pushDenial(push *gitwire.Push, unpack error, denied deniedRefs) (d policy.Decision, suggest, message string) {
	d.Requests = true
	if unpack != nil {
		d.Reason = "the push cannot be judged: " + unpack.Error()
		return d, "", string(errorText(http.StatusForbidden, d.Reason, ""))
	}
	var lines []string
	var changes []policy.RefChange
	for _, c := range push.Changes {
		one, no := denied[c.Ref]
		if !no {
			continue
		}
		changes = append(changes, policy.RefChange{Ref: c.Ref, Delete: c.Deleted()})
		if d.Rule == nil {
			d.Rule = one.Rule
		}
		lines = append(lines, fmt.Sprintf("%s %s is not allowed by the policy: %s", pushVerb(c), logged(c.Ref), one.Reason))
	}
	if n := len(lines) - maxNamed; n > 0 {
		lines = append(lines[:maxNamed], fmt.Sprintf("and %d more refs", n))
	}
	if rules := r.rule.Push; rules != nil {
		suggest = rules.Suggest(changes)
	}
	d.Reason = strings.Join(lines, "; ")
	return d, suggest, string(errorText(http.StatusForbidden, strings.Join(lines, "; "), suggest))
}

// pushVerb says what a change does to its ref.
func pushVerb(c gitwire.Change) string {
	switch {
	case c.Deleted():
		return "deletion of"
	case c.Created():
		return "creation of"
	}
	return "push to"
}
