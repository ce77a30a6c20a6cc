package inspect

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"bawn.dev/bawn/internal/secret"
	"bawn.dev/bawn/internal/tokens"
)

// model is the server of a language model: it answers as the path says.
func model(w http.ResponseWriter, r *http.Request) {
	const chat = `{"usage":{"prompt_tokens":100,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":60}}}`
	_, _ = io.Copy(io.Discard, r.Body)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	switch kind, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/"); kind {
	case "plain":
		_, _ = io.WriteString(w, chat)
	case "coded":
		if accepted := r.Header.Get("Accept-Encoding"); !strings.Contains(accepted, "gzip") {
			_, _ = io.WriteString(w, chat)
			return
		}
		h.Set("Content-Encoding", "gzip")
		_, _ = io.WriteString(w, gzipped(chat))
	case "forced":
		h.Set("Content-Encoding", "gzip")
		_, _ = io.WriteString(w, gzipped(chat))
	case "refused":
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = io.WriteString(w, chat)
	case "page":
		h.Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, chat)
	case "hostile":
		_, _ = io.WriteString(w, `{"usage":{"completion_tokens":-7}}]]]}}`+strings.Repeat(`{"usage":`, 10000))
	case "broken":
		h.Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: "+chat+"\n\ndata: {")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

// totals waits until the tokens of some requests are counted, and returns the sums.
func (p *place) totals(requests int64) tokens.Total {
	p.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		list := p.i.Tokens()
		if len(list) > 1 {
			p.t.Fatalf("%+v", list)
		}
		if len(list) == 1 && list[0].Requests >= requests {
			return list[0]
		}
	}
	p.t.Fatalf("%d requests are not counted: %+v", requests, p.i.Tokens())
	return tokens.Total{}
}

// TestTokens are counted from each kind of answer, which the guest gets as it is.
func TestTokens(t *testing.T) {
	one := tokens.Usage{Input: 40, CacheRead: 60, Output: 7}
	everyProtocol(t, func(t *testing.T, proto string) {
		for name, c := range map[string]struct {
			path, method string
			want         tokens.Usage
			unreported   int64
			noSecret     bool // the host is inspected for rules about requests only
		}{
			"plain":                          {path: "/plain/chat/completions", want: one},
			"compressed":                     {path: "/coded/chat/completions", want: one},
			"compressed, without a secret":   {path: "/coded/chat/completions", want: one, noSecret: true},
			"compressed unasked":             {path: "/forced/chat/completions", want: one},
			"compressed unasked, no secret":  {path: "/forced/chat/completions", unreported: 1, noSecret: true},
			"broken off":                     {path: "/broken/chat/completions", want: one},
			"no JSON":                        {path: "/page/chat/completions", unreported: 1},
			"hostile":                        {path: "/hostile/chat/completions", unreported: 1},
			"a refusal of the server":        {path: "/refused/chat/completions"},
			"another method":                 {path: "/plain/chat/completions", method: "GET"},
			"a path that is no model's":      {path: "/plain/chat/completions/"},
			"the fields of another API":      {path: "/plain/v1/messages", unreported: 1},
			"a query does not hide the path": {path: "/plain/chat/completions?x=/none", want: one},
		} {
			t.Run(name, func(t *testing.T) {
				var secrets []secret.Bound
				header := []string{"Accept-Encoding", "gzip, deflate"}
				if !c.noSecret {
					secrets, header = append(secrets, bound(secret.Place{})), append(header, "Authorization", "Bearer "+standIn)
				}
				p := newPlace(t, http.HandlerFunc(model), bothProtocols, secrets...)
				method := c.method
				if method == "" {
					method = "POST"
				}
				// Behind it comes one that is counted in any case.
				for _, r := range []*http.Request{
					request(t, method, c.path, strings.NewReader("{}"), header...),
					request(t, "POST", "/plain/chat/completions", strings.NewReader("{}"), header...),
				} {
					res, err := p.client(proto).Do(r)
					if err != nil {
						t.Fatal(err)
					}
					if _, err := io.Copy(io.Discard, res.Body); (err != nil) != strings.HasPrefix(r.URL.Path, "/broken/") {
						t.Error(err)
					}
					res.Body.Close()
				}
				want := tokens.Total{Host: hostName, Requests: 1, Usage: one}
				if c.want != (tokens.Usage{}) || c.unreported > 0 {
					want.Requests++
				}
				want.Unreported = c.unreported
				want.Input, want.CacheRead, want.Output = want.Input+c.want.Input, want.CacheRead+c.want.CacheRead, want.Output+c.want.Output
				if got := p.totals(want.Requests); got != want {
					t.Errorf("%+v, not %+v", got, want)
				}
			})
		}
	})
}

// TestTokensHoldNothing: each event of an answer is with the guest before the server sends the
// next, and the numbers of one that the guest leaves are counted.
func TestTokensHoldNothing(t *testing.T) {
	everyProtocol(t, func(t *testing.T, proto string) {
		read := make(chan struct{})
		p := newPlace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			for i := 1; ; i++ {
				fmt.Fprintf(w, "data: {\"usage\":{\"input_tokens\":5,\"output_tokens\":%d}}\n\n", i)
				_ = http.NewResponseController(w).Flush()
				select {
				case <-read:
				case <-r.Context().Done():
					return
				}
			}
		}), bothProtocols, bound(secret.Place{}))
		res, err := p.client(proto).Do(request(t, "POST", "/v1/messages", strings.NewReader("{}"), "X-Api-Key", standIn))
		if err != nil {
			t.Fatal(err)
		}
		events := bufio.NewReader(res.Body)
		for i := 1; ; i++ {
			line, err := events.ReadString('\n')
			if want := fmt.Sprintf("\"output_tokens\":%d}}\n", i); !strings.HasSuffix(line, want) || err != nil {
				t.Fatalf("%q, %v", line, err)
			}
			_, _ = events.ReadString('\n')
			if i == 20 {
				break
			}
			read <- struct{}{}
		}
		res.Body.Close()
		if got := p.totals(1); got.Usage != (tokens.Usage{Input: 5, Output: 20}) {
			t.Errorf("%+v", got)
		}
	})
}
