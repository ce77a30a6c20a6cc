package inspect

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"io"
	"net/http"
	"testing"
	"time"

	"bawn.dev/bawn/internal/secret"
)

// BenchmarkDownload compares an inspected download with one of the same server without bawn.
// With all of them on two cores, four ends of TLS instead of two give a ratio of 0.5 at most.
func BenchmarkDownload(b *testing.B) {
	raw := make([]byte, 48<<20)
	_, _ = rand.Read(raw)
	body := []byte(base64.StdEncoding.EncodeToString(raw))
	for _, proto := range []string{"http/1.1", "h2"} {
		b.Run(proto, func(b *testing.B) {
			p := newPlace(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost {
					_, _ = io.Copy(io.Discard, r.Body)
					return
				}
				_, _ = w.Write(body)
			}), bothProtocols, bound(secret.Place{}))
			inspected := p.client(proto)
			direct := p.client(proto)
			tr := direct.Transport.(*http.Transport)
			tr.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
			tr.DialContext = p.dialServer
			get := func(c *http.Client) time.Duration {
				start := time.Now()
				res, err := c.Do(request(b, "GET", "/", nil, "Authorization", "Bearer "+standIn))
				if err != nil {
					b.Fatal(err)
				}
				n, err := io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if err != nil || n != int64(len(body)) {
					b.Fatal(n, err)
				}
				return time.Since(start)
			}
			get(inspected)
			get(direct)
			var with, without time.Duration
			for b.Loop() {
				with += get(inspected)
				without += get(direct)
			}
			b.ReportMetric(float64(without)/float64(with), "ratio")
			b.ReportMetric(float64(len(body))*float64(b.N)/with.Seconds()/1e6, "MB/s")
		})
	}
}

func BenchmarkScanner(b *testing.B) {
	raw := make([]byte, 3<<20)
	_, _ = rand.Read(raw)
	body := []byte(base64.StdEncoding.EncodeToString(raw))
	s := newScanner(needlesOf([]secret.Bound{bound(secret.Place{}), boundElsewhere()}))
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		for at := 0; at < len(body); at += 32 << 10 {
			s.feed(body[at:min(len(body), at+32<<10)], false)
		}
	}
}

func BenchmarkSwap(b *testing.B) {
	raw := make([]byte, 3<<20)
	_, _ = rand.Read(raw)
	body := []byte(base64.StdEncoding.EncodeToString(raw))
	swaps := testSwaps()
	b.SetBytes(int64(len(body)))
	s := newStream(swaps)
	var out []byte
	for b.Loop() {
		for at := 0; at < len(body); at += 32 << 10 {
			out, _ = s.feed(out[:0], body[at:min(len(body), at+32<<10)], false)
		}
	}
}
