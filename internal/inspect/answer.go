package inspect

import (
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"sync"

	"bawn.dev/bawn/internal/secret"
)

// maxSent bounds the values that are looked for in the answers of one host: those of its
// secrets, and the last ones before they were changed.
const maxSent = 64

// sentValue is a value that was sent to a host.
type sentValue struct {
	value, placeholder string
	swaps              []swap
}

// sentValues are the values that were sent, by host. Safe for concurrent use.
type sentValues struct {
	mu     sync.Mutex
	byHost map[secret.Host][]sentValue
	made   map[secret.Host]*swaps // of byHost
}

// add notes that a value is about to be sent.
func (s *sentValues) add(to secret.Host, value, placeholder string) {
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
	if list := s.byHost[to]; len(list) >= maxSent {
		s.byHost[to] = slices.Clone(list[1:])
	}
	delete(s.made, to)
	s.byHost[to] = append(s.byHost[to], sentValue{value, placeholder, swapsOf(value, placeholder)})
}

// swapsOf returns what is replaced in an answer: each form of the value. A form in base64 or
// hexadecimal becomes as many letters A, so that what it is a part of can still be decoded.
func swapsOf(value, placeholder string) (list []swap) {
	for _, f := range escaped(value) {
		list = append(list, swap{f, []byte(placeholder)})
	}
	for _, f := range encoded([]byte(value)) {
		blank := make([]byte, len(f))
		for i := range blank {
			blank[i] = 'A'
		}
		list = append(list, swap{f, blank})
	}
	return list
}

// to returns what is to be replaced in the answers of a host; nil if no value was sent.
func (s *sentValues) to(h secret.Host) *swaps {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.byHost[h]) == 0 {
		return nil
	}
	if s.made[h] == nil {
		var list []swap
		for _, v := range s.byHost[h] {
			list = append(list, v.swaps...)
		}
		if s.made == nil {
			s.made = map[secret.Host]*swaps{}
		}
		s.made[h] = newSwaps(list)
	}
	return s.made[h]
}

// swaps returns what is to be replaced in the answers on this connection.
func (s *session) swaps() *swaps {
	return s.i.sent.to(secret.Host{Name: s.t.Name, Port: s.t.Port})
}

// clean replaces values in a header.
func clean[H ~map[string][]string](h H, swaps *swaps) {
	if swaps == nil {
		return
	}
	for name, values := range h {
		for i, v := range values {
			if out, _, hits := swaps.all(nil, []byte(v), true); hits > 0 {
				values[i] = string(out)
			}
		}
		if out, _, hits := swaps.all(nil, []byte(name), true); hits > 0 {
			delete(h, name)
			h[string(out)] = values
		}
	}
}

// answer judges an answer before it is passed on.
func (s *session) answer(res *http.Response) error {
	x := exchangeOf(res.Request.Context())
	if x == nil || !x.other {
		// A session that the server opens for the secret is a credential, too.
		res.Header.Del("Set-Cookie")
	}
	res.Header.Del("Alt-Svc") // another way to the server, which may not be inspected
	swaps := s.swaps()
	clean(res.Header, swaps)
	if swaps == nil {
		return nil
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		return s.guardUpgrade(res, swaps)
	}
	if res.Body == nil || res.Body == http.NoBody || res.Request.Method == http.MethodHead {
		clean(res.Trailer, swaps)
		return nil
	}
	coding, err := codingOf(res.Header.Values("Content-Encoding"))
	var r io.ReadCloser
	if err == nil {
		r, err = decoder(coding, res.Body)
	}
	if err != nil {
		return s.refuseAnswer(x, "the answer cannot be looked into for the secret: "+err.Error())
	}
	if coding != "" {
		res.Header.Del("Content-Encoding")
	}
	if coding != "" || !sameLength(swaps.list) {
		res.Header.Del("Content-Length")
		res.ContentLength = -1
	}
	res.Body = &cleanBody{
		swapReader: swapReader{src: r, swaps: swaps, done: func() { clean(res.Trailer, swaps) }},
		decoder:    r, body: res.Body,
	}
	return nil
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
	_ = b.decoder.Close() // the body's error counts
	err := b.body.Close()
	b.done()
	return err
}

// sameLength reports whether no replacement changes a length.
func sameLength(list []swap) bool {
	for _, s := range list {
		if len(s.from) != len(s.to) {
			return false
		}
	}
	return true
}

// guardUpgrade ends an upgraded connection as soon as the server sends a value: what is in
// a frame cannot be replaced by something of another length.
func (s *session) guardUpgrade(res *http.Response, swaps *swaps) error {
	rw, ok := res.Body.(io.ReadWriteCloser)
	if !ok {
		return s.refuseAnswer(exchangeOf(res.Request.Context()), "the server changed the protocol unasked")
	}
	res.Body = &guardedConn{ReadWriteCloser: rw, swaps: swaps, refuse: func() error {
		return s.refuseAnswer(nil, "the server sent the secret back after an upgrade")
	}}
	return nil
}

// guardedConn is an upgraded connection to a server.
type guardedConn struct {
	io.ReadWriteCloser
	swaps  *swaps
	tail   []byte
	refuse func() error
}

// Read implements io.Reader. What may be the beginning of a value is passed on: the rest
// is not.
func (g *guardedConn) Read(p []byte) (int, error) {
	n, err := g.ReadWriteCloser.Read(p)
	g.tail = append(g.tail, p[:n]...)
	_, rest, hits := g.swaps.all(nil, g.tail, false)
	g.tail = append(g.tail[:0], rest...)
	if hits > 0 {
		return 0, g.refuse()
	}
	return n, err
}

// informed is a request whose informational answers (1xx) are cleaned before the proxy, whose
// hook runs after this one, passes them on.
func (s *session) informed(r *http.Request) *http.Request {
	return r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
			clean(h, s.swaps())
			h.Del("Set-Cookie")
			return nil
		},
	}))
}
