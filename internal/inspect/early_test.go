package inspect

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/secret"
)

// TestEarlyAnswers: over HTTP/2, a server that answers a request without reading its body, as one that refuses it, does
// not keep the client waiting.
func TestEarlyAnswers(t *testing.T) {
	for _, status := range []int{200, 401} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			p := newPlace(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(status)
				_, _ = io.WriteString(w, "early")
			}), []string{"h2"}, bound(secret.Place{}))
			c := p.client("h2")
			for range 5 {
				r, w := io.Pipe()
				go func() { _, _ = w.Write([]byte("the beginning")) }()
				res, body := p.do(c, request(t, "POST", "/upload", r, "Content-Type", "text/plain", "X-Api-Key", standIn))
				w.Close()
				if res.StatusCode != status || body != "early" {
					t.Errorf("%d %s", res.StatusCode, body)
				}
			}
		})
	}
}

// TestEarlyAnswersAreWhole: a client that goes on to send gets the whole of an early answer.
func TestEarlyAnswersAreWhole(t *testing.T) {
	said := strings.Repeat("early", 10<<10) + realValue[:len(realValue)-1] // its end is held until the answer is over
	p := newPlace(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, said)
	}), []string{"h2"}, bound(secret.Place{}))
	c := p.client("h2")
	for range 30 {
		r := request(t, "POST", "/upload", &endless{}, "Content-Type", "text/plain", "X-Api-Key", standIn)
		if res, body := p.do(c, r); res.StatusCode != http.StatusForbidden || body != said {
			t.Fatalf("%d, %d bytes of %d", res.StatusCode, len(body), len(said))
		}
	}
}

// endless is a body without an end, in small pieces. Each piece that comes after the answer is answered by a frame of its
// own, and a server of package net/http ends the connection when 10000 of them wait for a client that does not read for a
// moment, on a busy host: so many pieces do not fit into maxUnreadUp.
type endless struct{}

func (*endless) Read(p []byte) (int, error) {
	return copy(p, strings.Repeat("more", 16)), nil
}

// TestAttackBytesWithAnError: what a body gives together with its error is not judged, and does not pass.
func TestAttackBytesWithAnError(t *testing.T) {
	broken := errors.New("broken")
	b := &judgedBody{
		src:  io.NopCloser(readerFunc(func(p []byte) (int, error) { return copy(p, "unjudged"), broken })),
		look: plain(func([]byte, bool) *refusal { return nil }), refuse: func(why *refusal) error { return why },
	}
	var out bytes.Buffer
	if _, err := io.Copy(&out, b); !errors.Is(err, broken) || out.Len() > 0 {
		t.Errorf("%q, %v", out.String(), err)
	}
}
