// Package tlshello reads the ClientHello that a TLS client sends first, without
// taking part in the connection: the server name in it, and whether it may hide
// another one. It is pure: bytes in, answers out. The bytes are hostile.
//
// Words: the ClientHello is the first handshake message. It travels in records of
// the plaintext type "handshake", possibly in several. A server may answer with a
// HelloRetryRequest; the client then sends a second ClientHello, which the Guard
// looks for in what follows the first.
//
// Sources: RFC 8446 sections 4 and 5, RFC 6066 section 3, RFC 9849 (ECH). The
// ClientHello is read, never changed. What two readers could understand
// differently is refused.
package tlshello

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/crypto/cryptobyte"
)

const (
	// MaxHello bounds the bytes held while a ClientHello is not complete.
	// Real ones are below 4 KiB, with post-quantum keys.
	MaxHello = 64 << 10
	// maxRecord is the longest TLS plaintext record, in bytes.
	maxRecord = 1 << 14

	// maxReads bounds the pieces that a ClientHello may come in: after each, all is
	// looked at again.
	maxReads = 1024
	// readBuffer is how much is read at a time, in bytes.
	readBuffer = 4 << 10

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
	AlertUnrecognizedName  = 112
	AlertAccessDenied      = 49
	AlertUnexpectedMessage = 10
)

// Errors of Parse and Read.
var (
	// ErrShort means that more bytes are needed.
	ErrShort = errors.New("more bytes are needed")
	// ErrRefused means that the bytes are no ClientHello, or one that two readers
	// could understand differently. The error's text says what is wrong.
	ErrRefused = errors.New("refused")
)

// refusal is an error that is ErrRefused.
type refusal struct{ error }

func (refusal) Is(target error) bool { return target == ErrRefused }

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

// Read reads from c until the ClientHello that begins with head is whole, and
// returns it with all bytes read so far, head included. At most MaxHello bytes and
// one read more are held. Errors are ErrRefused, or those of c.
func Read(c io.Reader, head []byte) (Hello, []byte, error) {
	buf := make([]byte, readBuffer)
	for reads := 0; ; reads++ {
		h, err := Parse(head)
		if err == nil {
			return h, head, nil
		}
		if !errors.Is(err, ErrShort) {
			return h, head, refusal{err}
		}
		if len(head) > MaxHello || reads == maxReads {
			return Hello{}, nil, refusal{errors.New("the ClientHello is too long, or split into too many pieces")}
		}
		n, err := io.ReadAtLeast(c, buf, min(lacking(head), len(buf)))
		head = append(head, buf[:n]...)
		if err != nil && n == 0 {
			return Hello{}, nil, err
		}
	}
}

// lacking is how many bytes are worth another look at a ClientHello that is not
// whole: its start, where mistakes show, or the rest of a record.
func lacking(head []byte) int {
	for len(head) > recordHeader+4 {
		n := recordHeader + int(head[3])<<8 + int(head[4])
		if len(head) < n {
			return n - len(head)
		}
		head = head[n:]
	}
	return 1
}

// Parse reads the first ClientHello of a stream, which may be split over
// records. It fails with ErrShort while it is incomplete; any other error means
// that it is none, or one that two readers could understand differently.
func Parse(b []byte) (Hello, error) {
	var msg []byte
	for {
		if len(b) < recordHeader {
			return Hello{}, ErrShort
		}
		if b[0] != recordHandshake || b[1] != 3 {
			return Hello{}, errors.New("not a TLS handshake")
		}
		n := int(b[3])<<8 | int(b[4])
		if n == 0 || n > maxRecord {
			return Hello{}, errors.New("a TLS record of a wrong length")
		}
		part := b[recordHeader:]
		whole := len(part) >= n
		if whole {
			part = part[:n]
		}
		msg = append(msg, part...)
		if len(msg) > 0 && msg[0] != handshakeClientHello {
			return Hello{}, errors.New("the first TLS message is not a ClientHello")
		}
		if len(msg) >= 4 {
			size := int(msg[1])<<16 | int(msg[2])<<8 | int(msg[3])
			if size > MaxHello {
				return Hello{}, errors.New("the ClientHello is too long")
			}
			if len(msg) > 4+size {
				return Hello{}, errors.New("more data follows the ClientHello in its record")
			}
			if len(msg) == 4+size && whole {
				return parseHelloBody(msg[4:])
			}
		}
		if !whole {
			return Hello{}, ErrShort
		}
		b = b[recordHeader+n:]
	}
}

// parseHelloBody reads a ClientHello without its four bytes of header.
func parseHelloBody(b []byte) (Hello, error) {
	var (
		h                                   Hello
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
	return strings.ToLower(string(name)), nil
}

// Alert returns a fatal TLS Alert record in the clear. Clients name it in their
// error, which tells a denial from a broken network.
func Alert(description byte) []byte {
	return []byte{21, 3, 3, 0, 2, 2, description}
}
