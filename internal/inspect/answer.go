package inspect

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"time"

	"bawn.dev/bawn/internal/secret"
)

const (
	// maxSent bounds the values that are looked for in the answers of one host.
	maxSent = 64
	// maxChanged bounds the values of one secret among them: a command may print another one
	// every few minutes.
	maxChanged = 4
)

// sentValue is a value that was sent to a host.
type sentValue struct {
	value, placeholder string
	whole              bool // answers with it must be whole
	swaps              []swap
	patterns           []pattern
}

// sentValues are the values that were sent, by host. Safe for concurrent use.
type sentValues struct {
	mu     sync.Mutex
	byHost map[secret.Host][]sentValue
	made   map[secret.Host]*swaps // of byHost
	tried  map[secret.Host]*guesses
	pause  time.Duration // see swaps
}

// add notes that a value is about to be sent.
func (s *sentValues) add(to secret.Host, value, placeholder string) {
	s.note(to, value, placeholder, true)
}

// addPair notes a part of a pair of keys, see signature.go.
func (s *sentValues) addPair(to secret.Host, value, placeholder string) {
	s.note(to, value, placeholder, false)
}

func (s *sentValues) note(to secret.Host, value, placeholder string, whole bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.byHost[to] {
		if v.value == value && v.placeholder == placeholder {
			return
		}
	}
	if s.byHost == nil {
		s.byHost = map[secret.Host][]sentValue{}
	}
	s.forget(to, placeholder)
	delete(s.made, to)
	sent := sentValue{value: value, placeholder: placeholder, whole: whole}
	sent.swaps, sent.patterns = swapsOf(value, placeholder)
	s.byHost[to] = append(s.byHost[to], sent)
}

// forget makes room for one more value of the secret with that placeholder. If the secret has maxChanged
// values, its oldest is removed; else, if the host has maxSent, the host's oldest.
func (s *sentValues) forget(to secret.Host, placeholder string) {
	list, same, oldest := slices.Clone(s.byHost[to]), 0, 0
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].placeholder == placeholder {
			same, oldest = same+1, i
		}
	}
	switch {
	case same >= maxChanged:
		list = slices.Delete(list, oldest, oldest+1)
	case len(list) >= maxSent:
		list = list[1:]
	}
	s.byHost[to] = list
}

// swapsOf returns what is replaced in an answer: each form of the value. The value as text becomes the
// placeholder. A form in which each byte is escaped becomes the same form of the placeholder if that is
// as long, and else as many letters A; so do base64 and hexadecimal. What such a form is a part of can
// then still be decoded, and is as long as before.
func swapsOf(value, placeholder string) (list []swap, patterns []pattern) {
	counts := countsFrom(value, placeholder)
	countsOf := func(form []byte) int { return (counts*len(form) + len(value) - 1) / len(value) }
	add := func(from, to []byte) {
		if !slices.ContainsFunc(list, func(s swap) bool { return bytes.Equal(s.from, from) }) {
			list = append(list, swap{from, to, countsOf(from)})
		}
	}
	if p, ok := patternOf(value, placeholder); ok {
		patterns = []pattern{p}
	} else {
		for _, f := range escaped(value) {
			add(f, []byte(placeholder))
		}
	}
	for _, f := range []string{strings.ToLower(value), strings.ToUpper(value)} {
		if f != value {
			add([]byte(f), []byte(placeholder))
		}
	}
	for _, format := range byteForms {
		from, to := everyByte(value, format), everyByte(placeholder, format)
		if len(to) != len(from) {
			to = blank(len(from))
		}
		add([]byte(from), []byte(to))
	}
	for _, f := range encoded([]byte(value)) {
		p, ok := patternOf(string(f), blank(len(f))) // base64 has characters that are escaped: + and /
		if p.counts = countsOf(f); ok {
			patterns = append(patterns, p)
			continue
		}
		for _, e := range escaped(string(f)) {
			add(e, []byte(blank(len(e))))
		}
	}
	return list, patterns
}

// blank returns n letters A.
func blank(n int) string { return strings.Repeat("A", n) }

// to returns what is to be replaced in the answers of a host; nil if no value was sent.
func (s *sentValues) to(h secret.Host) *swaps {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.byHost[h]) == 0 {
		return nil
	}
	if s.made[h] == nil {
		var list []swap
		var patterns []pattern
		for _, v := range s.byHost[h] {
			list, patterns = append(list, v.swaps...), append(patterns, v.patterns...)
		}
		if s.made == nil {
			s.made, s.tried = map[secret.Host]*swaps{}, map[secret.Host]*guesses{}
		}
		if s.tried[h] == nil {
			s.tried[h] = &guesses{}
		}
		s.made[h] = newSwaps(list, patterns)
		s.made[h].guesses, s.made[h].pause = s.tried[h], s.pause
	}
	return s.made[h]
}

// whole reports whether the answers of a host must be whole to be looked into.
func (s *sentValues) whole(h secret.Host) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.byHost[h], func(v sentValue) bool { return v.whole })
}

// swaps returns what is to be replaced in the answer to an exchange, which may be nil.
func (s *session) swaps(x *exchange) *swaps {
	all := s.i.sent.to(s.t.host())
	if x != nil && x.signed != nil && all != nil {
		return all.withSignature(x.signed.signature)
	}
	return all
}

// clean replaces values in a header.
func clean[H ~map[string][]string](h H, swaps *swaps) {
	if swaps == nil {
		return
	}
	for name, values := range h {
		for i, v := range values {
			if out, hits := swaps.all([]byte(v)); hits > 0 {
				values[i] = string(out)
			}
		}
		// The case of a name is not that of the value any more: its form in lower case is looked for.
		if out, hits := swaps.all([]byte(strings.ToLower(name))); hits > 0 {
			delete(h, name)
			h[textproto.CanonicalMIMEHeaderKey(string(out))] = values
		}
	}
}

// answer judges an answer before it is passed on.
func (s *session) answer(res *http.Response) error {
	x := exchangeOf(res.Request.Context())
	endWithAnswer(x, res)
	if x != nil && x.login != nil {
		return s.loginAnswer(x, res)
	}
	takeOff(res.Header, x)
	if x != nil && !x.other {
		s.i.issued.learn(s.t.host(), res)
	}
	if swaps := s.swaps(x); swaps != nil {
		clean(res.Header, swaps)
		if s.i.sent.whole(s.t.host()) {
			res.Header.Set("Accept-Ranges", "none") // see limit
		}
		if err := s.cleanAnswer(x, res, swaps); err != nil {
			return err
		}
	}
	if x != nil && x.token && res.StatusCode == http.StatusOK && res.Body != nil {
		res.Body = &tokenBody{ReadCloser: res.Body, found: func(b []byte) { s.i.issued.add(s.t.host(), b) }}
	}
	s.countTokens(res)
	return nil
}

// takeOff takes off what a guest is not to have of an answer: the session that the server opens for the
// secret, which is a credential too, and other ways to the server, which may not be inspected.
func takeOff(h http.Header, x *exchange) {
	if x == nil || !x.other {
		h.Del("Set-Cookie")
	}
	h.Del("Alt-Svc")
}

// cleanAnswer arranges that the values are replaced in what follows the head of an answer, or refuses
// it.
func (s *session) cleanAnswer(x *exchange, res *http.Response, swaps *swaps) error {
	coding, err := codingOf(res.Header.Values("Content-Encoding"))
	if x != nil && x.window != nil && coding != zstdCoding {
		s.i.windows.reserved(x)()
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		return s.guardUpgrade(res, swaps)
	}
	if why := s.whyUnread(res, coding != "" || err != nil); why != "" {
		return s.refuseAnswer(x, why)
	}
	if res.Body == nil || res.Body == http.NoBody || res.Request.Method == http.MethodHead {
		if coding != "" || err != nil {
			// The length of what was compressed would tell how much of a guess is in the value.
			res.Header.Del("Content-Length")
			res.Header.Del("Content-Encoding")
		}
		s.cleanTrailer(x, res, swaps)
		return nil
	}
	var r io.ReadCloser
	if err == nil {
		r, err = decoder(coding, res.Body, func() (give func()) { return s.i.windows.reserved(x) })
	}
	if err != nil {
		return s.refuseAnswer(x, "the answer cannot be looked into for the secret: "+err.Error())
	}
	if coding != "" {
		res.Header.Del("Content-Encoding")
		dropChecksums(res.Header)
	}
	if coding != "" || !swaps.sameLength() {
		res.Header.Del("Content-Length")
		res.ContentLength = -1
	}
	res.Body = &cleanBody{
		swapReader: newSwapReader(r, swaps, func() { s.cleanTrailer(x, res, swaps) }),
		decoder:    r, body: res.Body,
	}
	return nil
}

// whyUnread says why a value in an answer would not be recognised, whatever its body is; empty if it may be.
func (s *session) whyUnread(res *http.Response, coded bool) string {
	messages := res.Header.Get("Grpc-Encoding") + res.Header.Get("Connect-Content-Encoding")
	switch {
	case res.StatusCode == http.StatusPartialContent && coded:
		return "the server sent a part of an encoded answer (206), which cannot be looked into for the secret: ask for the whole"
	case res.StatusCode == http.StatusPartialContent && s.i.sent.whole(s.t.host()):
		return "the server sent only a part of the answer (206), which was not asked for: a part of the secret in it would not be recognised"
	case messages != "" && messages != "identity":
		return "the answer's messages are compressed, and cannot be looked into for the secret"
	}
	return ""
}

// cleanTrailer replaces the values in the trailer of an answer.
func (s *session) cleanTrailer(x *exchange, res *http.Response, swaps *swaps) {
	clean(res.Trailer, swaps)
	takeOff(res.Trailer, x)
}

// dropChecksums takes off those of AWS, which are of the encoded bytes.
func dropChecksums(h http.Header) {
	for name := range h {
		if strings.HasPrefix(name, "X-Amz-Checksum-") {
			delete(h, name)
		}
	}
}

// refuseAnswer logs why an answer is not passed on, and returns it as an error.
func (s *session) refuseAnswer(x *exchange, reason string) error {
	why := &refusal{status: http.StatusBadGateway, reason: reason}
	if x != nil {
		x.refused.CompareAndSwap(nil, why)
	}
	s.t.Refused(reason)
	return why
}

// cleanBody is the body of an answer without values.
type cleanBody struct {
	swapReader
	decoder, body io.Closer
}

// Close implements io.Closer. The trailers may be known only now.
func (b *cleanBody) Close() error {
	err := b.body.Close()
	b.in.wait()
	_ = b.decoder.Close() // the body's error counts
	b.done()
	return err
}

// guardUpgrade ends an upgraded connection as soon as the server sends a value: what is in
// a frame cannot be replaced by something of another length.
func (s *session) guardUpgrade(res *http.Response, swaps *swaps) error {
	rw, ok := res.Body.(io.ReadWriteCloser)
	if !ok {
		return s.refuseAnswer(exchangeOf(res.Request.Context()), "the server changed the protocol unasked")
	}
	if res.Header.Get("Sec-Websocket-Extensions") != "" {
		return s.refuseAnswer(exchangeOf(res.Request.Context()), "the server compresses messages unasked, and they cannot be looked into for the secret")
	}
	res.Body = &guardedConn{ReadWriteCloser: rw, source: newSwapSource(rw, swaps), refuse: func(reason string) error { return s.refuseAnswer(nil, reason) }}
	return nil
}

// guardedConn is an upgraded connection to a server.
type guardedConn struct {
	io.ReadWriteCloser
	source swapSource
	out    []byte // passes next
	err    error  // behind out
	refuse func(reason string) error
}

// Read implements io.Reader. The beginning of a value is held as in other answers. Once the same
// number of bytes is held of whatever comes (hold.go), a conversation would stop, so the
// connection is ended.
func (g *guardedConn) Read(p []byte) (int, error) {
	for len(g.out) == 0 {
		if g.err == nil && g.source.s.blind {
			g.err = g.refuse("what the server sends looks like guesses at the secret: upgraded connections to it (WebSocket) do not work until the sandbox is restarted")
		}
		if g.err != nil {
			return 0, g.err
		}
		var hits int
		if g.out, hits, g.err = g.source.next(); hits > 0 {
			g.out, g.err = nil, g.refuse("the server sent the secret back after an upgrade")
		}
	}
	n := copy(p, g.out)
	g.out = g.out[n:]
	return n, nil
}

// informed is a request whose informational answers (1xx) are cleaned before the proxy, whose
// hook runs after this one, passes them on.
func (s *session) informed(r *http.Request) *http.Request {
	return r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
			x := exchangeOf(r.Context())
			clean(h, s.swaps(x))
			takeOff(http.Header(h), x)
			return nil
		},
	}))
}
