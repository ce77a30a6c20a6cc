package egress

import (
	"bytes"
	"errors"
	"net"
	"time"

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

// sniffer tells protocols by a client's first bytes, as they come.
type sniffer struct {
	line httpwire.FirstLine

	// grace bounds the wait for more bytes while those that came may be another
	// protocol as well, and total the wait for all of them; zero: the caller has set a
	// deadline.
	grace, total time.Duration
}

// sniff reads until the first bytes show what they are; c holds them. err is the error
// that ended the reading, of a kindNone, a kindOther or a kindHTTP. With a grace, bytes
// that are not like a request are a kindOther when it is over.
func (s *sniffer) sniff(c *heldConn) (kind, error) {
	end := time.Now().Add(s.total)
	for {
		k, v := s.look(c.held)
		if v >= httpwire.IsRequest {
			return k, nil
		}
		if len(c.held) > httpwire.MaxHead {
			return kindHTTP, nil // no line end: the head parser will refuse it
		}
		if s.total > 0 && len(c.held) > 0 {
			wait := end
			if soon := time.Now().Add(s.grace); v == httpwire.Undecided && soon.Before(end) {
				wait = soon
			}
			_ = c.SetReadDeadline(wait)
		}
		if err := c.fill(); err != nil {
			return s.ended(c.held, v, err)
		}
	}
}

// ended tells what bytes are of which no more came.
func (s *sniffer) ended(b []byte, v httpwire.Verdict, err error) (kind, error) {
	if len(b) == 0 {
		return kindNone, err
	}
	if isTimeout(err) {
		if v == httpwire.Undecided && s.grace > 0 {
			err = nil
		}
		return kindOther, err
	}
	// Some servers take the end of the input for the end of the line.
	if k, _ := s.look(append(bytes.Clone(b), '\n')); k == kindHTTP {
		return k, err
	}
	return kindOther, err
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// look returns what bytes are: the kind counts unless the verdict is that more are
// needed to tell.
func (s *sniffer) look(b []byte) (kind, httpwire.Verdict) {
	isTLS, maybeTLS := tlshello.Looks(b)
	v := s.line.Look(b)
	switch {
	case isTLS:
		return kindTLS, httpwire.Other
	case bytes.HasPrefix(b, http2Preface):
		return kindHTTP2, httpwire.IsRequest
	case bytes.HasPrefix(http2Preface, b) && len(b) > 1:
		return kindHTTP2, httpwire.Likely
	case v == httpwire.IsRequest:
		return kindHTTP, v
	case maybeTLS:
		return kindOther, httpwire.Undecided
	}
	return kindOther, v
}
