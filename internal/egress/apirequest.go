package egress

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"bawn.dev/bawn/internal/egress/apibody"
	"bawn.dev/bawn/internal/inspect"
	"bawn.dev/bawn/internal/policy"
)

// Theory of operation: requests to the APIs of code hosts
//
// The rules say of some of them (policy.Decision.Body) that the body decides. So package inspect has it
// read here as a whole, before anything of the request is sent on, and what is sent on is what was judged, byte
// by byte. The repositories that it is about are kept with the request, so that a change of the rules cuts one
// that they no longer allow.
//
// A body that names nodes by their IDs is judged in two steps: once the whole request is judged, confirmNodes asks the
// server in which repositories they are. The rules that are in force when the answer comes decide.

// maxBodies bounds the requests whose bodies are held until they are judged, each up to apibody.MaxBody.
const maxBodies = 32

// apiJudge returns the judge of the body of a request to the API of a code host.
func (r *openRequest) apiJudge(header http.Header) func(*bufio.Reader) (io.Reader, *inspect.Answer) {
	return func(body *bufio.Reader) (io.Reader, *inspect.Answer) {
		select {
		case r.f.g.bodies <- struct{}{}:
			defer func() { <-r.f.g.bodies }()
		default:
			return nil, r.refuseBody(fmt.Errorf("more than %d requests are judged by their bodies at once: try again", maxBodies))
		}
		text, err := io.ReadAll(io.LimitReader(body, apibody.MaxBody+1))
		switch {
		case err != nil:
			err = errors.New("its body ended early, or cannot be decoded")
		case len(text) > apibody.MaxBody:
			err = fmt.Errorf("its body is longer than %d bytes", apibody.MaxBody)
		default:
			err = r.judgeBody(header, text)
		}
		if err != nil {
			return nil, r.refuseBody(err)
		}
		return bytes.NewReader(text), nil
	}
}

// judgeBody returns why a body is not what the rules that are in force now say; nil: it is. It notes the
// repositories that the body is about.
func (r *openRequest) judgeBody(header http.Header, text []byte) error {
	if err := checkHeader(header); err != nil {
		return err
	}
	// Under the lock: recheck must find the repositories, or this decision is the new one.
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	d := r.f.g.decideRequest(r.q, r.also)
	switch {
	case !d.Allow:
		return errors.New(d.Reason)
	case d.Body == nil:
		r.unjudged = true // every body may pass by now
		return nil
	case d.Body.Kind == policy.NoBody && len(text) == 0:
		return nil
	case d.Body.Kind == policy.NoBody:
		return errors.New("some servers read fields of a query in it")
	}
	if err := checkJSON(header, len(text)); err != nil {
		return err
	}
	var asked *apibody.Asked
	var err error
	switch d.Body.Kind {
	case policy.GitLabText:
		return apibody.GitLab(text)
	case policy.GraphQLQuery:
		asked, err = apibody.GraphQL(text, scopeOf(d.Body))
	case policy.GitLabQuery:
		asked, err = apibody.GitLabGraphQL(text, d.Body.Repositories)
	case policy.ConflictingBodies:
		return errors.New("of its server, rules github: and rules gitlab: say two things, so remove one of them")
	default:
		return errors.New("bawn cannot judge it")
	}
	if err != nil {
		return err
	}
	r.take(asked, d.Body)
	return nil
}

// scopeOf returns what a body may be about.
func scopeOf(b *policy.BodyRules) apibody.Scope {
	return apibody.Scope{Read: b.Repositories, Write: b.Writable}
}

// take notes what the body of a request asks, and which rule allows it. f.mu is held.
func (r *openRequest) take(asked *apibody.Asked, by *policy.BodyRules) {
	r.asked, r.about, r.changed = asked, asked.About, asked.Changed
	r.rule.Rule = by.RuleFor(asked.Changes)
}

// confirmNodes asks the server about the nodes that the body of a request names, and returns nil if it may pass.
func (r *openRequest) confirmNodes(ask inspect.AskFunc) *inspect.Answer {
	f := r.f
	f.mu.Lock()
	asked := r.asked
	f.mu.Unlock()
	if asked == nil {
		return nil // not judged by its body, or there is none
	}
	question := asked.Question()
	if question == nil {
		return nil
	}
	answer, err := ask(question)
	if err == nil {
		err = r.judgeNodes(asked, answer)
	}
	if err != nil {
		return r.refuseBody(err)
	}
	return nil
}

// judgeNodes returns why a request must not pass by what the server says of its nodes.
func (r *openRequest) judgeNodes(asked *apibody.Asked, answer []byte) error {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	d := r.f.g.decideRequest(r.q, r.also)
	switch {
	case !d.Allow:
		return errors.New(d.Reason)
	case d.Body == nil:
		r.unjudged = true
		return nil
	case d.Body.Kind != policy.GraphQLQuery:
		return errors.New("the rules have changed")
	}
	if err := asked.Judge(answer, scopeOf(d.Body)); err != nil {
		return err
	}
	if !d.Body.Covers(asked.About, asked.Changed) {
		return errors.New("the rules have changed")
	}
	r.take(asked, d.Body)
	return nil
}

// checkHeader refuses what follows an upgrade, which nobody would judge, and names that some servers read as
// others, such as Content_Encoding: for CGI and its heirs, hyphens are underscores.
func checkHeader(header http.Header) error {
	if len(header.Values("Upgrade")) > 0 {
		return errors.New("it asks for an upgrade to another protocol")
	}
	for name := range header {
		if strings.Contains(name, "_") {
			return fmt.Errorf("the name of its header %.60q has an underscore, which some servers read as a hyphen", name)
		}
	}
	return nil
}

// checkJSON refuses bodies that a server would not read as JSON in UTF-8.
func checkJSON(header http.Header, length int) error {
	types := header.Values("Content-Type")
	if len(types) == 0 && length == 0 {
		return nil
	}
	if len(types) == 1 {
		kind, params, err := mime.ParseMediaType(types[0])
		charset, has := params["charset"]
		if err == nil && kind == "application/json" && (len(params) == 0 || has && len(params) == 1 && strings.EqualFold(charset, "utf-8")) {
			return nil
		}
	}
	return errors.New("its Content-Type is not application/json: bodies in other formats are not understood, so send JSON")
}

// refuseBody logs the refusal of a request because of its body, and returns the answer to it.
func (r *openRequest) refuseBody(why error) *inspect.Answer {
	d := policy.Decision{Requests: true, Rule: r.rule.Rule, Reason: "the body of the request is refused: " + why.Error()}
	if b := r.rule.Body; b != nil {
		d.Reason += fmt.Sprintf(" (the rule %q lets it pass if it is %s)", r.rule.Rule, b.Condition())
	}
	f := r.f
	f.mu.Lock()
	r.unlist() // it ends here, denied
	e := f.entry()
	f.mu.Unlock()
	e.Method, e.Path, e.Status = logged(r.q.Method), logged(r.q.Path), http.StatusForbidden
	f.g.deny(e, d, "", f.hint)
	page, kind := errorText(http.StatusForbidden, d.Reason, ""), ""
	if r.rule.Body != nil {
		page, kind = apiError(page)
	}
	return &inspect.Answer{Status: http.StatusForbidden, Type: cmp.Or(kind, "text/plain; charset=utf-8"), Body: page}
}

// apiError returns a page as the APIs of code hosts write an error, and its Content-Type. gh and glab show nothing of a text.
func apiError(page []byte) (body []byte, kind string) {
	body, err := json.Marshal(map[string]string{"message": strings.TrimSpace(string(page))})
	if err != nil {
		return page, ""
	}
	return body, "application/json; charset=utf-8"
}

// bodyJudge returns the judge of the body of a request; nil: every body may pass.
func (r *openRequest) bodyJudge(header http.Header) func(*bufio.Reader) (io.Reader, *inspect.Answer) {
	if r.rule.Body != nil {
		return r.apiJudge(header)
	}
	return r.pushJudge(header)
}

// apiForbidden returns why a request that is under way is not one that a decision allows by its body; empty if
// it is. f.mu is held.
func (r *openRequest) apiForbidden(d policy.Decision) string {
	switch {
	case d.Body == nil:
		return ""
	case r.rule.Body == nil || r.unjudged:
		return "they are about its body now"
	case !d.Body.Covers(r.about, r.changed):
		return "they are not about " + strings.Join(slices.Concat(r.about, r.changed), ", ") + " any more"
	}
	return ""
}
