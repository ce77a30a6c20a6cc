package inspect

import (
	"bytes"
	"mime"
	"net/http"
	"slices"
	"strings"
)

// Credentials in forms.
//
// A form can carry what a query can: OAuth takes an access token (RFC 6750, 2.2) and the client's secret
// (RFC 6749, 2.3.1) in one, and so do APIs that take their key in the query. Its fields are
// judged as those of the query, as they pass. Other bodies are not: what they mean is known to the
// server only, and a conversation with a model may well have a key in it.

// maxField bounds what is kept of a field of a form, or of a line of a form in parts, in bytes.
const maxField = 1 << 10

// formLooker looks for credentials in a form as it passes. It is used by one goroutine.
type formLooker struct {
	judge func(name, value string) (credential bool)
	parts bool   // multipart/form-data, else fields with & between them
	now   []byte // the beginning of the present field or line

	head   string // the present line of a part's head
	name   string // of the present part
	unread bool   // the name in its head cannot be read
	value  bool   // its head is over, and the next line is its value
	found  string // the name of the first field that is a credential
}

// newFormLooker returns a looker for a body with these Content-Types; nil if it is no form. What
// follows a type is not read: servers differ in what they accept there.
func newFormLooker(contentTypes []string, judge func(name, value string) bool) *formLooker {
	switch formKind(contentTypes) {
	case urlencoded:
		return &formLooker{judge: judge}
	case multipart:
		return &formLooker{judge: judge, parts: true}
	}
	return nil
}

// The types of forms.
const (
	urlencoded = "application/x-www-form-urlencoded"
	multipart  = "multipart/form-data"
)

// isForm reports whether a body with these Content-Types is a form.
func isForm(contentTypes []string) bool { return formKind(contentTypes) != "" }

// formTypes are the Content-Types of a request's body as servers take them: Rack and older Python take the body of a POST without
// one for a form.
func formTypes(r *http.Request) []string {
	types := r.Header.Values("Content-Type")
	if strings.Join(types, "") == "" && strings.EqualFold(r.Method, http.MethodPost) {
		return []string{urlencoded}
	}
	return types
}

// formKind returns the first of these Content-Types that is one of a form, or "".
func formKind(contentTypes []string) string {
	for _, t := range contentTypes {
		for one := range strings.SplitSeq(t, ",") {
			kind, _, _ := strings.Cut(one, ";")
			switch kind = strings.ToLower(strings.TrimSpace(kind)); kind {
			case urlencoded:
				return kind
			case multipart, "multipart/mixed", "multipart/related": // Rack and Go read the fields of these, too
				return multipart
			}
		}
	}
	return ""
}

// charsets are those in which ASCII characters are themselves.
var charsets = []string{
	"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "iso-8859-2", "iso-8859-15", "latin1", "windows-1250", "windows-1251", "windows-1252",
	"shift_jis", "euc-jp", "euc-kr", "gb2312", "gbk", "gb18030", "big5",
}

// otherCharset returns a charset in these Content-Types that is none of charsets, or "". ASP.NET reads the fields of a form and of
// the query in it, such as EBCDIC.
func otherCharset(contentTypes []string) string {
	rest := strings.ToLower(strings.Join(contentTypes, ";"))
	for found := true; found; {
		if _, rest, found = strings.Cut(rest, "charset"); !found {
			break
		}
		value, ok := strings.CutPrefix(strings.TrimSpace(rest), "=")
		if end := strings.IndexAny(value, ";,"); end >= 0 {
			value = value[:end]
		}
		if value = strings.Trim(value, " \t\"'"); ok && !slices.Contains(charsets, value) {
			return value
		}
	}
	return ""
}

// feed takes the next bytes, and returns the name of the first field that is a credential.
func (l *formLooker) feed(b []byte, final bool) string {
	ends := "&;" // for some servers a semicolon ends a field, too
	if l.parts {
		ends = "\n"
	}
	for l.found == "" && len(b) > 0 {
		n := bytes.IndexAny(b, ends)
		over := n >= 0
		if !over {
			n = len(b)
		}
		l.now = append(l.now, b[:min(n, maxField-len(l.now))]...)
		if b = b[n:]; over {
			b = b[1:]
			l.ended()
		}
	}
	if final && l.found == "" {
		l.ended()
	}
	return l.found
}

// ended judges a field or line.
func (l *formLooker) ended() {
	text := string(l.now)
	l.now = l.now[:0]
	if l.parts {
		if len(text) == maxField && isPartHead(text) { // its name may stand in what was not kept
			l.found = partHead
			return
		}
		l.line(strings.TrimSuffix(text, "\r"))
		return
	}
	name, value, _ := strings.Cut(text, "=")
	l.field(unescaped(name), unescaped(value))
}

// line reads a line of a body of several parts: the name in the head of one, or the first line of its
// value.
func (l *formLooker) line(text string) {
	switch {
	case l.value:
		l.field(l.name, text)
		l.name, l.value = "", false
	case text == "" && l.unread: // servers read its name in different ways, such as one that is there twice
		l.found = partHead
	case text == "":
		l.value, l.head = l.name != "", ""
	case text[0] == ' ' || text[0] == '\t': // the line before goes on
		if len(l.head)+len(text) <= maxField {
			l.head += text
			l.readHead()
		}
	default:
		l.head = text
		l.readHead()
	}
}

// readHead reads the name of a part in the present line of its head.
func (l *formLooker) readHead() {
	if !isPartHead(l.head) {
		return
	}
	_, params, err := mime.ParseMediaType(l.head[len(partHead):])
	l.name, l.unread = strings.Trim(params["name"], "'"), err != nil // PHP reads single quotes
	if word, err := new(mime.WordDecoder).DecodeHeader(l.name); err == nil {
		l.name = word // Tomcat reads words as those of mail (RFC 2047)
	} else {
		l.unread = true
	}
}

func isPartHead(line string) bool {
	return len(line) > len(partHead) && strings.EqualFold(line[:len(partHead)], partHead)
}

// partHead begins the line with a part's name (RFC 7578, 4.2).
const partHead = "Content-Disposition:"

// maxNameWords is how many words with spaces between them are taken for the name of a field.
const maxNameWords = 3

// field judges a field. One whose name has other characters than names of fields have, or more words, is passed over:
// some clients call every body a form. PHP takes spaces before a name off, makes _ of those within and ends it at a NUL.
func (l *formLooker) field(name, value string) {
	name, _, _ = strings.Cut(name, "\x00")
	words := strings.Fields(name)
	plain := func(c rune) bool {
		return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || strings.ContainsRune("-_.[]$:", c)
	}
	if name = strings.Join(words, "_"); name != "" && len(words) <= maxNameWords && !strings.ContainsFunc(name, func(c rune) bool { return !plain(c) }) && l.judge(name, value) {
		l.found = name
	}
}
