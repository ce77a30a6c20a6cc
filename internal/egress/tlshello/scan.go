package tlshello

import (
	"bytes"
	"errors"
)

// maxOpen bounds the ClientHellos that a Scanner follows at a time. Bytes that were
// not made to begin so many have two at most.
const maxOpen = 16

// Scanner looks for ClientHellos at any place of a stream that is not known to be TLS:
// behind a first exchange in the clear (STARTTLS), or behind bytes that a server
// passes over. It reads as the most forgiving server does (see Parser.Lenient), holds
// nothing back, and looks at most bytes with a search for one value only.
//
// Use it for one direction of one connection, from one goroutine at a time.
type Scanner struct {
	// Check is asked about each ClientHello; its error refuses it. first: the stream
	// began with it.
	Check func(h Hello, first bool) error

	open []*candidate
	any  bool // some bytes have come
}

// candidate is a place at which a ClientHello may begin.
type candidate struct {
	Parser
	first bool
}

// Feed looks at the next bytes. An error means that they may not pass: with them, a
// ClientHello that is refused would be whole.
func (s *Scanner) Feed(b []byte) error {
	if err := s.follow(b); err != nil {
		return err
	}
	for at := 0; ; at++ {
		i := bytes.IndexByte(b[at:], recordHandshake)
		if i < 0 {
			break
		}
		at += i
		if !mayBegin(b[at:]) {
			continue
		}
		c := &candidate{Parser: Parser{Lenient: true}, first: at == 0 && !s.any}
		goes, err := s.feed(c, b[at:])
		if err != nil {
			return err
		}
		if goes {
			s.open = append(s.open, c)
		}
		if len(s.open) > maxOpen {
			return errors.New("too many records that may be a ClientHello overlap")
		}
	}
	s.any = s.any || len(b) > 0
	return nil
}

// mayBegin reports whether bytes that begin like a handshake record may go on like a
// ClientHello.
func mayBegin(b []byte) bool {
	if len(b) > 3 && b[3] > (maxRecord+256)>>8 {
		return false
	}
	if len(b) < recordHeader+2 {
		return len(b) <= recordHeader || b[recordHeader] == handshakeClientHello
	}
	one := b[3] == 0 && b[4] == 1 // the record has the message's first byte only
	return b[recordHeader] == handshakeClientHello && (one || b[recordHeader+1] == 0)
}

// follow feeds the candidates that are not whole.
func (s *Scanner) follow(b []byte) error {
	keep := s.open[:0]
	for _, c := range s.open {
		goes, err := s.feed(c, b)
		if err != nil {
			return err
		}
		if goes {
			keep = append(keep, c)
		}
	}
	clear(s.open[len(keep):])
	s.open = keep
	return nil
}

// feed gives bytes to a candidate and reports whether it may go on.
func (s *Scanner) feed(c *candidate, b []byte) (bool, error) {
	_, done, err := c.Feed(b)
	switch {
	case done:
		return false, s.Check(c.Hello(), c.first)
	case err != nil && c.certain:
		return false, err
	}
	return err == nil, nil
}
