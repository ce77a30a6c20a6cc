package inspect

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"bawn.dev/bawn/internal/login"
	"bawn.dev/bawn/internal/secret"
)

// Logins of agents: the exchange with a token endpoint (package login has what is decided and kept).
//
// Theory of operation. TLS to the hosts of the endpoints is ended here, also while no login is kept. A
// request to an endpoint is read whole (loginbody.go), judged by itself and written anew: fields that
// carry tokens have nothing but the placeholder of that field, and no other field or header has
// a placeholder or a credential. The answer is read whole as well. Once the request is on its way it goes
// on to its end, whether the guest waits or not: the server may have replaced the refresh token.
//
// Access tokens are used by the same means as secrets: they are bound to the API hosts.

const (
	// exchangeTime bounds a request for tokens with its answer.
	exchangeTime = time.Minute
	// maxLoginAnswer bounds the answer of a token endpoint, in bytes.
	maxLoginAnswer = 64 << 10
	// maxExchanges bounds the requests for tokens of a sandbox that are under way, which are held whole while they wait for
	// one another.
	maxExchanges = 32
)

// bindings returns the secrets of the sandbox and the tokens of its logins.
func (i *Inspector) bindings() ([]secret.Bound, error) {
	list, err := i.c.Bindings.List()
	if err != nil || i.c.Logins == nil {
		return list, err
	}
	tokens, err := i.c.Logins.List()
	if err != nil || len(tokens) == 0 {
		return list, err
	}
	return slices.Concat(list, tokens), nil
}

// endpoints returns the token endpoints on a host.
func (i *Inspector) endpoints(h secret.Host) ([]login.Endpoint, error) {
	if i.c.Logins == nil {
		return nil, nil
	}
	return i.c.Logins.Endpoints(h)
}

// endpoint returns the token endpoints that a request is for. One whose path a server may take for an
// endpoint's is an error.
func (s *session) endpoint(r *http.Request) (at []login.Endpoint, err error) {
	list, err := s.i.endpoints(s.t.host())
	if err != nil {
		return nil, &refusal{status: http.StatusServiceUnavailable, reason: err.Error(), told: ErrNoList.Error()}
	}
	if len(list) == 0 {
		return nil, nil
	}
	plain, _, _ := strings.Cut(r.RequestURI, "?")
	asked := []string{loose(plain), loose(r.URL.Path)}
	for _, e := range list {
		switch near := slices.Contains(asked, loose(e.Path)); {
		case near && e.Refuse:
			return nil, forbidden("%s turns the login of %s into another credential, which would be the guest's: give a key with bawn secret", e.Path, e.Agent)
		case plain == e.Path && r.URL.Path == e.Path:
			at = append(at, e)
		case near:
			return nil, forbidden("the path %.100q may mean %s, where agents get their tokens: write it so", plain, e.Path)
		}
	}
	return at, nil
}

// loose returns a path as a server may read it that is not strict. Frameworks take what is behind a dot for the format of the
// answer (/token.json).
func loose(p string) string {
	for range depth {
		if u, err := url.PathUnescape(p); err == nil {
			p = u
		}
	}
	var segments []string
	for s := range strings.SplitSeq(strings.ReplaceAll(p, `\`, "/"), "/") {
		s, _, _ = strings.Cut(s, ";")
		segments = append(segments, strings.TrimSpace(s))
	}
	p = strings.ToLower(path.Clean("/" + strings.Join(segments, "/")))
	return strings.TrimSuffix(p, path.Ext(p))
}

// judgeLogin is judge for a request to a token endpoint.
func (s *session) judgeLogin(r *http.Request, c *counted, list []secret.Bound, at []login.Endpoint) (*http.Request, error) {
	j := &judgement{s: s, ctx: r.Context(), list: list, all: needlesOf(list)} // no other credentials
	switch {
	case r.Method != http.MethodPost:
		return nil, &refusal{status: http.StatusMethodNotAllowed, reason: "a token endpoint takes POST only"}
	case r.URL.RawQuery != "" || r.URL.User != nil:
		return nil, forbidden("a request for tokens has a query")
	}
	if _, err := s.begin(r, c); err != nil {
		return nil, err
	}
	select {
	case s.i.exchanges <- struct{}{}:
	default:
		return nil, unavailable("more than %d requests for tokens at once", cap(s.i.exchanges))
	}
	x := &exchange{}
	// The request goes on without the client, but not for ever.
	ctx, cancel := context.WithTimeout(context.WithValue(context.WithoutCancel(r.Context()), exchangeKey{}, x), exchangeTime+loginWait)
	x.login = &loginExchange{cancel: cancel, place: s.i.exchanges}
	out := r.Clone(ctx)
	if err := j.exchange(out, c, at, x.login); err != nil {
		x.login.close()
		return nil, err
	}
	return out, nil
}

// loginWait is how long an exchange may wait for another one before it is sent.
const loginWait = 3 * time.Minute

// loginExchange is a request for tokens that is under way.
type loginExchange struct {
	*login.Exchange
	cancel func()
	place  chan struct{} // it takes one
}

// close ends it; what was not answered is given up.
func (l *loginExchange) close() {
	l.cancel()
	if l.Exchange != nil {
		l.Close()
	}
	<-l.place
}

// exchange judges a request for tokens, and writes it anew with real tokens.
func (j *judgement) exchange(r *http.Request, c *counted, at []login.Endpoint, l *loginExchange) error {
	if err := j.headers(r); err != nil {
		return err
	}
	control := http.NewResponseController(c.ResponseWriter)
	_ = control.SetReadDeadline(time.Now().Add(exchangeTime)) // where it is not supported, nothing is held but this request
	f, err := readLoginForm(r)
	_ = control.SetReadDeadline(time.Time{}) // the exchange may take longer
	if err != nil {
		return err
	}
	c.sent.Add(int64(f.size))
	if err := j.loginFields(f); err != nil {
		return err
	}
	l.Exchange, err = j.s.i.c.Logins.Begin(j.ctx, at, login.Request{Grant: f.get("grant_type"), Client: f.get("client_id"), Refresh: f.get(refreshField)})
	var denied login.Denied
	switch {
	case errors.As(err, &denied):
		return forbidden("%v", denied)
	case err != nil:
		return unavailable("%v", err)
	}
	for _, p := range l.Sent() {
		j.s.i.sent.add(j.s.t.host(), p.Value, p.Shown)
	}
	f.set(refreshField, l.Refresh)
	body, err := f.encode()
	if err != nil {
		return unavailable("the request for tokens cannot be written: %v", err)
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	for _, name := range notSent {
		r.Header.Del(name)
	}
	r.Header.Set("Content-Type", f.kind())
	r.Header.Set("Accept-Encoding", "identity")
	r.Header.Set("Accept", "application/json") // some servers answer with a form otherwise
	r.Trailer = nil
	return nil
}

// notSent are headers of a request for tokens that are not sent on: those of the body as it was, and those by which the
// answer would not be whole, after which a new refresh token is lost.
var notSent = []string{"Content-Length", "Expect", "Upgrade", "Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"}

// serveLogin sends a request for tokens, or answers it with what is known already.
func (s *session) serveLogin(w http.ResponseWriter, out *http.Request, l *loginExchange) {
	defer l.close()
	if l.Repeat != nil {
		l.Close() // the guest may take as long as it likes to read
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Length", strconv.Itoa(len(l.Repeat)))
		w.WriteHeader(l.RepeatStatus)
		_, _ = w.Write(l.Repeat)
		return
	}
	defer time.AfterFunc(exchangeTime, l.cancel).Stop() // cancelling twice is nothing
	s.proxy.ServeHTTP(w, out)
}

// loginAnswer reads the answer of a token endpoint, has its tokens kept, and replaces them. Then others may go on,
// however long the guest takes to read.
func (s *session) loginAnswer(x *exchange, res *http.Response) error {
	defer x.login.Close()
	body, err := wholeAnswer(res, s.i.windows)
	if err != nil {
		return s.refuseAnswer(x, "the token endpoint's answer is not passed on: "+err.Error())
	}
	body, dropped := withoutCredentials(body, s.t.Name)
	a, err := x.login.Done(res.StatusCode, body)
	for _, p := range a.Pairs {
		s.i.sent.add(s.t.host(), p.Value, p.Shown)
	}
	if err != nil {
		return s.refuseAnswer(x, "the token endpoint's answer is not passed on: "+err.Error())
	}
	out := a.Body
	if len(dropped) > 0 {
		s.t.Refused(fmt.Sprintf("the token endpoint's answer had fields that look like credentials, which the guest did not get: %.200q", dropped))
	}
	for _, name := range []string{"Content-Encoding", "Content-Length", "Set-Cookie", "Alt-Svc", "Etag", "Content-Md5", "Digest", "Trailer"} {
		res.Header.Del(name)
	}
	if swaps := s.swaps(x); swaps != nil {
		clean(res.Header, swaps)
		out, _ = swaps.all(out)
	}
	res.Trailer = nil
	res.Body, res.ContentLength = io.NopCloser(bytes.NewReader(out)), int64(len(out))
	res.Header.Set("Content-Length", strconv.Itoa(len(out)))
	return nil
}

// wholeAnswer reads and decodes the body of an answer.
func wholeAnswer(res *http.Response, places windows) ([]byte, error) {
	defer res.Body.Close()
	if res.StatusCode == http.StatusSwitchingProtocols {
		return nil, errors.New("the server changed the protocol unasked")
	}
	coding, err := codingOf(res.Header.Values("Content-Encoding"))
	if err != nil {
		return nil, err
	}
	r, err := decoder(coding, res.Body, places.take)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxLoginAnswer+1))
	switch {
	case err != nil:
		return nil, errors.New("it broke off") // the error may have a part of it
	case len(b) > maxLoginAnswer:
		return nil, fmt.Errorf("it has more than %d bytes", maxLoginAnswer)
	}
	return b, nil
}

// withoutCredentials returns a JSON text without texts that look like credentials, at whatever depth, but
// for the tokens of an answer, and the names of what is left out. What is no JSON stays.
func withoutCredentials(text []byte, host string) (out []byte, dropped []string) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return text, nil
	}
	dropped = drop(v, func(depth int, name, value string) bool {
		return (isCredentialField(host, name, value) || secret.HasIssued(value)) && (depth > 0 || !slices.Contains(login.TokenFields, name))
	}, 0)
	if len(dropped) == 0 {
		return text, nil
	}
	slices.Sort(dropped)
	out, err := json.Marshal(v)
	if err != nil {
		return []byte("{}"), dropped
	}
	return out, dropped
}

// drop removes texts of objects in a JSON value, and returns their names.
func drop(v any, is func(depth int, name, value string) bool, depth int) (names []string) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			names = append(names, drop(e, is, depth+1)...)
		}
	case map[string]any:
		for name, e := range v {
			if text, ok := e.(string); ok && is(depth, name, text) {
				delete(v, name)
				names = append(names, name)
				continue
			}
			names = append(names, drop(e, is, depth+1)...)
		}
	}
	return names
}
