package egress

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestAttackPageOfABrowser: a web page that is open in a browser of the guest is not the agent. It asks for no rule and no
// signature (cross-site requests), and reads nothing by a name of its own that leads to the gateway (DNS rebinding by a
// resolver of the browser's).
func TestAttackPageOfABrowser(t *testing.T) {
	s := newSignLab(t, pushRule)
	object := testCommit(by(testAda, time.Now()), "x\n")
	for _, c := range []struct {
		name, method, url, host string
		header                  []string
		want                    int
	}{
		{"a form of another site", "POST", "/ask?rule=evil.example:443&reason=x", "", []string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}, 403},
		{"a page without an origin", "POST", "/ask?rule=evil.example:443&reason=x", "", []string{"Origin", "null"}, 403},
		{"a site of the same domain", "POST", "/sign", "", []string{"Sec-Fetch-Site", "same-site"}, 403},
		{"another port", "POST", "/sign", "", []string{"Origin", "http://bawn.internal:8080"}, 403},
		{"a name that leads here", "POST", "/sign", "evil.example", []string{"Origin", "http://evil.example", "Sec-Fetch-Site", "same-origin"}, 403},
		{"a name that leads here, read", "GET", "/policy.json", "evil.example", nil, 403},
		{"another one with a port", "GET", "/denials.json", "evil.example:80", nil, 403},
		{"a name below", "GET", "/", "x.bawn.internal", nil, 403},
		{"another address", "GET", "/", "192.0.2.77", nil, 403},
		{"a page of bawn's own", "GET", "/", "BAWN.internal.:80", []string{"Sec-Fetch-Site", "cross-site"}, 200}, // a link to it
		{"by its address", "GET", "/ask", "192.0.2.1", nil, 200},
		{"the agent", "POST", "/sign", "", nil, 200},
	} {
		r, err := http.NewRequestWithContext(t.Context(), c.method, "http://bawn.internal"+c.url, strings.NewReader(object))
		if err != nil {
			t.Fatal(err)
		}
		if c.method == "GET" || c.url != "/sign" {
			r.Body = http.NoBody
		}
		r.Host = c.host
		for i := 0; i < len(c.header); i += 2 {
			r.Header.Set(c.header[i], c.header[i+1])
		}
		answer, err := s.guest().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if code, text := answered(t, answer); code != c.want {
			t.Errorf("%s: %d %s", c.name, code, text)
		}
	}
	if n := s.signed.Load(); n != 1 {
		t.Errorf("%d objects were signed", n)
	}
	if list := s.AccessRequests(); len(list) != 0 {
		t.Errorf("the user is asked for %+v", list)
	}
}

// TestAttackSignaturesThatAreGivenUp: a guest that ends its requests again and again does not make the signing program
// ask the person each time. One that is given up now and then is no failure.
func TestAttackSignaturesThatAreGivenUp(t *testing.T) {
	s := newSignLab(t, pushRule)
	asked := make(chan struct{}, 100)
	s.sign = func(ctx context.Context, _ []byte) ([]byte, error) {
		asked <- struct{}{}
		<-ctx.Done() // the person is asked for a PIN
		return nil, ctx.Err()
	}
	post := func(ctx context.Context) (*http.Response, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://bawn.internal/sign", strings.NewReader(testCommit(by(testAda, time.Now()), "x\n")))
		if err != nil {
			t.Fatal(err)
		}
		return s.client().Do(r)
	}
	for range maxGivenUp + 1 {
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-asked; cancel() }()
		if answer, err := post(ctx); err == nil {
			answer.Body.Close()
			t.Fatalf("a request was answered: %s", answer.Status)
		}
		waitFor(t, "the end of a request", func() bool { return len(s.signing.places) == 0 })
		cancel()
	}
	for range 5 {
		answer, err := post(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if code, text := answered(t, answer); code != http.StatusServiceUnavailable || !strings.Contains(text, "given up") {
			t.Errorf("%d %s", code, text)
		}
	}
	if n := s.signed.Load(); n != maxGivenUp+1 {
		t.Errorf("the person was asked %d times", n)
	}
}
