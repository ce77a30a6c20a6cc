package egress

import (
	"bytes"
	"io"

	"bawn.dev/bawn/internal/egress/httpwire"
	"bawn.dev/bawn/internal/egress/tlshello"
)

// kind is what a client's first bytes look like.
type kind int

const (
	kindNone  kind = iota // the client ended or failed before its first byte
	kindTLS               // a TLS handshake record
	kindHTTP              // a request line of HTTP/1
	kindHTTP2             // the preface of HTTP/2
	kindOther
)

// http2Preface is what HTTP/2 clients send first (RFC 9113, section 3.4).
var http2Preface = []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")

// sniff reads until the first bytes show what they are. It returns all that it
// read. err is the error that ended the reading, of a kindNone or a kindOther.
func sniff(r io.Reader, head []byte) (kind, []byte, error) {
	buf := make([]byte, smallBuffer)
	for reads := 0; ; reads++ {
		k, maybe := looks(head)
		if !maybe {
			return k, head, nil
		}
		if len(head) > httpwire.MaxHead || reads == maxFirstReads {
			return kindHTTP, head, nil // no line end: the head parser will refuse it
		}
		n, err := r.Read(buf)
		head = append(head, buf[:n]...)
		if err == nil {
			continue
		}
		if k, maybe := looks(head); !maybe {
			return k, head, nil
		}
		if len(head) == 0 {
			return kindNone, nil, err
		}
		// Some servers take the end of the input for the end of the line.
		if k, _ := looks(append(head, '\n')); k == kindHTTP {
			return k, head, err
		}
		return kindOther, head, err
	}
}

// looks returns what bytes are; maybe means that more are needed to tell.
func looks(b []byte) (k kind, maybe bool) {
	isTLS, maybeTLS := tlshello.Looks(b)
	isHTTP, maybeHTTP := httpwire.Looks(b)
	switch {
	case isTLS:
		return kindTLS, false
	case bytes.HasPrefix(b, http2Preface):
		return kindHTTP2, false
	case bytes.HasPrefix(http2Preface, b) && len(b) > 0:
		return kindHTTP2, true
	case isHTTP:
		return kindHTTP, false
	}
	return kindOther, maybeTLS || maybeHTTP
}

// readSome reads what is there; an error only if that is nothing.
func readSome(r io.Reader) ([]byte, error) {
	small := smallBuffers.Get().(*[smallBuffer]byte)
	defer smallBuffers.Put(small)
	n, err := r.Read(small[:])
	if n > 0 {
		err = nil // the next read returns it again
	}
	return append([]byte(nil), small[:n]...), err
}
