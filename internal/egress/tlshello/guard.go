package tlshello

import (
	"bytes"
	"errors"
)

// Guard watches what a client sends after its first ClientHello, record by
// record, until the plaintext handshake is over: after a HelloRetryRequest the
// client sends a second ClientHello, and some server might believe that one.
//
// Neither an alert nor application data ends it: servers pass over
// warnings, and over early data after a HelloRetryRequest (RFC 8446 section 4.2.10).
// In TLS 1.3 all that follows looks like application data, so that the guard stays
// to the end of the connection, and looks at the records' headers.
//
// Not every handshake record is in the clear: after a ChangeCipherSpec, TLS 1.2
// has encrypted ones of the same type, whose first bytes are random. A second
// ClientHello is known by its type and by its lengths, whatever version it claims:
// servers do not look at the version once TLS 1.3 is agreed on. One in pieces is
// refused, or put together if it may as well be random.
//
// Use it for one direction of one connection, from one goroutine at a time.
type Guard struct {
	// Check is asked about a second ClientHello; its error refuses it.
	Check func(Hello) error

	done bool   // no second ClientHello can come
	held []byte // an incomplete record
	part []byte // the pieces of what may be a second ClientHello; they have passed
	skip int    // bytes to come of a record that passes as it comes
}

// Filter looks at bytes on their way and returns those that may pass now, in a
// slice that is valid until the next call. It holds one record at most, which could
// be a second ClientHello. An error ends the connection.
func (g *Guard) Filter(b []byte) ([]byte, error) {
	if g.done {
		return b, nil
	}
	if g.skip >= len(b) {
		g.skip -= len(b)
		return b, nil
	}
	if len(g.held) > 0 {
		g.held = append(g.held, b...)
		b = g.held
	}
	n, err := g.records(b)
	if err != nil {
		return nil, err
	}
	if n == 0 && len(g.held) > 0 {
		return nil, nil // held as it is
	}
	g.held = bytes.Clone(b[n:])
	return b[:n], nil
}

// End is called when the client ends. What is held then never passes.
func (g *Guard) End() error { return nil }

// records judges the records in b and returns how many bytes may pass.
func (g *Guard) records(b []byte) (int, error) {
	n := g.skip
	g.skip = 0
	for n < len(b) && !g.done {
		size, err := g.record(b[n:])
		if err != nil {
			return 0, err
		}
		if size == 0 {
			return n, nil
		}
		n += size
	}
	return len(b), nil
}

// record judges the record at the beginning of b and returns how many bytes of b
// may pass with it; 0 while it has to be held.
func (g *Guard) record(b []byte) (int, error) {
	if b[0] < recordChangeCipherSpec || b[0] > recordData {
		return 0, errors.New("a TLS record of an unknown type in a handshake")
	}
	if len(b) < recordHeader {
		return 0, nil
	}
	size := int(b[3])<<8 | int(b[4])
	if size > maxRecord+256 {
		return 0, errors.New("a TLS record of a wrong length")
	}
	whole := recordHeader + size
	switch {
	case len(b) < whole && (b[0] == recordAlert || b[0] == recordData):
		g.skip = whole - len(b)
		return len(b), nil
	case len(b) < whole:
		return 0, nil
	case b[0] == recordHandshake:
		return whole, g.handshake(b[recordHeader:whole])
	}
	return whole, nil
}

// handshake judges a whole handshake record.
func (g *Guard) handshake(body []byte) error {
	if len(body) == 0 { // RFC 8446 section 5.1 forbids it; some servers pass over it
		return errors.New("an empty handshake record")
	}
	if g.part != nil {
		g.part = append(g.part, body...)
		if err := g.pieces(); err != nil || g.done {
			return err
		}
	}
	if body[0] != handshakeClientHello {
		g.done = g.part == nil // TLS 1.2 continued with its key exchange, or is encrypted
		return nil
	}
	return g.second(body)
}

// second judges a record that begins like a ClientHello.
func (g *Guard) second(body []byte) error {
	if len(body) < messageHeader+2 {
		return errors.New("a second ClientHello is split into pieces")
	}
	size, usual := messageSize(body), body[messageHeader] == 3
	switch {
	case size > 1<<18:
		g.done = g.part == nil // random bytes: encrypted
		return nil
	case len(body) == messageHeader+size:
		return g.whole(body[messageHeader:], usual)
	case usual:
		return errors.New("a second ClientHello is split into pieces")
	case g.part == nil:
		g.part = bytes.Clone(body)
		return g.pieces()
	}
	return nil
}

// pieces judges what may be a ClientHello in pieces, once it is whole.
func (g *Guard) pieces() error {
	size := messageSize(g.part)
	if size > MaxHello {
		g.part, g.done = nil, true
		return nil
	}
	if len(g.part) < messageHeader+size {
		return nil
	}
	msg := g.part[messageHeader : messageHeader+size]
	g.part = nil
	return g.whole(msg, false)
}

// whole judges a ClientHello without its header; certain: it cannot be random bytes.
func (g *Guard) whole(b []byte, certain bool) error {
	h, err := parseHelloBody(b)
	switch {
	case errors.Is(err, errNotHello) && !certain:
		g.done = g.part == nil
		return nil
	case err != nil:
		return err
	}
	return g.Check(h)
}
