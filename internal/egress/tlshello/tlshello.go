// Package tlshello reads the ClientHello that a TLS client sends first, without
// taking part in the connection: the server name in it, and whether it may hide
// another one. It is pure: bytes in, answers out. The bytes are hostile.
//
// Words: the ClientHello is the first handshake message. It travels in records of
// the plaintext type "handshake", possibly in several. A server may answer with a
// HelloRetryRequest; the client then sends a second ClientHello, which the Guard
// looks for in what follows the first. Where a protocol turns to TLS in its middle
// (STARTTLS), a Scanner looks for ClientHellos at any place.
//
// Sources: RFC 8446 sections 4 and 5, RFC 6066 section 3, RFC 9849 (ECH). The
// ClientHello is read, never changed. What two readers could understand
// differently is refused.
package tlshello

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/cryptobyte"
)

const (
	// MaxHello bounds the bytes held while a ClientHello is not complete.
	// Real ones are below 4 KiB, with post-quantum keys.
	MaxHello = 64 << 10
	// maxRecord is the longest TLS plaintext record, in bytes.
	maxRecord = 1 << 14

	recordHeader  = 5 // type, version, length
	messageHeader = 4 // type, length

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
	AlertUnrecognizedName  = 112
	AlertAccessDenied      = 49
	AlertUnexpectedMessage = 10
)

// ErrShort means that Parse needs more bytes.
var ErrShort = errors.New("more bytes are needed")

// Hello is what matters of a ClientHello.
type Hello struct {
	ServerName string // lower case; empty when there is none
	ECH        bool   // encrypted_client_hello is there, real or GREASE: they look alike on purpose
}

// Looks reports whether bytes may begin a TLS connection: a record of any type,
// since some server might pass over one that comes before the ClientHello. maybe
// means that more bytes are needed to tell.
func Looks(b []byte) (yes, maybe bool) {
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

// Parser reads one ClientHello from a stream's bytes as they come. It looks at each
// byte once, however small the pieces are, and holds at most MaxHello bytes. Its zero
// value stands at the beginning of a record. Use it from one goroutine at a time.
type Parser struct {
	// Lenient takes records as the most forgiving server does: of any version, with
	// records of other types and empty ones between the pieces of the ClientHello,
	// and with other messages behind it in its record.
	Lenient bool

	head   [recordHeader]byte
	inHead int    // bytes of head that are there
	left   int    // bytes of the current record that are to come
	skip   bool   // they are not the ClientHello's
	msg    []byte // the handshake message so far
	hello  Hello

	certain bool // the message is a ClientHello, whatever else is wrong with it
	looked  int  // bytes looked at, which tests count
}

// Feed takes the next bytes and returns how many of them belong to the ClientHello's
// records, all of them unless done. done: the ClientHello is whole, see Hello. An
// error means that it is none, or one that two readers could understand differently.
func (p *Parser) Feed(b []byte) (n int, done bool, err error) {
	for n < len(b) && !done && err == nil {
		var m int
		if p.left == 0 {
			m, err = p.header(b[n:])
		} else {
			m, done, err = p.body(b[n:])
		}
		n += m
	}
	p.looked += n
	return n, done, err
}

// Hello returns what was read, once Feed is done.
func (p *Parser) Hello() Hello { return p.hello }

// header takes bytes of a record's header.
func (p *Parser) header(b []byte) (n int, err error) {
	n = copy(p.head[p.inHead:], b)
	p.inHead += n
	if err := p.checkHeader(p.head[:p.inHead]); err != nil || p.inHead < recordHeader {
		return n, err
	}
	p.inHead, p.left = 0, int(p.head[3])<<8|int(p.head[4])
	p.skip = p.head[0] != recordHandshake
	return n, nil
}

// checkHeader judges a header as far as it is there.
func (p *Parser) checkHeader(h []byte) error {
	other := h[0] != recordHandshake
	if other && (!p.Lenient || len(p.msg) == 0 || h[0] < recordChangeCipherSpec || h[0] > recordHeartbeat) {
		return errNotHello
	}
	if !p.Lenient && len(h) > 1 && h[1] != 3 {
		return errNotHello
	}
	if len(h) < recordHeader {
		return nil
	}
	size := int(h[3])<<8 | int(h[4])
	if !p.Lenient && (size == 0 || size > maxRecord) || size > maxRecord+256 {
		return errors.New("a TLS record of a wrong length")
	}
	return nil
}

// body takes bytes of a record's contents.
func (p *Parser) body(b []byte) (n int, done bool, err error) {
	n = min(len(b), p.left)
	p.left -= n
	if p.skip {
		return n, false, nil
	}
	p.msg = append(p.msg, b[:n]...)
	if p.msg[0] != handshakeClientHello {
		return n, false, errors.New("the first TLS message is not a ClientHello")
	}
	if len(p.msg) < messageHeader {
		return n, false, nil
	}
	size := messageSize(p.msg)
	switch have := len(p.msg) - messageHeader; {
	case size > MaxHello:
		return n, false, errors.New("the ClientHello is too long")
	case !p.Lenient && (have > size || have == size && p.left > 0):
		return n, false, errors.New("more data follows the ClientHello in its record")
	case have < size:
		return n, false, nil
	}
	p.hello, err = parseHelloBody(p.msg[messageHeader : messageHeader+size])
	p.certain = !errors.Is(err, errNotHello)
	p.msg = nil
	return n, err == nil, err
}

// messageSize is the length in a handshake message's header of messageHeader bytes.
func messageSize(msg []byte) int { return int(msg[1])<<16 | int(msg[2])<<8 | int(msg[3]) }

// Parse reads the first ClientHello of a stream, which may be split over
// records. It fails with ErrShort while it is incomplete; any other error means
// that it is none, or one that two readers could understand differently.
func Parse(b []byte) (Hello, error) {
	var p Parser
	_, done, err := p.Feed(b)
	if err == nil && !done {
		err = ErrShort
	}
	return p.hello, err
}

// errNotHello means that bytes have nothing of a ClientHello but its first bytes.
var errNotHello = errors.New("not a TLS handshake")

// readFixed reads the part of a ClientHello that stands before its extensions.
// Random bytes seldom pass.
func readFixed(s *cryptobyte.String) bool {
	var version uint16
	var random []byte
	var session, suites, compressions cryptobyte.String
	return s.ReadUint16(&version) && s.ReadBytes(&random, 32) &&
		s.ReadUint8LengthPrefixed(&session) && len(session) <= 32 &&
		s.ReadUint16LengthPrefixed(&suites) && len(suites) > 0 && len(suites)%2 == 0 &&
		s.ReadUint8LengthPrefixed(&compressions) && len(compressions) > 0
}

// parseHelloBody reads a ClientHello without its four bytes of header.
func parseHelloBody(b []byte) (Hello, error) {
	var h Hello
	var exts cryptobyte.String
	s := cryptobyte.String(b)
	if !readFixed(&s) {
		return h, errNotHello
	}
	bad := errors.New("a malformed ClientHello")
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
			h.ECH = true
		case extServerName:
			name, err := parseServerName(data)
			if err != nil {
				return h, err
			}
			h.ServerName = name
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
	if name[len(name)-1] == '.' { // RFC 6066, section 3; a server may take it for the name without
		return "", errors.New("a server name with a final dot")
	}
	return strings.ToLower(string(name)), nil
}

// Alert returns a fatal TLS Alert record in the clear. Clients name it in their
// error, which tells a denial from a broken network.
func Alert(description byte) []byte {
	return []byte{21, 3, 3, 0, 2, 2, description}
}
