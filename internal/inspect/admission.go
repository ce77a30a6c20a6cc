package inspect

import (
	"bufio"
	"io"
	"net/http"
)

// Admission is the decision of the rules about a request.
type Admission struct {
	// Status, if not 0, refuses the request: the refusal is logged already, and the guest gets the
	// status and Page.
	Status int
	Page   []byte
	// End is called once, when an admitted request is over, with the status of its answer (0: none)
	// and the bytes of both bodies.
	End func(status int, sent, got int64)
	// Body, if not nil, judges the beginning of the request's body, without a content coding, before
	// anything of the request is sent on. It returns the body to be sent on, or an answer that
	// refuses the request and is logged already.
	Body func(body *bufio.Reader) (io.Reader, *Answer)
}

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
