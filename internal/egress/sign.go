package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"bawn.dev/bawn/internal/egress/audit"
	"bawn.dev/bawn/internal/egress/gitobject"
	"bawn.dev/bawn/internal/sys/text"
)

// Theory of operation: signatures of commits and tags
//
// In a sandbox that the person has given leave to (bawn run --sign), git hands what it wants signed to a
// program of the agent's, which posts it to /sign of the page for the agent. The answer is the signature, as
// the person's own git on the host would make it.
//
// Any process of the guest can ask, so a signature says no more than that: made in this sandbox, by the
// person's leave. What is held here is what can be read off the object. It is a commit or a tag in exactly
// git's form (package gitobject), so that no other text and no challenge of another protocol is signed; its
// committer or tagger is the identity that the sandbox was given, now; and a rule in force allows a push to
// some repository. To which one the object will go is in no commit, so nobody can check it.
//
// One is signed at a time, since the person may be asked for a PIN. Requests wait for their turn, within
// bounds, so that a rebase of many commits goes on.

const (
	// maxSigning bounds the requests at a time, each of which holds an object of up to gitobject.MaxObject.
	maxSigning = 16
	// maxSigned is how many objects are signed at once; after that one more each signEvery.
	maxSigned = 1000
	signEvery = time.Second
	// maxSignWait bounds how long a request waits for its turn.
	maxSignWait = time.Minute
	// maxSignSkew bounds how far the time of a committer is from the host's: nobody gets a signature for
	// another day.
	maxSignSkew = 24 * 60 * time.Minute
	// signPause is how long the failure of the signing program is the answer to all requests: each try may
	// ask the person something.
	signPause = 5 * time.Second
	// maxGivenUp is how many requests may end at once while the signing program works for them; one more each
	// signPause. A further one counts as a failure of the program.
	maxGivenUp = 3
)

// Signer signs for one sandbox.
type Signer struct {
	// Name and Email are the identity of the sandbox's commits (git-config(1), user.name, user.email).
	Name, Email string
	// Sign returns the signature of an object. Its error is for the guest to read. It is called once at a
	// time.
	Sign func(ctx context.Context, object []byte) ([]byte, error)
}

// signing is the state of the signatures of a gateway.
type signing struct {
	places chan struct{} // one for each request
	turn   chan struct{} // held by the request that is signed
	rate   *rate.Limiter
	// givenUp limits the requests that end while they are signed.
	givenUp *rate.Limiter

	mu     sync.Mutex
	failed signFailure
}

// signFailure is the last failure of the signing program.
type signFailure struct {
	err   error
	until time.Time
}

func newSigning() *signing {
	return &signing{places: make(chan struct{}, maxSigning), turn: make(chan struct{}, 1), rate: rate.NewLimiter(rate.Every(signEvery), maxSigned), givenUp: rate.NewLimiter(rate.Every(signPause), maxGivenUp)}
}

// signRefusal is why an object is not signed, with the status of HTTP that says so.
type signRefusal struct {
	status int
	msg    string
}

func (e *signRefusal) Error() string { return e.msg }

func refuseSign(status int, format string, args ...any) error {
	return &signRefusal{status, fmt.Sprintf(format, args...)}
}

// serveSign answers POST /sign.
func (g *Gateway) serveSign(w http.ResponseWriter, r *http.Request) {
	plain(w, "text/plain; charset=utf-8")
	signature, err := g.signRequest(w, r)
	// What the server's own limits are for was the request's body.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(g.infoTime))
	var refused *signRefusal
	switch {
	case errors.As(err, &refused):
		w.WriteHeader(refused.status)
		fmt.Fprintf(w, "bawn: not signed: %s\n", text.Line(refused.msg))
	case err != nil:
		w.WriteHeader(http.StatusBadRequest)
	default:
		_, _ = w.Write(signature)
	}
}

// signRequest reads a request, and signs what it has if that may be signed. An error that is no *signRefusal
// means that nobody waits for the answer.
func (g *Gateway) signRequest(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if g.cfg.Sign == nil {
		return nil, g.refusedSign(nil, refuseSign(http.StatusForbidden, "signatures are off in this sandbox: the user allows them on the host with bawn run --sign"))
	}
	select {
	case g.signing.places <- struct{}{}:
		defer func() { <-g.signing.places }()
	default:
		return nil, g.refusedSign(nil, refuseSign(http.StatusTooManyRequests, "%d objects wait for a signature already", maxSigning))
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, gitobject.MaxObject))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return nil, g.refusedSign(nil, refuseSign(http.StatusRequestEntityTooLarge, "the object has more than %d bytes", gitobject.MaxObject))
	} else if err != nil {
		return nil, err
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // the server watches for the end of the connection
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(g.ctx, cancel)()
	o, err := gitobject.Parse(b)
	if err != nil {
		return nil, g.refusedSign(nil, refuseSign(http.StatusForbidden, "this is not signed by the user's key, as only commits and tags in git's own form are: %v", err))
	}
	if err := g.maySign(o); err != nil {
		return nil, g.refusedSign(o, err)
	}
	signature, err := g.sign(ctx, o, b)
	if err != nil {
		return nil, g.refusedSign(o, err)
	}
	g.write(audit.Entry{Verdict: audit.Allowed, Proto: audit.ProtoSign, Object: o.Kind + " " + o.SignedName(signature), Of: o.Of}, nil)
	return signature, nil
}

// refusedSign logs a refusal, and returns it.
func (g *Gateway) refusedSign(o *gitobject.Object, err error) error {
	e := audit.Entry{Verdict: audit.Denied, Proto: audit.ProtoSign, Reason: err.Error()}
	if o != nil {
		e.Object, e.Of = o.Kind, o.Of
	}
	g.write(e, nil)
	return err
}

// maySign judges an object.
func (g *Gateway) maySign(o *gitobject.Object) error {
	if set := g.current.Load(); set == nil || set.Pushes() == nil {
		return refuseSign(http.StatusForbidden, "no rule allows a push to a repository any more: the user adds one on the host, as in %s git:origin:push=BRANCH", allowCommand)
	}
	who := "committer"
	if o.Kind == gitobject.Tag {
		who = "tagger"
	}
	s := g.cfg.Sign
	if !isIdentity(o.By.Name, s.Name) || !isIdentity(o.By.Email, s.Email) {
		return refuseSign(http.StatusForbidden, "its %s is %q <%s>, and this sandbox's is %q <%s>: leave user.name and user.email to the sandbox (git config --show-origin user.email says where git has another), or commit without a signature (--no-gpg-sign)",
			who, logged(o.By.Name), logged(o.By.Email), s.Name, s.Email)
	}
	if skew := time.Since(o.By.When).Abs(); skew > maxSignSkew {
		return refuseSign(http.StatusForbidden, "the time of its %s, %s, is more than %v from the host's", who, o.By.When.Format(time.RFC3339), maxSignSkew)
	}
	return nil
}

// isIdentity reports whether a name or an address in an object is what git makes of that setting: it takes some
// characters off its ends, and others out of it (ident.c of git; the dot by some versions only).
func isIdentity(got, setting string) bool {
	for _, ends := range []string{`,:;<>"\'`, `.,:;<>"\'`} {
		s := strings.TrimFunc(setting, func(r rune) bool { return r <= ' ' || strings.ContainsRune(ends, r) })
		if got == strings.NewReplacer("\n", "", "<", "", ">", "").Replace(s) && got != "" {
			return true
		}
	}
	return false
}

// sign signs an object when its turn comes.
func (g *Gateway) sign(ctx context.Context, o *gitobject.Object, b []byte) ([]byte, error) {
	busy := refuseSign(http.StatusTooManyRequests, "too many objects wait for a signature: one is signed each %v", signEvery)
	waiting, cancel := context.WithTimeout(ctx, maxSignWait)
	defer cancel()
	select {
	case g.signing.turn <- struct{}{}:
		defer func() { <-g.signing.turn }()
	case <-waiting.Done():
		return nil, busy
	}
	if err := g.signing.failure(); err != nil {
		return nil, refuseSign(http.StatusServiceUnavailable, "%v (the last try is less than %v old)", err, signPause)
	}
	if g.signing.rate.Wait(waiting) != nil {
		return nil, busy
	}
	if err := g.maySign(o); err != nil { // the rules may have changed meanwhile
		return nil, err
	}
	signature, err := g.cfg.Sign.Sign(ctx, b)
	if ctx.Err() != nil {
		if !g.signing.givenUp.Allow() { // the person may have been asked something each time
			g.signing.fail(errGivenUp)
		}
		return nil, refuseSign(http.StatusServiceUnavailable, "nobody waits for the signature any more")
	}
	if err != nil {
		g.signing.fail(err)
		return nil, refuseSign(http.StatusServiceUnavailable, "%v", err)
	}
	return signature, nil
}

var errGivenUp = errors.New("several requests for a signature were given up while the user may have been asked on the host")

// failure returns the last failure, if it was a moment ago.
func (s *signing) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Now().Before(s.failed.until) {
		return s.failed.err
	}
	return nil
}

func (s *signing) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = signFailure{err, time.Now().Add(signPause)}
}
