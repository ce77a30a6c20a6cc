package inspect

import (
	"io"
	"net/http"

	"bawn.dev/bawn/internal/tokens"
)

// Tokens returns how many tokens the answers of language models say that they took (package
// tokens), by host. It may run concurrently.
func (i *Inspector) Tokens() []tokens.Total { return i.tokens.Totals() }

// countTokens counts the tokens of an answer that is judged already, as it passes. Nothing is held
// or changed. An answer that is still compressed is counted as one without numbers.
func (s *session) countTokens(res *http.Response) {
	api := tokens.Find(res.Request.Method, res.Request.URL.Path)
	if api == nil || res.StatusCode != http.StatusOK || res.Body == nil {
		return
	}
	coding, err := codingOf(res.Header.Values("Content-Encoding"))
	if err != nil || coding != "" {
		s.i.tokens.Add(s.t.label(), tokens.Usage{}, false)
		return
	}
	reader := api.Reader(res.Header.Get("Content-Type"))
	res.Body = &usageBody{ReadCloser: res.Body, reader: reader, over: func() {
		u, reported := reader.Usage()
		s.i.tokens.Add(s.t.label(), u, reported)
	}}
}

// label is the name of a target for a person.
func (t *Target) label() string {
	if t.Port == 443 {
		return t.Name
	}
	return t.Name + ":" + portText(t.host())
}

// usageBody gives what is read of an answer to a reader, too. It is used by one goroutine.
type usageBody struct {
	io.ReadCloser
	reader *tokens.Reader
	over   func() // nil after its call
}

// Read implements io.Reader.
func (b *usageBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.reader.Feed(p[:n])
	if err != nil {
		b.end()
	}
	return n, err
}

// Close implements io.Closer.
func (b *usageBody) Close() error {
	b.end()
	return b.ReadCloser.Close()
}

// end counts the tokens, once, also of an answer that broke off.
func (b *usageBody) end() {
	if b.over != nil {
		b.over()
		b.over = nil
	}
}
