package inspect

import (
	"io"
	"net/http"
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
