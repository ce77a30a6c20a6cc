// Package gitwire reads the beginning of a push to a repository of git (gitprotocol-pack(5),
// "Pushing Data To a Server"), and writes the answer of a server that refuses it. Over HTTP a push is
// the body of a request, over SSH the input of a command. It decides nothing. Pure.
package gitwire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Theory of operation.
//
// A push begins with lines, each behind its length in four hexadecimal digits (pkt-line,
// gitprotocol-common(5)), up to an empty length, the flush:
//
//	shallow OID               commits whose parents the client does not have
//	OLD NEW REF NUL CAPS      a change of a ref, with what the client can do
//	OLD NEW REF               another change
//
// and goes on with a pack of the objects, if a change needs one. Servers differ in how they take
// unusual input (capabilities behind a later line, certificates, options, sections that are
// unknown here), so all that git's own client does not send is refused.

const (
	// MaxHead bounds the lines of one push with their flush, in bytes: they are held until all are
	// judged. It is enough for some 1,500 refs.
	MaxHead = 256 << 10
	// maxLine bounds a pkt-line with its length, in bytes (LARGE_PACKET_MAX of gitprotocol-common(5)).
	maxLine = 65520
	// lengthDigits is the length of the length.
	lengthDigits = 4
)

// known are the capabilities of a push that change nothing in what it does to the refs. Those with
// a value end in "=".
var known = []string{
	"report-status", "report-status-v2", "delete-refs", "side-band", "side-band-64k", "quiet", "atomic", "ofs-delta",
	"object-format=", "agent=", "session-id=",
}

// Change is what a push does to a ref.
type Change struct {
	Old, New string // names of commits; all zeros: none
	Ref      string
}

// Created reports whether the ref shall not exist before.
func (c Change) Created() bool { return isZero(c.Old) }

// Deleted reports whether the ref shall not exist afterwards.
func (c Change) Deleted() bool { return isZero(c.New) }

func isZero(oid string) bool { return strings.Trim(oid, "0") == "" }

// Push is the beginning of a push.
type Push struct {
	Changes []Change // none: the client asks only whether it may push
	caps    []string
	head    []byte
}

// Head returns the bytes that were read, the flush included.
func (p *Push) Head() []byte { return p.head }

// NeedsPack reports whether a pack of objects has to follow.
func (p *Push) NeedsPack() bool {
	return slices.ContainsFunc(p.Changes, func(c Change) bool { return !c.Deleted() })
}

// Read reads a push up to its flush, and looks at what follows without taking it: a pack, or the
// end where none is needed. With an error it returns what was read so far, for the answer.
func Read(r *bufio.Reader) (*Push, error) {
	p, err := readList(r)
	if err == nil {
		err = p.checkRest(r)
	}
	return p, err
}

// ReadOpen is Read for a connection that the client keeps open for the server's report. Where no pack
// is needed, nothing of what follows the flush is part of the push, and the caller must not send it on.
func ReadOpen(r *bufio.Reader) (*Push, error) {
	p, err := readList(r)
	if err == nil && p.NeedsPack() {
		err = p.checkRest(r)
	}
	return p, err
}

// readList reads a push up to its flush.
func readList(r *bufio.Reader) (*Push, error) {
	p := &Push{}
	for {
		line, err := p.line(r)
		if err != nil || line == nil {
			return p, err
		}
		if err := p.add(line); err != nil {
			return p, err
		}
	}
}

// errShort means that the request ended among the lines.
var errShort = errors.New("the push ends before its list of refs does")

// line reads a line; nil: the flush.
func (p *Push) line(r *bufio.Reader) ([]byte, error) {
	start := len(p.head)
	if err := p.take(r, lengthDigits); err != nil {
		return nil, err
	}
	n, ok := parseLength(p.head[start:])
	switch {
	case ok && n == 0:
		return nil, nil
	case !ok || n <= lengthDigits || n > maxLine:
		return nil, fmt.Errorf("the push has a line of the length %.4q", p.head[start:])
	case start+n+lengthDigits > MaxHead: // another length follows in any case
		return nil, fmt.Errorf("the push changes too many refs at once: their list is longer than %d bytes", MaxHead)
	}
	if err := p.take(r, n-lengthDigits); err != nil {
		return nil, err
	}
	return p.head[start+lengthDigits:], nil
}

// take reads n bytes more into head.
func (p *Push) take(r *bufio.Reader, n int) error {
	start := len(p.head)
	p.head = slices.Grow(p.head, n)[:start+n]
	got, err := io.ReadFull(r, p.head[start:])
	p.head = p.head[:start+got]
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errShort
	}
	return err
}

// parseLength reads the length of a line.
func parseLength(digits []byte) (n int, ok bool) {
	for _, c := range digits {
		i := strings.IndexByte("0123456789abcdef", c|0x20)
		if i < 0 || c < '0' {
			return 0, false
		}
		n = n<<4 | i
	}
	return n, true
}

// add reads one line.
func (p *Push) add(line []byte) error {
	text, caps, hasCaps := bytes.Cut(line, []byte{0})
	if !hasCaps {
		text = bytes.TrimSuffix(text, []byte("\n"))
	}
	shallow, isShallow := strings.CutPrefix(string(text), "shallow ")
	switch {
	case isShallow && len(p.Changes) == 0 && !hasCaps && isOID(shallow):
		return nil
	case string(text) == "push-cert":
		_ = p.setCaps(string(caps)) // for the form of the answer only
		return errors.New("signed pushes (push --signed) are not looked into")
	case hasCaps && len(p.Changes) > 0:
		return errors.New("the push has capabilities behind a later line")
	}
	c, err := parseChange(string(text))
	if err != nil {
		return err
	}
	if slices.ContainsFunc(p.Changes, func(o Change) bool { return o.Ref == c.Ref }) {
		return errors.New("the push changes a ref twice")
	}
	first := len(p.Changes) == 0
	p.Changes = append(p.Changes, c)
	if first {
		return p.setCaps(string(caps))
	}
	return nil
}

var errOptions = errors.New("push options (push -o, refs/for/BRANCH%OPTION) are not allowed: by them a server does more than change the refs")

// reviewRefs are where Gerrit takes changes for review. There it reads options behind a percent sign in the name
// (refs/for/main%submit).
var reviewRefs = []string{"refs/for/", "refs/drafts/", "refs/publish/"}

// hasOptions reports whether a server may read options in the name of a ref.
func hasOptions(ref string) bool {
	return strings.Contains(ref, "%") && slices.ContainsFunc(reviewRefs, func(p string) bool { return strings.HasPrefix(ref, p) })
}

// setCaps reads the list of capabilities.
func (p *Push) setCaps(list string) error {
	if strings.ContainsFunc(list, func(c rune) bool { return c < ' ' && c != '\n' }) { // for some servers it ends one, or the list
		return errors.New("the push has a control character among its capabilities")
	}
	p.caps = strings.Fields(list)
	for _, c := range p.caps {
		name, _, has := strings.Cut(c, "=")
		if has {
			name += "="
		}
		switch {
		case c == "push-options":
			return errOptions
		case !slices.Contains(known, name):
			return fmt.Errorf("the push asks for %.40q, which is not known here", c)
		}
	}
	return nil
}

// parseChange reads OLD NEW REF.
func parseChange(text string) (c Change, err error) {
	old, rest, _ := strings.Cut(text, " ")
	next, ref, _ := strings.Cut(rest, " ")
	switch {
	case !isOID(old) || !isOID(next) || len(old) != len(next):
		return c, errors.New("the push has a line that is no change of a ref")
	case isZero(old) && isZero(next):
		return c, errors.New("the push deletes a ref that does not exist")
	case ref == "" || strings.ContainsFunc(ref, func(c rune) bool { return c <= ' ' || c == 0x7f }):
		return c, fmt.Errorf("the push changes %.100q, which is not the name of a ref", ref)
	case hasOptions(ref):
		return c, errOptions
	}
	return Change{old, next, ref}, nil
}

// isOID reports whether a text is the name of an object: SHA-1 or SHA-256.
func isOID(s string) bool {
	return (len(s) == 40 || len(s) == 64) && strings.Trim(s, "0123456789abcdef") == ""
}

// checkRest looks at what follows the flush.
func (p *Push) checkRest(r *bufio.Reader) error {
	const signature = "PACK" // gitformat-pack(5)
	needed := p.NeedsPack()
	next, err := r.Peek(len(signature))
	switch {
	case string(next) == signature && len(p.Changes) > 0:
		return nil
	case len(next) == 0 && errors.Is(err, io.EOF) && !needed:
		return nil
	case len(next) == 0 && errors.Is(err, io.EOF):
		return errors.New("the push has no objects")
	case err != nil && !errors.Is(err, io.EOF):
		return err
	}
	return errors.New("what follows the push's list of refs is no pack of objects")
}
