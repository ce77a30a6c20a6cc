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
// Not every handshake record in the clear: after a ChangeCipherSpec, TLS 1.2
// has encrypted ones of the same type, whose first bytes are random. A second
// ClientHello is therefore known by its first six bytes.
//
// Use it for one direction of one connection, from one goroutine at a time.
type Guard struct {
	// Check is asked about a second ClientHello; its error refuses it.
	Check func(Hello) error

	done bool   // no second ClientHello can come
	held []byte // an incomplete record
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
		b = append(g.held, b...)
	}
	n := g.skip // bytes that may pass
	g.skip = 0
	for n < len(b) && !g.done {
		size, err := g.record(b[n:])
		if err != nil {
			return nil, err
		}
		if size == 0 {
			break
		}
		n += size
	}
	if g.done {
		n = len(b)
	}
	return g.pass(b, n), nil
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
	if body[0] != handshakeClientHello {
		g.done = true // TLS 1.2 went on with its key exchange, or is encrypted
		return nil
	}
	return g.second(body)
}

// second judges a record that begins like a ClientHello.
func (g *Guard) second(body []byte) error {
	if len(body) < 6 {
		return errors.New("a second ClientHello is split into pieces")
	}
	size := int(body[1])<<16 | int(body[2])<<8 | int(body[3])
	if size > 1<<18 || body[4] != 3 {
		g.done = true // random bytes: encrypted
		return nil
	}
	if len(body) != 4+size {
		return errors.New("a second ClientHello is split into pieces")
	}
	h, err := parseHelloBody(body[4:])
	if err != nil {
		return err
	}
	return g.Check(h)
}

// pass gives out the first n bytes and holds the others.
func (g *Guard) pass(b []byte, n int) []byte {
	g.held = bytes.Clone(b[n:])
	return b[:n]
}
