// Package gitobject reads a commit or a tag of git as git hands it to a signing program, strictly: what
// git itself does not write is refused. It decides nothing. Pure.
package gitobject

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // git's names of objects
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Theory of operation.
//
// A commit (git's commit.c, commit_tree_extended) is a header of lines, an empty line and the message:
//
//	tree OID
//	parent OID          any number
//	author IDENT
//	committer IDENT
//	encoding NAME       only if the text is not UTF-8
//	mergetag TAG        any number; a signed tag that was merged, further lines begin with a space
//
// A tag (gitformat-signature(5), builtin/tag.c) likewise:
//
//	object OID
//	type commit|tag|tree|blob
//	tag NAME
//	tagger IDENT
//
// IDENT is NAME <EMAIL> SECONDS ZONE. The signature comes later: into the header of a commit, as
// gpgsig, and to the end of a tag. So one that is there already is refused, as is every other header. git
// reads no further header behind the empty line, whatever the message looks like.

// MaxObject bounds an object, in bytes: its message is a person's text.
const MaxObject = 1 << 20

const (
	// maxEncoding bounds the name of an encoding, in bytes. The longest of IANA's list has 45.
	maxEncoding = 45
	// maxTagName bounds the name of a tag, in bytes: it is that of a file in many repositories.
	maxTagName = 255
	// maxSeconds is the last second that dates here may have: the year 9999.
	maxSeconds = 253402300799
)

// The lengths of names of objects in hexadecimal digits (gitformat-pack(5)).
const (
	sha1Digits   = 2 * sha1.Size
	sha256Digits = 2 * sha256.Size
)

// The kinds of objects that are signed.
const (
	Commit = "commit"
	Tag    = "tag"
)

// Identity is a name and an e-mail address with a time.
type Identity struct {
	Name, Email string
	When        time.Time
}

// Object is a commit or a tag without a signature.
type Object struct {
	Kind string   // Commit or Tag
	Of   string   // the name of its tree, or of the object that the tag is for
	By   Identity // the committer, or the tagger

	bytes  []byte
	header int // the length of the header
}

// Parse reads an object. It keeps b, which the caller does not change any more.
func Parse(b []byte) (*Object, error) {
	if len(b) > MaxObject {
		return nil, fmt.Errorf("it has %d bytes, and at most %d are signed", len(b), MaxObject)
	}
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return nil, errors.New("it has a byte of the value zero")
	}
	h := &header{rest: b}
	o := &Object{bytes: b}
	var err error
	switch {
	case bytes.HasPrefix(b, []byte("tree ")):
		o.Kind, err = Commit, h.commit(o)
	case bytes.HasPrefix(b, []byte("object ")):
		o.Kind, err = Tag, h.tag(o)
	default:
		err = errors.New("it is neither a commit nor a tag of git")
	}
	if err == nil && h.encoding == "" && !utf8.Valid(b) {
		err = errors.New("it is not UTF-8, and names no other encoding")
	}
	if err != nil {
		return nil, err
	}
	o.header = len(b) - len(h.rest) - 1 // without the empty line
	return o, nil
}

// signatures are the first lines of signatures as git knows them (gpg-interface.c).
var signatures = []string{
	"-----BEGIN PGP SIGNATURE-----", "-----BEGIN PGP MESSAGE-----", "-----BEGIN SIGNED MESSAGE-----", "-----BEGIN SSH SIGNATURE-----",
}

// isSignature reports whether git takes a line of a tag for the beginning of its signature.
func isSignature(line []byte) bool {
	for _, s := range signatures {
		if bytes.HasPrefix(line, []byte(s)) {
			return true
		}
	}
	return false
}

// SignedName returns the name that the object has with a signature in the place where git puts it.
func (o *Object) SignedName(signature []byte) string {
	b := slices.Concat(o.bytes, signature)
	if o.Kind == Commit {
		b = slices.Clone(o.bytes[:o.header])
		key := "gpgsig"
		if len(o.Of) == sha256Digits {
			key = "gpgsig-sha256"
		}
		for line := range bytes.Lines(signature) {
			b = append(append(append(b, key...), ' '), bytes.TrimSuffix(line, []byte("\n"))...)
			b = append(b, '\n')
			key = ""
		}
		b = append(b, o.bytes[o.header:]...)
	}
	h := sha1.New() //nolint:gosec // as above
	if len(o.Of) == sha256Digits {
		h = sha256.New()
	}
	fmt.Fprintf(h, "%s %d\x00", o.Kind, len(b))
	h.Write(b)
	return hex.EncodeToString(h.Sum(nil))
}

// header reads the lines of a header.
type header struct {
	rest     []byte // not read yet
	digits   int    // of names of objects; 0: not known yet
	encoding string
}

// commit reads a commit.
func (h *header) commit(o *Object) (err error) {
	if o.Of, err = h.name("tree"); err != nil {
		return err
	}
	for h.next("parent") {
		if _, err := h.name("parent"); err != nil {
			return err
		}
	}
	if _, err = h.identity("author"); err != nil {
		return err
	}
	if o.By, err = h.identity("committer"); err != nil {
		return err
	}
	if h.next("encoding") {
		if err := h.encodingName(); err != nil {
			return err
		}
	}
	for h.next("mergetag") {
		if err := h.mergeTag(); err != nil {
			return err
		}
	}
	return h.end()
}

// tag reads a tag.
func (h *header) tag(o *Object) (err error) {
	if err := h.tagHeader(o); err != nil {
		return err
	}
	if err := h.end(); err != nil {
		return err
	}
	for line := range bytes.Lines(h.rest) {
		if isSignature(line) {
			return errors.New("it has a signature already")
		}
	}
	return nil
}

// tagHeader reads the lines of a tag's header.
func (h *header) tagHeader(o *Object) (err error) {
	if o.Of, err = h.name("object"); err != nil {
		return err
	}
	kind, err := h.line("type")
	if err != nil {
		return err
	}
	switch kind {
	case "commit", "tag", "tree", "blob":
	default:
		return fmt.Errorf("its type is %.20q", kind)
	}
	name, err := h.line("tag")
	if err != nil {
		return err
	}
	if name == "" || len(name) > maxTagName || strings.ContainsAny(name, " ~^:?*[\\") || strings.Contains(name, "..") {
		return fmt.Errorf("%.40q is not the name of a tag", name)
	}
	o.By, err = h.identity("tagger")
	return err
}

// mergeTag reads a tag that was merged. Its signature may be anybody's.
func (h *header) mergeTag() error {
	first, err := h.line("mergetag")
	if err != nil {
		return err
	}
	tag := []byte(first + "\n")
	for bytes.HasPrefix(h.rest, []byte(" ")) {
		i := bytes.IndexByte(h.rest, '\n')
		if i < 0 {
			return errEnds
		}
		tag = append(tag, h.rest[1:i+1]...)
		h.rest = h.rest[i+1:]
	}
	t := &header{rest: tag, digits: h.digits}
	if err := t.tagHeader(&Object{}); err != nil {
		return fmt.Errorf("the tag in its header: %w", err)
	}
	if !bytes.HasPrefix(t.rest, []byte("\n")) {
		return errors.New("the tag in its header has another header")
	}
	return nil
}

// next reports whether the next line has that key.
func (h *header) next(key string) bool { return bytes.HasPrefix(h.rest, []byte(key+" ")) }

var errEnds = errors.New("its header ends too early")

// line reads a line with that key, and returns its value.
func (h *header) line(key string) (string, error) {
	i := bytes.IndexByte(h.rest, '\n')
	if i < 0 {
		return "", errEnds
	}
	line := string(h.rest[:i])
	value, ok := strings.CutPrefix(line, key+" ")
	if !ok {
		return "", fmt.Errorf("its header has %.30q where %s is expected", line, key)
	}
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", fmt.Errorf("the line %s of its header has control characters", key)
	}
	h.rest = h.rest[i+1:]
	return value, nil
}

// name reads a line with the name of an object. All have the same length.
func (h *header) name(key string) (string, error) {
	v, err := h.line(key)
	if err != nil {
		return "", err
	}
	if h.digits == 0 {
		h.digits = len(v)
	}
	if len(v) != h.digits || len(v) != sha1Digits && len(v) != sha256Digits || strings.Trim(v, "0123456789abcdef") != "" {
		return "", fmt.Errorf("its %s is not the name of an object", key)
	}
	return v, nil
}

// identity reads a line with a name, an e-mail address and a time.
func (h *header) identity(key string) (id Identity, err error) {
	v, err := h.line(key)
	if err != nil {
		return id, err
	}
	bad := fmt.Errorf("its %s is not NAME <EMAIL> SECONDS ZONE", key)
	name, rest, ok := strings.Cut(v, " <")
	if strings.HasPrefix(v, "<") { // an author without a name
		name, rest, ok = "", v[1:], true
	}
	email, date, closed := strings.Cut(rest, "> ")
	if !ok || !closed || strings.ContainsAny(name+email+date, "<>") {
		return id, bad
	}
	seconds, zone, _ := strings.Cut(date, " ")
	n, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil || n < 0 || n > maxSeconds || strconv.FormatInt(n, 10) != seconds || !isZone(zone) {
		return id, bad
	}
	return Identity{name, email, time.Unix(n, 0).UTC()}, nil
}

// isZone reports whether s is a time zone: +hhmm or -hhmm.
func isZone(s string) bool {
	return len(s) == 5 && (s[0] == '+' || s[0] == '-') && strings.Trim(s[1:], "0123456789") == ""
}

// encodingName reads the name of the text's encoding.
func (h *header) encodingName() error {
	v, err := h.line("encoding")
	if err != nil {
		return err
	}
	letter := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.:+", r)
	}
	if v == "" || len(v) > maxEncoding || strings.ContainsFunc(v, func(r rune) bool { return !letter(r) }) {
		return fmt.Errorf("%.40q is not the name of an encoding", v)
	}
	h.encoding = v
	return nil
}

// end reads the empty line. h.rest is the message then.
func (h *header) end() error {
	if !bytes.HasPrefix(h.rest, []byte("\n")) {
		line, _, _ := bytes.Cut(h.rest, []byte("\n"))
		key, _, _ := bytes.Cut(line, []byte(" "))
		if len(line) == 0 {
			return errEnds
		}
		return fmt.Errorf("its header has %.30q, which is not signed here", key)
	}
	h.rest = h.rest[1:]
	return nil
}
