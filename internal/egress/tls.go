package egress

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/cryptobyte"
)

// What this file knows of TLS: RFC 8446 sections 4 and 5, RFC 6066 section 3,
// RFC 9849 (ECH). The ClientHello is read, never changed, and passed on as it
// came; a second one (after a HelloRetryRequest) must name the same server.

const (
	// maxHello bounds the bytes held while a ClientHello is not complete.
	// Real ones are below 4 KiB, with post-quantum keys.
	maxHello = 64 << 10
	// maxRecord is the longest TLS plaintext record, in bytes.
	maxRecord = 1 << 14

	recordHeader = 5 // type, version, length

	recordChangeCipherSpec = 20
	recordAlert            = 21
	recordHandshake        = 22
	recordData             = 23
	recordHeartbeat        = 24

	handshakeClientHello = 1

	extServerName = 0
	extECH        = 0xfe0d
)

// Alert descriptions (RFC 8446 section 6) that a denial answers with.
const (
	alertUnrecognizedName  = 112
	alertAccessDenied      = 49
	alertUnexpectedMessage = 10
)

// errShort says that more bytes are needed.
var errShort = errors.New("more bytes are needed")

// hello is what matters of a ClientHello.
type hello struct {
	serverName string // lower case; empty when there is none
	ech        bool   // encrypted_client_hello is there, real or GREASE: they look alike on purpose
}

// looksTLS says whether bytes may begin a TLS connection: a record of any type,
// since some server might pass over one that comes before the ClientHello.
// maybe: more bytes are needed.
func looksTLS(b []byte) (yes, maybe bool) {
	switch {
	case len(b) == 0:
		return false, true
	case b[0] < recordChangeCipherSpec || b[0] > recordHeartbeat:
		return false, false
	case len(b) == 1:
		return false, true
	}
	return b[1] == 3, false
}

// parseHello reads the first ClientHello of a stream, which may be split over
// records. It fails with errShort while it is incomplete; any other error means
// that it is none, or one that two readers could understand differently.
func parseHello(b []byte) (hello, error) {
	var msg []byte
	for {
		if len(b) < recordHeader {
			return hello{}, errShort
		}
		if b[0] != recordHandshake || b[1] != 3 {
			return hello{}, errors.New("not a TLS handshake")
		}
		n := int(b[3])<<8 | int(b[4])
		if n == 0 || n > maxRecord {
			return hello{}, errors.New("a TLS record of a wrong length")
		}
		part := b[recordHeader:]
		whole := len(part) >= n
		if whole {
			part = part[:n]
		}
		msg = append(msg, part...)
		if len(msg) > 0 && msg[0] != handshakeClientHello {
			return hello{}, errors.New("the first TLS message is not a ClientHello")
		}
		if len(msg) >= 4 {
			size := int(msg[1])<<16 | int(msg[2])<<8 | int(msg[3])
			if size > maxHello {
				return hello{}, errors.New("the ClientHello is too long")
			}
			if len(msg) > 4+size {
				return hello{}, errors.New("more follows the ClientHello in its record")
			}
			if len(msg) == 4+size && whole {
				return parseHelloBody(msg[4:])
			}
		}
		if !whole {
			return hello{}, errShort
		}
		b = b[recordHeader+n:]
	}
}

// parseHelloBody reads a ClientHello without its four bytes of header.
func parseHelloBody(b []byte) (hello, error) {
	var (
		h                                   hello
		s                                   = cryptobyte.String(b)
		version                             uint16
		random                              []byte
		session, suites, compressions, exts cryptobyte.String
	)
	bad := errors.New("a malformed ClientHello")
	if !s.ReadUint16(&version) || !s.ReadBytes(&random, 32) || !s.ReadUint8LengthPrefixed(&session) ||
		!s.ReadUint16LengthPrefixed(&suites) || !s.ReadUint8LengthPrefixed(&compressions) {
		return h, bad
	}
	if s.Empty() {
		return h, nil // no extensions at all: TLS 1.2 and older allow it
	}
	if !s.ReadUint16LengthPrefixed(&exts) || !s.Empty() {
		return h, bad
	}
	seen := map[uint16]bool{}
	for !exts.Empty() {
		var id uint16
		var data cryptobyte.String
		if !exts.ReadUint16(&id) || !exts.ReadUint16LengthPrefixed(&data) {
			return h, bad
		}
		if seen[id] {
			return h, fmt.Errorf("extension %d stands twice in the ClientHello", id)
		}
		seen[id] = true
		switch id {
		case extECH:
			h.ech = true
		case extServerName:
			name, err := parseServerName(data)
			if err != nil {
				return h, err
			}
			h.serverName = name
		}
	}
	return h, nil
}

// parseServerName reads a server_name extension: exactly one host_name.
func parseServerName(s cryptobyte.String) (string, error) {
	var list, name cryptobyte.String
	var kind uint8
	if !s.ReadUint16LengthPrefixed(&list) || !s.Empty() ||
		!list.ReadUint8(&kind) || kind != 0 || !list.ReadUint16LengthPrefixed(&name) || !list.Empty() ||
		len(name) == 0 || len(name) > 255 {
		return "", errors.New("a malformed server name")
	}
	for _, c := range name {
		if c <= ' ' || c >= 0x7f {
			return "", errors.New("a server name that is not ASCII")
		}
	}
	return strings.ToLower(string(name)), nil
}

// alert is a fatal TLS alert record in the clear. Clients name it in their
// error, which tells a denial from a broken network.
func alert(description byte) []byte {
	return []byte{21, 3, 3, 0, 2, 2, description}
}

// helloGuard watches what a client sends after its first ClientHello, record by
// record, until the plaintext handshake is over: after a HelloRetryRequest the
// client sends a second ClientHello, and some server might believe that one.
//
// Neither an alert nor application data says that it is over: servers pass over
// warnings, and over early data after a HelloRetryRequest (RFC 8446 section 4.2.10).
// In TLS 1.3 all that follows looks like application data, so that the guard stays,
// and looks at the records' headers.
//
// Not every handshake record in the clear: after a ChangeCipherSpec, TLS 1.2
// has encrypted ones of the same type, whose first bytes are random. A second
// ClientHello is therefore known by its first six bytes.
type helloGuard struct {
	done  bool
	check func(hello) error
	held  []byte // an incomplete record
	skip  int    // bytes to come of a record that passes as it comes
}

// write looks at bytes on their way. It returns those that may pass now; what
// it holds is at most one record that could be a second ClientHello.
func (g *helloGuard) write(b []byte) ([]byte, error) {
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
	for !g.done {
		rest := b[n:]
		if len(rest) == 0 {
			break
		}
		switch {
		case rest[0] < recordChangeCipherSpec || rest[0] > recordData:
			return nil, errors.New("a TLS record of an unknown type in a handshake")
		case len(rest) < recordHeader:
			return g.pass(b, n), nil
		}
		size := int(rest[3])<<8 | int(rest[4])
		if size > maxRecord+256 {
			return nil, errors.New("a TLS record of a wrong length")
		}
		if len(rest) < recordHeader+size {
			if rest[0] == recordAlert || rest[0] == recordData {
				g.skip = recordHeader + size - len(rest)
				n = len(b)
			}
			return g.pass(b, n), nil
		}
		if body := rest[recordHeader : recordHeader+size]; rest[0] == recordHandshake {
			if len(body) == 0 { // RFC 8446 section 5.1 forbids it; some servers pass over it
				return nil, errors.New("an empty handshake record")
			}
			if body[0] != handshakeClientHello {
				g.done = true // TLS 1.2 went on with its key exchange, or is encrypted
				continue
			}
			if err := g.second(body); err != nil {
				return nil, err
			}
			if g.done {
				continue
			}
		}
		n += recordHeader + size
	}
	if g.done {
		n = len(b)
	}
	return g.pass(b, n), nil
}

// second judges a record that begins like a ClientHello.
func (g *helloGuard) second(body []byte) error {
	if len(body) < 6 {
		return errors.New("a second ClientHello in pieces")
	}
	size := int(body[1])<<16 | int(body[2])<<8 | int(body[3])
	if size > 1<<18 || body[4] != 3 {
		g.done = true // random bytes: encrypted
		return nil
	}
	if len(body) != 4+size {
		return errors.New("a second ClientHello in pieces")
	}
	h, err := parseHelloBody(body[4:])
	if err != nil {
		return err
	}
	return g.check(h)
}

// pass gives out the first n bytes and holds the others.
func (g *helloGuard) pass(b []byte, n int) []byte {
	g.held = bytes.Clone(b[n:])
	return b[:n]
}
