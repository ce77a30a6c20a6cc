package inspect

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// Admission is the decision of the rules about a request.
type Admission struct {
	// Status, if not 0, refuses the request: the refusal is logged already, and the guest gets the
	// status and Page, whose Content-Type is Type, or that of a text if it is empty.
	Status int
	Page   []byte
	Type   string
	// End is called once, when an admitted request is over, with the status of its answer (0: none)
	// and the bytes of both bodies.
	End func(status int, sent, got int64)
	// Body, if not nil, judges the beginning of the request's body, without a content coding, before
	// anything of the request is sent on. It returns the body to be sent on, or an answer that
	// refuses the request and is logged already.
	Body func(body *bufio.Reader) (io.Reader, *Answer)
	// Confirm, if not nil, is called after Body and all other judges, before anything of the request is sent on. It may ask the
	// server what it has to know, and returns nil or an answer that refuses the request and is logged already.
	Confirm func(ask AskFunc) *Answer
}

// AskFunc sends JSON to the path of a request, with the request's Authorization as the server gets it and nothing else of the request,
// and returns the JSON that it is answered with. The guest sees neither. Errors are for the guest.
type AskFunc func(json []byte) ([]byte, error)

const (
	// maxAnswered bounds an answer to bawn's own question, in bytes.
	maxAnswered = 64 << 10
	// askTime bounds how long the server may take for one.
	askTime = 30 * time.Second
)

// confirm lets the rules ask the server about a request, which is returned as an error if they refuse it.
func (s *session) confirm(out *http.Request) error {
	x := exchangeOf(out.Context())
	if x == nil || x.confirm == nil {
		return nil
	}
	if no := x.confirm(func(json []byte) ([]byte, error) { return s.ask(out, json) }); no != nil {
		return &refusal{status: no.Status, reason: http.StatusText(no.Status), answer: no}
	}
	return nil
}

// ask is the AskFunc of a request. The answer goes to nobody but the rules, so values in it are not replaced.
func (s *session) ask(about *http.Request, json []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(about.Context(), askTime)
	defer cancel()
	to := url.URL{Scheme: "https", Host: s.hostPort(), Path: about.URL.Path, RawPath: about.URL.RawPath}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), bytes.NewReader(json))
	if err != nil {
		return nil, errNotAsked
	}
	r.Host = about.Host
	r.Header = http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json"}, "User-Agent": {"bawn"}}
	if a := about.Header.Values("Authorization"); len(a) > 0 {
		r.Header["Authorization"] = a
	}
	res, err := s.transport.RoundTrip(r)
	if err != nil {
		s.t.Fault(fmt.Sprintf("the server could not be asked about a request: %v", err))
		return nil, errNotAsked
	}
	defer res.Body.Close()
	if coding, err := codingOf(res.Header.Values("Content-Encoding")); res.StatusCode != http.StatusOK || coding != "" || err != nil {
		return nil, fmt.Errorf("the server was asked about it, and answered with the status %d", res.StatusCode)
	}
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswered+1))
	if err != nil || len(answer) > maxAnswered {
		return nil, errNotAsked
	}
	return answer, nil
}

var errNotAsked = errors.New("the server could not be asked about it: try again")

// Answer is what a request gets instead of the server's answer.
type Answer struct {
	Status int
	Type   string // Content-Type
	Body   []byte
}

// maxDropped bounds how much of a refused request's body is read, in bytes: some clients read the
// answer only after they have sent all.
const maxDropped = 1 << 30

// judgeBody has the beginning of a body judged where the rules ask for it. What is sent on is what
// was judged: without its coding, of which a server may read another part.
func judgeBody(r *http.Request, a *Admission) error {
	if a.Body == nil {
		return nil
	}
	coding, err := codingOf(r.Header.Values("Content-Encoding"))
	if err != nil || coding != "" && coding != "gzip" && coding != "x-gzip" {
		return &refusal{status: http.StatusUnsupportedMediaType, reason: "the request's body is judged, and has another content coding than gzip"}
	}
	src := r.Body
	if src == nil {
		src = http.NoBody
	}
	plain, err := decoder(coding, src, nil) // no zstd
	if err != nil {
		return forbidden("the request's body cannot be looked into: %v", err)
	}
	if coding != "" {
		r.Header.Del("Content-Encoding")
		r.Header.Del("Content-Length")
		r.ContentLength = -1
	}
	rest, no := a.Body(bufio.NewReader(plain))
	if no != nil {
		_, _ = io.CopyN(io.Discard, src, maxDropped)
		return &refusal{status: no.Status, reason: http.StatusText(no.Status), answer: no}
	}
	if src != http.NoBody { // or net/http could not send the request anew on another connection
		r.Body = joined{rest, src}
	}
	return nil
}
