package inspect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"bawn.dev/bawn/internal/secret"
	"bawn.dev/bawn/internal/tokens"
)

// refusal is why a request or an answer does not pass.
type refusal struct {
	status int
	reason string  // for the log
	told   string  // what the guest is told, if that is less; empty: reason
	answer *Answer // if the refusal is logged already; nil: Target.Page makes it
	logged bool    // it is logged already
}

func (r *refusal) Error() string { return r.reason }

func forbidden(format string, args ...any) *refusal {
	return &refusal{status: http.StatusForbidden, reason: fmt.Sprintf(format, args...)}
}

func unavailable(format string, args ...any) *refusal {
	return &refusal{status: http.StatusServiceUnavailable, reason: fmt.Sprintf(format, args...)}
}

// ErrNoList tells the guest that the list of secrets cannot be read. The error itself names files of the
// host.
var ErrNoList = errors.New("the list of secrets cannot be read on the host: bawn net log says there why")

// exchange is a request and what becomes of it.
type exchange struct {
	refused atomic.Pointer[refusal] // the first one, also of the body or the answer
	other   bool                    // other credentials may pass
	token   bool                    // it asks the host for a token of our account
	signed  *signing                // nil: it is not signed with a pair of keys
	login   *loginExchange          // it is for a token endpoint of an agent; else nil
	body    io.Closer               // the client's body over HTTP/2; else nil
	confirm func(AskFunc) *Answer   // Admission.Confirm
	window  func()                  // gives back the place of the answer's zstd decoder; nil: it has none
}

// exchangeKey is the key of an exchange in its request's context.
type exchangeKey struct{}

func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// judgement is the judging of one request.
type judgement struct {
	s     *session
	ctx   context.Context
	list  []secret.Bound // of the sandbox
	all   *needles       // of list
	bound []secret.Bound // to the host
	other bool
	// signing is that of the request, if a pair of keys signs it.
	signing *signing
}

// checkTarget refuses requests that are not for a path of the host.
func (s *session) checkTarget(r *http.Request) error {
	switch {
	case r.Method == http.MethodConnect:
		return forbidden("CONNECT is not passed on")
	case r.URL.Opaque != "":
		return &refusal{status: http.StatusBadRequest, reason: "the request target is neither a path nor a URL with a host"}
	}
	return s.checkHost(r.Host)
}

// judge returns the request as it may be sent on. If the rules allow it, it is noted in c. Errors
// are *refusal.
func (s *session) judge(r *http.Request, c *counted) (*http.Request, error) {
	if err := s.checkTarget(r); err != nil {
		return nil, err
	}
	endHere(r.Header) // what is judged is what is sent on
	list, err := s.i.bindings()
	if err != nil {
		return nil, &refusal{status: http.StatusServiceUnavailable, reason: err.Error(), told: ErrNoList.Error()}
	}
	switch at, err := s.endpoint(r); {
	case err != nil:
		return nil, err
	case len(at) > 0:
		return s.judgeLogin(r, c, list, at)
	}
	j := s.judgement(r.Context(), list)
	x := &exchange{other: j.other}
	if r.ProtoMajor == 2 {
		x.body = r.Body
	}
	if r.URL.User != nil && !j.other {
		return nil, j.foreign("the user in the URL")
	}
	if err := j.path(r); err != nil { // before the rules: the path is logged
		return nil, err
	}
	admitted, err := s.begin(r, c)
	if err != nil {
		return nil, err
	}
	if err := j.learn(); err != nil {
		return nil, err
	}
	out := r.Clone(context.WithValue(r.Context(), exchangeKey{}, x))
	if out.Body != nil && out.Body != http.NoBody {
		out.Body = &countedBody{out.Body, &c.sent} // not in r, whose type of body net/http looks at
	}
	start := func(r *http.Request) error { return judgeBody(r, &admitted) }
	end := func(r *http.Request) error {
		limit(r, !onlyPairs(j.bound), j.readable(r, x))
		return nil
	}
	for _, step := range []func(*http.Request) error{j.signature, j.query, j.headers, start, j.body, end, j.sign} {
		if err := step(out); err != nil {
			return nil, err
		}
	}
	x.signed, x.confirm = j.signing, admitted.Confirm
	x.token = !j.other && s.i.issued.asks(s.t.host(), out)
	return out, nil
}

// judgement returns that of a request, with these secrets of the sandbox.
func (s *session) judgement(ctx context.Context, list []secret.Bound) *judgement {
	j := &judgement{s: s, ctx: ctx, list: list, all: needlesOf(list)}
	for _, b := range list {
		if b.IsFor(s.t.Name, s.t.Port) {
			j.bound = append(j.bound, b)
			j.other = j.other || b.OtherCredentials
		}
	}
	j.other = j.other || len(j.bound) == 0 // inspected for its rules about requests only
	return j
}

// begin asks the rules about a request.
func (s *session) begin(r *http.Request, c *counted) (a Admission, err error) {
	if s.t.Begin == nil {
		return a, nil
	}
	if a = s.t.Begin(r); a.Status != 0 {
		return a, &refusal{status: a.Status, reason: http.StatusText(a.Status), answer: &Answer{a.Status, cmp.Or(a.Type, textType), a.Page}}
	}
	c.end = a.End
	return a, nil
}

// readable returns the content codings in which the answer to an exchange may come. Zstd is one of them if there is a
// place for its decoder, which is kept for the answer.
func (j *judgement) readable(r *http.Request, x *exchange) []string {
	if len(j.bound) == 0 || acceptable(r.Header.Values("Accept-Encoding"), []string{zstdCoding}) == "identity" { // it is not looked into, or in another one
		return codings
	}
	give := j.s.i.windows.take()
	if give == nil {
		return slices.DeleteFunc(slices.Clone(codings), func(c string) bool { return c == zstdCoding })
	}
	x.window = give
	context.AfterFunc(j.ctx, give)
	return codings
}

// limit takes off what would let an answer pass unread. whole: it may have a value in it, which would not
// be found in a part of the answer; a server may ignore that a part is asked for (RFC 9110, 14.2).
func limit(r *http.Request, whole bool, codings []string) {
	if whole {
		r.Header.Del("Range")
		r.Header.Del("If-Range")
	}
	if a := r.Header.Values("Accept-Encoding"); len(a) > 0 {
		r.Header.Set("Accept-Encoding", acceptable(a, codings))
		if !whole && tokens.Find(r.Method, r.URL.Path) != nil {
			r.Header.Set("Accept-Encoding", "identity") // or the numbers in the answer could not be read
		}
	}
	for _, name := range []string{"Grpc-Accept-Encoding", "Connect-Accept-Encoding"} {
		if r.Header.Get(name) != "" {
			r.Header.Set(name, "identity")
		}
	}
	r.Header.Del("Sec-Websocket-Extensions") // compression of messages
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		r.Header.Del("Upgrade") // the request goes on as HTTP/1.1
	}
}

// endHere takes off the headers that Connection says are for this connection (RFC 9110, 7.6.1), as the proxy would
// after they have been judged or signed. TE stays: the proxy passes on what it may of it.
func endHere(h http.Header) {
	keep := ""
	for _, v := range h.Values("Connection") {
		for name := range strings.SplitSeq(v, ",") {
			switch name = strings.TrimSpace(name); {
			case strings.EqualFold(name, "Upgrade"):
				keep = name
			case !strings.EqualFold(name, "TE"):
				h.Del(name)
			}
		}
	}
	if h.Del("Connection"); keep != "" {
		h.Set("Connection", keep)
	}
}

// checkHost compares a request's authority with the connection's.
func (s *session) checkHost(authority string) error {
	host, port := authority, ""
	if h, p, err := net.SplitHostPort(authority); err == nil {
		host, port = h, p
	}
	if strings.TrimSuffix(strings.ToLower(host), ".") != s.t.Name || port != "" && port != strconv.Itoa(int(s.t.Port)) {
		return forbidden("the request names %.255q, the connection goes to %s:%d", authority, s.t.Name, s.t.Port)
	}
	return nil
}

// misplaced is the refusal of a placeholder that is not where its secret belongs.
func (j *judgement) misplaced(name, where string) *refusal {
	for _, b := range j.bound {
		if b.Name == name {
			return forbidden("the placeholder of the secret %s is in %s: it belongs in %s", name, where, b.Place)
		}
	}
	return forbidden("the placeholder of the secret %s is in %s, and the secret is not for %s:%d", name, where, j.s.t.Name, j.s.t.Port)
}

// value returns that of a secret.
func (j *judgement) value(b *secret.Bound) (string, error) {
	v, err := b.Value(j.ctx)
	if err != nil {
		return "", unavailable("%v", err)
	}
	j.s.i.sent.add(secret.Host{Name: j.s.t.Name, Port: j.s.t.Port}, v, b.Placeholder)
	return v, nil
}

// learn makes the values of the host's secrets known, so that they are found in answers also
// if an earlier process of bawn's sent them. The output of a command is known only once it
// was needed: asking for it may bother the person.
func (j *judgement) learn() error {
	for i := range j.bound {
		b := &j.bound[i]
		if b.Keeper == secret.Command || j.s.knows(b.Stored) {
			continue
		}
		known := func() (err error) { _, err = j.value(b); return err }
		if isPair(*b) {
			known = func() (err error) { _, err = j.keys(b); return err }
		}
		if err := known(); err != nil {
			return err
		}
		j.s.know(b.Stored)
	}
	return nil
}

// knows reports whether know was called for a value on this connection.
func (s *session) knows(stored string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known[stored]
}

func (s *session) know(stored string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[stored] = true
}

func (j *judgement) path(r *http.Request) error {
	for _, p := range []string{r.RequestURI, r.URL.Path, r.URL.RawPath, r.URL.Opaque, r.Method} {
		before, _, _ := strings.Cut(p, "?")
		if name := carries(j.all, before); name != "" {
			return j.misplaced(name, "the path")
		}
		if !j.other && secret.HasIssued(unescaped(before)) {
			return j.foreign("the path")
		}
	}
	return nil
}

// query judges the fields of the query one by one, and leaves those that stay as they are
// written.
func (j *judgement) query(r *http.Request) error {
	if r.URL.RawQuery == "" {
		return nil
	}
	fields := strings.Split(r.URL.RawQuery, "&")
	for i, f := range fields {
		key, v, _ := strings.Cut(f, "=")
		name, value := unescaped(key), unescaped(v)
		b := slices.IndexFunc(j.bound, func(b secret.Bound) bool {
			return b.Place == (secret.Place{Where: secret.InQuery, Arg: name}) && value == b.Placeholder
		})
		if b >= 0 {
			real, err := j.value(&j.bound[b])
			if err != nil {
				return err
			}
			fields[i] = key + "=" + url.QueryEscape(real)
			continue
		}
		if carried := carries(j.all, f); carried != "" {
			return j.misplaced(carried, "the query")
		}
		if err := j.field(f); err != nil {
			return err
		}
	}
	r.URL.RawQuery = strings.Join(fields, "&")
	return nil
}

// field refuses a field of the query that carries another credential. For some servers a semicolon
// ends a field, too.
func (j *judgement) field(f string) error {
	if j.other {
		return nil
	}
	for part := range strings.SplitSeq(f, ";") {
		key, v, _ := strings.Cut(part, "=")
		if name, value := unescaped(key), unescaped(v); isCredentialField(j.s.t.Name, name, value) || secret.HasIssued(value) {
			return j.foreign("the query field " + strconv.Quote(name))
		}
	}
	return nil
}

// unescaped decodes a part of a query; what is no escape stays. It reads %u0041 as well, as ASP does.
func unescaped(s string) string {
	if u, err := url.QueryUnescape(s); err == nil {
		return u
	}
	b, out := []byte(strings.ReplaceAll(s, "+", " ")), []byte(nil)
	for len(b) > 0 {
		c, n, _ := readAnyEscape(b)
		switch {
		case b[0] != '%' || n == 0:
			out, n = append(out, b[0]), 1
		case n == len("%41"):
			out = append(out, byte(c))
		default:
			out = utf8.AppendRune(out, c)
		}
		b = b[n:]
	}
	return string(out)
}

// foreign is the refusal of a credential that is no secret of bawn's.
func (j *judgement) foreign(where string) *refusal {
	return forbidden("%s has another credential than the secret for %s: use the placeholder in the environment (bawn secret ls), or the user sets the secret with --other-credentials", where, j.s.t.Name)
}

func (j *judgement) headers(r *http.Request) error {
	for name, values := range r.Header {
		if carried := inName(j.all, name); carried != "" {
			return j.misplaced(carried, "the name of a header")
		}
		for i, v := range values {
			with, err := j.header(name, v)
			if err != nil {
				return err
			}
			values[i] = with
		}
	}
	types := formTypes(r)
	if set := otherCharset(types); set != "" && !j.other && (isForm(types) || r.URL.RawQuery != "") {
		return forbidden("fields in the charset %.40q are not looked into for other credentials: use UTF-8, or the user sets the secret with --other-credentials", set)
	}
	for name := range r.Trailer {
		if isCredential(textproto.CanonicalMIMEHeaderKey(name)) {
			return j.foreign("a trailer")
		}
	}
	return nil
}

// inName is carries for the name of a header, in which upper and lower case are one.
func inName(all *needles, name string) string {
	name = strings.ToLower(name)
	for i, text := range all.texts {
		if strings.Contains(name, strings.ToLower(string(text))) {
			return all.names[i]
		}
	}
	return ""
}

// header returns a header's value as it is sent on.
func (j *judgement) header(name, v string) (string, error) {
	for i := range j.bound {
		if with, ok := placed(&j.bound[i], name, v); ok {
			if b := &j.bound[i]; b.Place.Where != secret.InBasic && !j.other && isKeyAsUser(b.Placeholder, v) {
				return "", forbidden("the user beside the placeholder of the secret %s may be another credential: for a service that needs both, the user sets the secret with --basic USER", b.Name)
			}
			value, err := j.value(&j.bound[i])
			if err != nil {
				return "", err
			}
			return with(value), nil
		}
	}
	if carried := carries(j.all, v); carried != "" {
		return "", j.misplaced(carried, "the header "+name)
	}
	if scheme, token := cutScheme(v); name == "Authorization" && strings.EqualFold(scheme, "bearer") && j.s.i.issued.has(j.s.t.host(), token) {
		return v, nil
	}
	if !isFlag(v) && !j.other && (isCredential(name) || name == "Sec-Websocket-Protocol" && isCredentialProtocol(v) || secret.HasIssued(v)) {
		return "", j.foreign("the header " + name)
	}
	return v, nil
}
