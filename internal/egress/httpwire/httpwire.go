// Package httpwire reads HTTP/1 as it stands on the wire: heads of requests and
// answers, authorities, and bodies on their way from a reader to a writer. It opens
// no connection and decides nothing. The bytes are hostile.
//
// Requests come from the guest. Those that pass are read alike by every server: the
// parser is strict (RFC 9112), and what goes upstream is written anew from what was
// checked. Answers come from a host that a rule allows: they are read leniently and
// passed on as they came.
//
// A head is held whole, at most MaxHead bytes; of a body never more than a read
// buffer.
package httpwire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	// MaxHead bounds a request's or an answer's head, in bytes.
	MaxHead = 64 << 10
	// MaxFields bounds the fields of a head.
	MaxFields = 256
)

// Field is one header field. The name is as the sender wrote it.
type Field struct{ Name, Value string }

// Is reports whether the field has a name, in any case.
func (f Field) Is(name string) bool { return strings.EqualFold(f.Name, name) }

// canonical returns the name as servers may compare it: some take an underscore
// for a hyphen.
func (f Field) canonical() string {
	return strings.ToLower(strings.ReplaceAll(f.Name, "_", "-"))
}

// Error is a request that is refused.
type Error struct {
	Status int    // the HTTP status for the client
	Why    string // for people
}

func (e *Error) Error() string { return e.Why }

// Malformed returns an *Error with status 400.
func Malformed(format string, args ...any) error {
	return &Error{400, fmt.Sprintf(format, args...)}
}

// ReadHead reads to the empty line that ends a head, at most MaxHead bytes. The
// error is io.EOF when nothing at all came, io.ErrUnexpectedEOF in the middle, and
// *Error for a head that is too long. What was read is returned with an error, too.
func ReadHead(r *bufio.Reader) ([]byte, error) {
	var head []byte
	for {
		line, err := r.ReadSlice('\n')
		if len(head)+len(line) > MaxHead {
			return append(head, line...), &Error{431, fmt.Sprintf("the head is longer than %d bytes", MaxHead)}
		}
		head = append(head, line...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(head) > 0:
			return head, io.ErrUnexpectedEOF
		case err != nil:
			return head, err
		}
		if bytes.HasSuffix(head, []byte("\n\r\n")) || bytes.HasSuffix(head, []byte("\n\n")) {
			return head, nil
		}
		if len(head) <= 2 && (string(head) == "\r\n" || string(head) == "\n") {
			head = head[:0] // an empty line before a request (RFC 9112, 2.2)
		}
	}
}
