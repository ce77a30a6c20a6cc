package inspect

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"bawn.dev/bawn/internal/secret"
	"bawn.dev/bawn/internal/sigv4"
)

// Requests that are signed with a pair of keys (package sigv4).
//
// Theory of operation. The client signs with the placeholders of the pair. The signature is read and taken
// off before the rest of the request is judged, so a placeholder anywhere else is refused as any other.
// When the request is as it is sent on, it is signed with the pair. A request that is signed with another
// key, or whose signature can be read in two ways, is refused as one with another credential.
//
// Whoever has the real signature can send the request from anywhere for some minutes. Servers show it in answers:
// S3 in an error, if what it got is not what was signed, and in the address of a redirect. So it is replaced
// in the answer. What does not go on (Connection) is taken off before.
//
// The part of a pair that is secret is never sent: a server can only send it back if it has it from elsewhere.
// So a part of an answer (Range) passes, and is looked into as far as it goes.

const (
	// maxSignedBody bounds a body that is held because its hash is signed and the client does not say it, in
	// bytes.
	maxSignedBody = 16 << 20
	// maxHeldBodies bounds all such bodies of a sandbox, the signed chunks of others, and the bodies into which a secret is
	// put, in bytes.
	maxHeldBodies = 64 << 20
)

// signing is the signing of one request.
type signing struct {
	claim *sigv4.Claim
	bound *secret.Bound
	body  *sigv4.Body // in the format aws-chunked; nil: it is not

	signature string // that is sent; empty until it is signed
}

// signature reads the signature of a request, and takes it off if a pair of this host is to sign the request.
func (j *judgement) signature(r *http.Request) error {
	if !slices.ContainsFunc(j.bound, isPair) {
		return nil
	}
	claim, err := sigv4.Find(r)
	if err != nil && !j.other {
		return forbidden("%v", err)
	}
	if err != nil || claim == nil { // a placeholder in it is refused with the rest of the request
		return nil //nolint:nilerr // other credentials pass as they are, also in an unknown form
	}
	i := slices.IndexFunc(j.bound, func(b secret.Bound) bool { return isPair(b) && b.Keys.ID == claim.KeyID })
	if i < 0 {
		if j.other {
			return nil
		}
		return j.foreign("the signature of AWS")
	}
	b := &j.bound[i]
	switch p := b.Place; {
	case claim.Token != "" && claim.Token != b.Keys.Token:
		return forbidden("the request is signed for the secret %s, and has another session token than its placeholder: unset AWS_SESSION_TOKEN in the sandbox, or use the placeholder in $%s_SESSION_TOKEN", b.Name, b.Name)
	case p.Region != "" && p.Region != claim.Region, p.Service != "" && p.Service != claim.Service:
		return forbidden("the request is signed for the region %s and the service %s: the secret %s belongs in %s", claim.Region, claim.Service, b.Name, p)
	}
	claim.Strip(r)
	j.signing = &signing{claim: claim, bound: b}
	return nil
}

// isPair reports whether a secret is a pair of keys.
func isPair(b secret.Bound) bool { return b.Place.Where == secret.InSignature }

// onlyPairs reports whether none of these secrets is sent to the host as it is.
func onlyPairs(list []secret.Bound) bool {
	return !slices.ContainsFunc(list, func(b secret.Bound) bool { return !isPair(b) })
}

// chunked reports whether the body is in the format aws-chunked.
func (j *judgement) chunked() bool { return j.signing != nil && j.signing.claim.Chunked() }

// chunkedBody makes the body one whose chunks are looked into and signed anew.
func (j *judgement) chunkedBody(r *http.Request, look func(p []byte, final bool) (*refusal, error), end func()) {
	b := &judgedBody{src: r.Body, refuse: j.refuseBody(r), look: look, end: end}
	chunks := j.signing.claim.NewBody(r.Body, sigv4.Look{Hold: func(n int64) error {
		if why := j.hold(n); why != nil {
			b.err = b.refuse(why)
		}
		return b.err
	}, Content: b.judge, Tail: func(text string) error {
		if name := carries(j.all, text); name != "" {
			b.err = b.refuse(j.misplaced(name, "a trailer"))
		}
		return b.err
	}})
	j.signing.body = chunks
	r.Body = joined{readerFunc(func(p []byte) (int, error) {
		n, err := chunks.Read(p)
		if errors.Is(err, sigv4.ErrFormat) && b.err == nil {
			b.err = b.refuse(forbidden("%v", err))
		}
		if b.err != nil {
			return 0, b.err
		}
		return n, err
	}), b}
}

// readerFunc is a function as an io.Reader.
type readerFunc func(p []byte) (int, error)

// Read implements io.Reader.
func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// sign signs a request that is as it is sent on.
func (j *judgement) sign(r *http.Request) error {
	s := j.signing
	if s == nil {
		return nil
	}
	p, err := j.keys(s.bound)
	if err != nil {
		return err
	}
	hash, err := j.hash(r)
	if err != nil {
		return err
	}
	chain, err := s.claim.Sign(r, sigv4.Keys{ID: p.ID, Secret: p.Secret, Token: p.Token}, hash, time.Now())
	if err != nil {
		return forbidden("the request cannot be signed with the secret %s: %v", s.bound.Name, err)
	}
	s.signature = chain.Signature()
	if s.body != nil {
		s.body.Start(chain)
	}
	return nil
}

// noSignature takes the place of a signature in an answer.
var noSignature = strings.Repeat("0", 64)

// withSignature returns what is to be replaced in the answer to a request with that signature.
func (s *swaps) withSignature(signature string) *swaps {
	one := swap{from: []byte(signature), to: []byte(noSignature), counts: len(signature)} // nobody can guess at what is new each time
	more := newSwaps(append(slices.Clone(s.list), one), s.patterns)
	more.guesses, more.pause = s.guesses, s.pause
	return more
}

// hash returns the hash of the body, for which the body is held; "" if the client claims one.
func (j *judgement) hash(r *http.Request) (string, error) {
	if j.signing.claim.Payload != "" {
		return "", nil
	}
	if r.Body == nil || r.Body == http.NoBody {
		return sigv4.Hash(nil), nil
	}
	if r.ContentLength > maxSignedBody {
		return "", tooLong()
	}
	size := r.ContentLength
	if size < 0 {
		size = maxSignedBody
	}
	if why := j.hold(size); why != nil {
		return "", why
	}
	src := r.Body
	b, over, err := wholeBody(src, maxSignedBody)
	if err != nil {
		return "", err
	}
	if over {
		return "", tooLong()
	}
	r.Body, r.ContentLength = joined{bytes.NewReader(b), src}, int64(len(b))
	return sigv4.Hash(b), nil
}

// hold takes n bytes of what the bodies of a sandbox may hold, until the request ends.
func (j *judgement) hold(n int64) *refusal {
	held, unsigned := j.s.i.held, ""
	if j.signing != nil {
		unsigned = ", or have the client send UNSIGNED-PAYLOAD as X-Amz-Content-Sha256"
	}
	if !held.TryAcquire(n) {
		return unavailable("more than %d MiB of bodies are held to be signed or to have a secret put in: try again%s", maxHeldBodies>>20, unsigned)
	}
	context.AfterFunc(j.ctx, func() { held.Release(n) })
	return nil
}

func tooLong() *refusal {
	return &refusal{status: http.StatusRequestEntityTooLarge, reason: "the request's body is longer than the 16 MiB that bawn holds to sign it: have the client send X-Amz-Content-Sha256 (UNSIGNED-PAYLOAD, or the hash of the body)"}
}

// keys returns a pair, and arranges that its parts are found in answers.
func (j *judgement) keys(b *secret.Bound) (secret.KeyPair, error) {
	v, err := b.Value(j.ctx)
	if err != nil {
		return secret.KeyPair{}, unavailable("%v", err)
	}
	p, err := secret.ParseKeyPair(v)
	if err != nil {
		return p, unavailable("the value of the secret %s is not available: %v", b.Name, err)
	}
	for _, part := range []struct{ real, placeholder string }{{p.ID, b.Keys.ID}, {p.Secret, b.Keys.Secret}, {p.Token, b.Keys.Token}} {
		if part.real != "" {
			j.s.i.sent.addPair(j.s.t.host(), part.real, fit(part.placeholder, len(part.real)))
		}
	}
	return p, nil
}

// fit returns a placeholder of n bytes: an answer in which it takes the place of a value keeps its length, which
// clients compare with what they were told.
func fit(placeholder string, n int) string {
	if n <= len(placeholder) {
		return placeholder[:n]
	}
	return placeholder + blank(n-len(placeholder))
}
