package inspect

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/secret"
)

// gzippedNamed is gzipped, with a file name in the head of the gzip format, which no decoder gives out.
func gzippedNamed(t *testing.T, name, s string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Name = name
	if _, err := io.WriteString(w, s); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestAttackCodingForThisConnection: a request says by Connection that its Content-Encoding ends here. The proxy
// takes it off, so that the server reads the body as it is and not as it was judged.
func TestAttackCodingForThisConnection(t *testing.T) {
	const form = "application/x-www-form-urlencoded"
	for _, name := range []string{"Content-Encoding", "close, content-ENCODING"} {
		s := &seen{}
		p := newPlace(t, s, []string{"http/1.1"}, bound(secret.Place{}))
		body := gzippedNamed(t, "&access_token=of-the-attacker&b=", "a=1")
		res, page := p.do(p.client("http/1.1"), request(t, "POST", "/", strings.NewReader(body), "Content-Type", form, "Content-Encoding", "gzip", "Connection", name))
		if s.count() > 0 {
			if r, got := s.last(); r.Header.Get("Content-Encoding") == "" && strings.Contains(got, "of-the-attacker") {
				t.Errorf("%s: the server reads the token of another account in %q", name, got)
			}
		}
		if res.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %d %s", name, res.StatusCode, page)
		}
	}
}

// TestAttackCodingOfAnAnswerForThisConnection: the same by a server, which may be led to it.
func TestAttackCodingOfAnAnswerForThisConnection(t *testing.T) {
	p := newPlace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, v, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		w.Header().Set("Connection", r.URL.Query().Get("connection"))
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = io.WriteString(w, gzipped("you are "+v))
	}), []string{"http/1.1"}, bound(secret.Place{}))
	res, body := p.do(p.client("http/1.1"), request(t, "GET", "/?connection=Content-Encoding", nil, "Authorization", "Bearer "+standIn))
	if r, err := gzip.NewReader(strings.NewReader(body)); err == nil {
		plain, _ := io.ReadAll(r)
		body = string(plain)
	}
	if strings.Contains(body, realValue) || res.StatusCode != http.StatusOK || !strings.Contains(body, standIn) {
		t.Errorf("%d %q", res.StatusCode, body)
	}
}

// TestAttackCodingThatTheServerIgnores: most servers take no notice of the content coding of a request, and read the body as it is. A
// body in gzip is both: what it decodes to, and what stands in the head of the format or in a block that is not compressed.
func TestAttackCodingThatTheServerIgnores(t *testing.T) {
	const form = "application/x-www-form-urlencoded"
	s := &seen{}
	p := newPlace(t, s, bothProtocols, bound(secret.Place{}), boundElsewhere())
	for name, r := range map[string]*http.Request{
		"another account": request(t, "POST", "/", strings.NewReader(gzippedNamed(t, "&access_token=of-the-attacker&b=", "a=1")), "Content-Type", form, "Content-Encoding", "gzip"),
		"a frame to skip": request(t, "POST", "/", strings.NewReader("\x50\x2a\x4d\x18\x1d\x00\x00\x00&access_token=of-the-attacker"+zstded("a=1")), "Content-Type", form, "Content-Encoding", "zstd"),
		"a placeholder":   request(t, "POST", "/", strings.NewReader(gzippedNamed(t, elsewhere, "a=1")), "Content-Type", "text/plain", "Content-Encoding", "gzip"),
	} {
		if res, page := p.do(p.client("h2"), r); res.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %d %s", name, res.StatusCode, page)
		}
	}
	if res, page := p.do(p.client("h2"), request(t, "POST", "/", strings.NewReader(gzippedNamed(t, "form.txt", "a=1")), "Content-Type", form, "Content-Encoding", "gzip")); res.StatusCode != http.StatusOK {
		t.Error(res.StatusCode, page)
	}
}
