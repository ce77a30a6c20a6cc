package login

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/secret"
	"bawn.dev/bawn/internal/sys/lockfile"
)

// exchangeWait bounds how long an exchange waits for another one of the same login.
const exchangeWait = 2 * time.Minute

// lockEvery is how often it looks whether that one is over.
const lockEvery = 50 * time.Millisecond

// maxLifetime bounds how long an access token is said to last.
const maxLifetime = 10 * 365 * 24 * time.Hour

// Grants are the kinds of requests for tokens that are exchanged, by their grant_type (RFC 6749, RFC
// 8628). Others would use another account (password, client_credentials) or turn a token into one of
// another kind (token-exchange).
var Grants = []string{grantRefresh, "authorization_code", "urn:ietf:params:oauth:grant-type:device_code"}

const grantRefresh = "refresh_token"

// Denied is why a request for tokens is not passed on.
type Denied string

func (d Denied) Error() string { return string(d) }

// Request is a request for tokens, as the guest sent it.
type Request struct {
	Grant   string
	Client  string // client_id
	Refresh string // refresh_token
}

// Exchange is a request for tokens that is under way. Close ends it.
type Exchange struct {
	// Refresh is the real refresh token; "" if the request has none.
	Refresh string
	// Repeat is the whole answer, with placeholders, if nothing is to be sent: another exchange has
	// refreshed the login meanwhile, or the host's own agent does. RepeatStatus is its status.
	Repeat       []byte
	RepeatStatus int

	b      *Sandbox
	login  Login
	client string
	made   bool
	sent   []Pair
	lock   *lockfile.Lock
}

// Pair is a token and what the guest has for it.
type Pair struct{ Value, Shown string }

// Close lets other exchanges of the login go on. It may be called again.
func (x *Exchange) Close() { _ = x.lock.Close() }

// Sent are the tokens that the request carries.
func (x *Exchange) Sent() []Pair { return x.sent }

// Begin begins the exchange of a request to one of these endpoints, which is the same one for several
// agents. Errors of type Denied are for the guest.
func (b *Sandbox) Begin(ctx context.Context, at []Endpoint, r Request) (*Exchange, error) {
	if !slices.Contains(Grants, r.Grant) {
		return nil, Denied(fmt.Sprintf("a request for tokens with the grant_type %.100q is not passed on", r.Grant))
	}
	before, err := b.choose(at, r)
	if err != nil {
		return nil, err
	}
	lock, err := b.store.lockLogin(ctx, before.Agent)
	if err != nil {
		return nil, err
	}
	x := &Exchange{b: b, client: r.Client, lock: lock}
	if x.login, err = b.store.Get(before.Agent); err == nil {
		err = x.begin(ctx, r, before.Serial)
	}
	if err != nil {
		x.Close()
		return nil, err
	}
	return x, nil
}

// lockLogin waits for other exchanges of a login. It tries again and again, since a wait in the kernel takes a thread that
// would stay there when ctx ends.
func (s *Store) lockLogin(ctx context.Context, agent string) (*lockfile.Lock, error) {
	dir := filepath.Join(s.config, "logins")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, exchangeWait, errors.New("another request for its tokens has not ended yet"))
	defer cancel()
	for {
		lock, err := lockfile.TryAcquire(filepath.Join(dir, agent+".lock"))
		if err == nil {
			return lock, nil
		}
		if errors.Is(err, unix.EAGAIN) {
			select {
			case <-time.After(lockEvery):
				continue
			case <-ctx.Done():
				err = context.Cause(ctx)
			}
		}
		return nil, fmt.Errorf("the login of %s: %w", agent, err)
	}
}

// choose returns the login that a request is about: whose placeholder it has, else that of an agent that may
// log in, else the first.
func (b *Sandbox) choose(at []Endpoint, r Request) (chosen Login, err error) {
	for _, e := range at {
		l, err := b.store.Get(e.Agent)
		if err != nil {
			return Login{}, err
		}
		own, err := b.store.own(&l, r.Refresh)
		if own || err != nil {
			return l, err
		}
		if chosen.Agent == "" || b.open(&l) {
			chosen = l
		}
	}
	return chosen, nil
}

// own reports whether a text is the placeholder of a login's refresh token.
func (s *Store) own(l *Login, text string) (bool, error) {
	if _, ok := l.Tokens[refreshToken]; !ok {
		return false, nil
	}
	p, err := s.placeholder(l, refreshToken)
	return text == p, err
}

// open reports whether the person lets this sandbox log in.
func (b *Sandbox) open(l *Login) bool {
	return l.Window.Sandbox == b.id && b.store.now().Before(l.Window.Until)
}

// begin decides about a request, with the lock held. serial is that of the login when the request came.
func (x *Exchange) begin(ctx context.Context, r Request, serial int) error {
	l := &x.login
	own, err := x.b.store.own(l, r.Refresh)
	if err != nil {
		return err
	}
	if r.Grant == grantRefresh && own {
		return x.renew(ctx, r, serial)
	}
	if own {
		return Denied("the placeholder of the login's refresh token belongs in a request with grant_type=refresh_token")
	}
	x.made, x.Refresh = true, r.Refresh
	if x.b.open(l) {
		return nil
	}
	if l.Kept() {
		return Denied("a login of " + l.Agent + " is kept on the host, and another one is not taken from a sandbox: to replace it, the user runs on the host: bawn login " + l.Agent)
	}
	return x.first()
}

// first decides about a login that the person did not ask for, while none is kept.
func (x *Exchange) first() error {
	hosts, err := x.login.Definition.hosts()
	if err != nil {
		return err
	}
	held, err := x.b.store.held()
	if err != nil {
		return err
	}
	for _, h := range hosts {
		if slices.Contains(held, h) {
			return Denied("a secret or another login of the user's is for " + h.String() + ", and another account is not used there: to log in, the user runs on the host: bawn login " + x.login.Agent)
		}
	}
	return nil
}

// held returns the hosts to which only the user's own accounts go: those of secrets, also of other projects, and of logins.
// A new login would be used in all sandboxes of its agent.
func (s *Store) held() (list []secret.Host, err error) {
	secrets, err := s.secrets.List()
	if err != nil {
		return nil, err
	}
	for _, e := range secrets {
		list = append(list, e.For...)
	}
	logins, err := s.List()
	if err != nil {
		return nil, err
	}
	for _, l := range logins {
		if l.Kept() {
			hosts, err := l.Definition.hosts()
			if err != nil {
				return nil, err
			}
			list = append(list, hosts...)
		}
	}
	return list, nil
}

// renew decides about a refresh of the login that is kept.
func (x *Exchange) renew(ctx context.Context, r Request, serial int) (err error) {
	l := &x.login
	switch {
	case !l.Kept():
		x.repeat(http.StatusBadRequest, map[string]any{"error": "invalid_grant", "error_description": "no login is kept on the host: log in again"})
		return nil
	case l.UseHost:
		return x.ofHost()
	case l.Client != "" && r.Client != "" && r.Client != l.Client:
		return Denied("the login of " + l.Agent + " is refreshed by the client that got it, not by another client_id")
	case l.Serial != serial && len(l.Answer) > 0:
		if done, err := x.again(); done || err != nil {
			return err
		}
	}
	if x.Refresh, err = x.b.store.value(ctx, l, refreshToken); err != nil {
		return err
	}
	x.sent = append(x.sent, Pair{x.Refresh, r.Refresh})
	return nil
}

// repeat answers a request without the server.
func (x *Exchange) repeat(status int, answer any) {
	x.RepeatStatus = status
	x.Repeat, _ = json.Marshal(answer) // of strings and numbers
}

// again repeats the latest answer, if its access token is still good. The host's clock may have been
// set meanwhile: an age that cannot be is none.
func (x *Exchange) again() (done bool, err error) {
	var answer map[string]json.RawMessage
	if err := json.Unmarshal(x.login.Answer, &answer); err != nil {
		return false, err
	}
	if in, ok := lifetime(answer); ok {
		left := in - max(0, x.b.store.now().Sub(x.login.Renewed))
		if left <= 0 {
			return false, nil
		}
		answer["expires_in"] = json.RawMessage(strconv.Itoa(int(left.Seconds())))
	}
	x.repeat(http.StatusOK, answer)
	return true, nil
}

// ofHost answers a refresh with the tokens that the host's own agent has.
func (x *Exchange) ofHost() error {
	l := &x.login
	t, err := x.b.store.hostTokens(l)
	if err != nil {
		return err
	}
	left := t.expires.Sub(x.b.store.now())
	if !t.expires.IsZero() && left <= 0 {
		return fmt.Errorf("the login of %s on the host is over: start %s on the host, which renews it", l.Agent, l.Agent)
	}
	t.answer = map[string]json.RawMessage{"token_type": json.RawMessage(`"Bearer"`)}
	if !t.expires.IsZero() {
		t.answer["expires_in"] = json.RawMessage(strconv.Itoa(int(left.Seconds())))
	}
	x.RepeatStatus = http.StatusOK
	x.Repeat, err = x.b.store.answer(l, t)
	return err
}

// lifetime returns that of an answer's access token.
func lifetime(answer map[string]json.RawMessage) (time.Duration, bool) {
	var seconds json.Number
	if json.Unmarshal(answer["expires_in"], &seconds) != nil || seconds == "" {
		return 0, false
	}
	n, err := seconds.Float64()
	if err != nil || n < 0 {
		return 0, false
	}
	return time.Duration(min(n, maxLifetime.Seconds()) * float64(time.Second)), true
}

// Answer is an answer as the guest may have it.
type Answer struct {
	Body  []byte
	Pairs []Pair // tokens that were in it
	Made  bool   // a new login is kept
}

// Done takes the whole answer, decoded. Tokens of a successful one are kept before it returns. What
// is not understood of an answer that may have tokens is an error.
func (x *Exchange) Done(status int, body []byte) (a Answer, err error) {
	var answer map[string]json.RawMessage
	ok := json.Unmarshal(body, &answer) == nil && answer != nil
	t := &tokens{values: map[string]string{}, made: x.made, answer: answer, serial: x.login.Serial, client: x.client, by: x.b}
	for _, field := range TokenFields {
		var v string
		switch raw, is := answer[field]; {
		case !is || string(raw) == "null":
		case json.Unmarshal(raw, &v) != nil:
			return a, fmt.Errorf("the field %s of the token endpoint's answer is no text", field)
		case v != "":
			t.values[field] = v
		}
	}
	success := status >= 200 && status < 300
	switch {
	case success && !ok:
		return a, errors.New("the token endpoint's answer is no JSON object")
	case success && t.values[accessToken] != "":
		return x.keep(t)
	case ok:
		return x.other(status, t)
	}
	a.Body, err = json.Marshal(map[string]string{"error": "server_error", "error_description": "the server's answer is no JSON object, and is not passed on (bawn)"})
	return a, err
}

// keep keeps the tokens of an answer.
func (x *Exchange) keep(t *tokens) (a Answer, err error) {
	if in, ok := lifetime(t.answer); ok {
		t.expires = x.b.store.now().Add(in)
	}
	l, err := x.b.store.put(x.login.Agent, t)
	if err != nil {
		return a, err
	}
	a = Answer{Body: l.Answer, Made: t.made}
	for field, v := range t.values {
		p, err := x.b.store.placeholder(&l, field)
		if err != nil {
			return a, err
		}
		a.Pairs = append(a.Pairs, Pair{v, p})
	}
	return a, nil
}

// other returns an answer that gives no access token: without tokens. It notes that a refresh was
// refused.
func (x *Exchange) other(status int, t *tokens) (a Answer, err error) {
	if !x.made && (status == http.StatusBadRequest || status == http.StatusUnauthorized) {
		var why string
		if json.Unmarshal(t.answer["error"], &why) != nil || why == "" {
			why = http.StatusText(status)
		}
		if x.Refresh != "" { // some servers name the token
			why = strings.ReplaceAll(why, x.Refresh, "TOKEN")
		}
		if err := x.b.store.refused(x.login.Agent, x.login.Serial, why); err != nil {
			return a, err
		}
	}
	maps.DeleteFunc(t.answer, func(name string, _ json.RawMessage) bool { return t.values[name] != "" })
	for _, v := range t.values {
		if secret.CheckValue(v) == nil { // a shorter one would be found anywhere
			a.Pairs = append(a.Pairs, Pair{v, "removed"})
		}
	}
	a.Body, err = json.Marshal(t.answer)
	return a, err
}
