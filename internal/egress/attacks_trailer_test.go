package egress

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// TestAttackTrailers: servers that take the fields behind a body for those of the head find none there that would ask them
// for another method or path, or that is a credential.
func TestAttackTrailers(t *testing.T) {
	var taken atomic.Int32
	server := newCounter(t, false, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		for name, values := range r.Trailer {
			if name != "X-Checksum" && len(values) > 0 { // one without a value was announced in the head and did not come
				taken.Add(1)
			}
		}
		_, _ = io.WriteString(w, "hello")
	})
	l := newLab(t, nil)
	l.SetPolicy(rulesFrom(t, "allow POST http://plain.test/v1/**", "allow POST http://plain.test:8080/v1/**"))
	l.serve("plain.test", "203.0.113.8:80", server.addr())
	l.serve("plain.test", "203.0.113.8:8080", server.addr())
	for _, c := range []struct {
		trailer string
		passes  bool
	}{
		{"X-Checksum: abc", true},
		{"X-HTTP-Method-Override: DELETE", false},
		{"x_http_method: DELETE", false},
		{"X-Original-URL: /admin", false},
		{"Destination: http://plain.test/admin", false},
	} {
		for _, port := range []uint16{80, 8080} {
			conn := l.mustDial("plain.test", port)
			name, _, _ := strings.Cut(c.trailer, ":")
			answer := send(t, conn, fmt.Sprintf("POST /v1/x HTTP/1.1\r\nHost: plain.test:%d\r\nConnection: close\r\nTrailer: %s\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n%s\r\n\r\n", port, name, c.trailer))
			if strings.Contains(answer, "hello") != c.passes {
				t.Errorf("port %d, %s: %q", port, c.trailer, answer)
			}
		}
		var h2c http.Protocols
		h2c.SetUnencryptedHTTP2(true)
		client := l.client()
		client.Transport.(*http.Transport).Protocols = &h2c
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://plain.test/v1/x", io.MultiReader(strings.NewReader("x")))
		if err != nil {
			t.Fatal(err)
		}
		name, value, _ := strings.Cut(c.trailer, ": ")
		r.Trailer = http.Header{name: {value}}
		answer, err := client.Do(r)
		if err == nil {
			answer.Body.Close()
		}
		if passed := err == nil && answer.StatusCode == 200; passed != c.passes {
			t.Errorf("HTTP/2, %s: %v", c.trailer, err)
		}
	}
	if n := taken.Load(); n > 0 {
		t.Errorf("the server got %d trailers that ask for something else", n)
	}
}
