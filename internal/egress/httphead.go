package egress

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// The request heads that pass are those that every server reads alike: the
// parser is strict (RFC 9112), and what goes upstream is written anew from what
// was checked. Answers come from a host that a rule allows: they are read
// leniently and passed on as they came.

const (
	// maxHead bounds a request's or an answer's head, in bytes.
	maxHead = 64 << 10
	// maxFields bounds the fields of a head.
	maxFields = 256
	// maxChunkLine bounds a chunk's size line with its extensions, in bytes.
	maxChunkLine = 4 << 10
)

// field is one header field. The name is as the sender wrote it.
type field struct{ name, value string }

// request is the checked head of an HTTP/1 request.
type request struct {
	method, target, proto string
	fields                []field
	length                int64 // of the body; -1 when chunked
	upgrade               bool  // asks to leave HTTP/1 for something that is let through
}

// is compares a field's name.
func (f field) is(name string) bool { return strings.EqualFold(f.name, name) }

// headError is a head that is refused: a status for the client and why.
type headError struct {
	status int
	why    string
}

func (e *headError) Error() string { return e.why }

func malformed(format string, args ...any) error {
	return &headError{400, fmt.Sprintf(format, args...)}
}

// readHead reads to the empty line that ends a head. It gives io.EOF when
// nothing at all came, and io.ErrUnexpectedEOF in the middle. What it read is
// returned with an error, too.
func readHead(r *bufio.Reader) ([]byte, error) {
	var head []byte
	for {
		line, err := r.ReadSlice('\n')
		if len(head)+len(line) > maxHead {
			return append(head, line...), &headError{431, fmt.Sprintf("the head is longer than %d bytes", maxHead)}
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

// parseRequest reads a head strictly. Errors are *headError.
func parseRequest(head []byte) (*request, error) {
	text, ok := strings.CutSuffix(string(head), "\r\n\r\n")
	if !ok {
		return nil, malformed("lines of a request must end in CR LF")
	}
	lines := strings.Split(text, "\r\n")
	if len(lines)-1 > maxFields {
		return nil, &headError{431, fmt.Sprintf("more than %d header fields", maxFields)}
	}
	parts := strings.Split(lines[0], " ")
	if len(parts) != 3 || !isToken(parts[0]) || len(parts[0]) > 32 || !isVisible(parts[1]) ||
		(parts[2] != "HTTP/1.1" && parts[2] != "HTTP/1.0") {
		return nil, malformed("a malformed request line")
	}
	q := &request{method: parts[0], target: parts[1], proto: parts[2]}
	for _, line := range lines[1:] {
		f, err := parseField(line)
		if err != nil {
			return nil, err
		}
		q.fields = append(q.fields, f)
	}
	if err := q.frame(); err != nil {
		return nil, err
	}
	q.filterUpgrade()
	return q, nil
}

// parseField reads "Name: value" strictly: no folding, no blank before the colon.
func parseField(line string) (field, error) {
	name, value, ok := strings.Cut(line, ":")
	if !ok || !isToken(name) {
		return field{}, malformed("a malformed header field")
	}
	value = strings.Trim(value, " \t")
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return field{}, malformed("a control character in a header field")
		}
	}
	return field{name, value}, nil
}

// frame finds where the body ends, and refuses what two servers may read
// differently (request smuggling).
func (q *request) frame() error {
	var lengths, codings []string
	for _, f := range q.fields {
		// Some servers take an underscore for a hyphen.
		switch strings.ToLower(strings.ReplaceAll(f.name, "_", "-")) {
		case "content-length":
			lengths = append(lengths, f.value)
		case "transfer-encoding":
			codings = append(codings, f.value)
		case "connection":
			for _, option := range strings.Split(f.value, ",") {
				switch strings.ToLower(strings.Trim(option, " \t")) {
				case "host", "content-length", "transfer-encoding":
					return malformed("a Connection field that removes %s", strings.TrimSpace(option))
				}
			}
		default:
			continue
		}
		if strings.Contains(f.name, "_") {
			return malformed("a header field named %s", f.name)
		}
	}
	switch {
	case len(codings) > 0 && len(lengths) > 0:
		return malformed("both Transfer-Encoding and Content-Length")
	case len(codings) > 1 || len(lengths) > 1:
		return malformed("Transfer-Encoding or Content-Length stands twice")
	case len(codings) == 1:
		if !strings.EqualFold(codings[0], "chunked") || q.proto != "HTTP/1.1" {
			return malformed("a Transfer-Encoding other than chunked in HTTP/1.1")
		}
		q.length = -1
	case len(lengths) == 1:
		n, err := parseLength(lengths[0])
		if err != nil {
			return err
		}
		q.length = n
	}
	return nil
}

// parseLength reads a Content-Length: digits only.
func parseLength(s string) (int64, error) {
	if s == "" || len(s) > 18 || strings.Trim(s, "0123456789") != "" {
		return 0, malformed("a malformed Content-Length")
	}
	return strconv.ParseInt(s, 10, 64)
}

// filterUpgrade takes out the offers to go on in a protocol that hides later
// authorities: HTTP/2 (clients send its requests over the same connection
// afterwards; a client that wants it starts with its preface) and TLS. A client
// must cope with a server that ignores an offer. Others (WebSocket) stay.
func (q *request) filterUpgrade() {
	var keep []string
	for _, f := range q.fields {
		if !f.is("Upgrade") {
			continue
		}
		for _, p := range strings.Split(f.value, ",") {
			p = strings.Trim(p, " \t")
			low := strings.ToLower(p)
			if p == "" || strings.HasPrefix(low, "h2") || strings.HasPrefix(low, "http/2") || strings.HasPrefix(low, "tls") {
				continue
			}
			keep = append(keep, p)
		}
	}
	q.upgrade = len(keep) > 0
	out := q.fields[:0]
	wrote := false
	for _, f := range q.fields {
		switch {
		case f.is("HTTP2-Settings"):
			continue
		case f.is("Upgrade"):
			if wrote || len(keep) == 0 {
				continue
			}
			f.value, wrote = strings.Join(keep, ", "), true
		case f.is("Connection"):
			var options []string
			for _, o := range strings.Split(f.value, ",") {
				o = strings.Trim(o, " \t")
				if strings.EqualFold(o, "HTTP2-Settings") || strings.EqualFold(o, "upgrade") && len(keep) == 0 || o == "" {
					continue
				}
				options = append(options, o)
			}
			if len(options) == 0 {
				continue
			}
			f.value = strings.Join(options, ", ")
		}
		out = append(out, f)
	}
	q.fields = out
}

// authority is what the request says it is for. Errors are *headError: none, or
// two that differ.
func (q *request) authority() (string, error) {
	var hosts []string
	for _, f := range q.fields {
		if strings.EqualFold(strings.ReplaceAll(f.name, "_", "-"), "Host") {
			if strings.Contains(f.name, "_") {
				return "", malformed("a header field named %s", f.name)
			}
			hosts = append(hosts, f.value)
		}
	}
	if len(hosts) > 1 {
		return "", malformed("two Host fields")
	}
	if q.method == "CONNECT" {
		return "", &headError{403, "CONNECT is not let through: connect to the name itself, bawn needs no proxy"}
	}
	switch {
	case strings.HasPrefix(q.target, "/"), q.target == "*":
		if len(hosts) == 0 || hosts[0] == "" {
			return "", &headError{403, "the request names no host"}
		}
		return hosts[0], nil
	default: // absolute form
		scheme, rest, ok := strings.Cut(q.target, "://")
		if !ok || !strings.EqualFold(scheme, "http") {
			return "", malformed("a request target that is neither a path nor an http address")
		}
		end := strings.IndexAny(rest, "/?#")
		if end < 0 {
			end = len(rest)
		}
		if len(hosts) == 1 && !strings.EqualFold(hosts[0], rest[:end]) {
			return "", &headError{403, "the request target and the Host field name different hosts"}
		}
		return rest[:end], nil
	}
}

// splitAuthority takes HOST[:PORT] apart: lower case, without a final dot. port
// is 0 when there is none.
func splitAuthority(s string) (host string, port uint16, err error) {
	bad := malformed("a malformed host in the request: %.80q", s)
	host = s
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return "", 0, bad
		}
		a, err := netip.ParseAddr(s[1:end])
		if err != nil || !a.Is6() || a.Zone() != "" {
			return "", 0, bad
		}
		host, s = a.String(), s[end+1:]
	} else if i := strings.IndexByte(s, ':'); i >= 0 {
		host, s = s[:i], s[i:]
	} else {
		s = ""
	}
	if s != "" {
		digits, ok := strings.CutPrefix(s, ":")
		if !ok || strings.Trim(digits, "0123456789") != "" || len(digits) > 5 {
			return "", 0, bad
		}
		if digits != "" { // "host:" is the default port
			n, err := strconv.ParseUint(digits, 10, 16)
			if err != nil || n == 0 {
				return "", 0, bad
			}
			port = uint16(n)
		}
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "" {
		return "", 0, bad
	}
	for i := range len(host) {
		switch c := host[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '.', c == '_', c == ':':
		default:
			return "", 0, bad
		}
	}
	return host, port, nil
}

// bytes is the head as it goes upstream.
func (q *request) bytes() []byte {
	b := []byte(q.method)
	b = append(b, ' ')
	b = append(b, q.target...)
	b = append(b, ' ')
	b = append(b, q.proto...)
	b = append(b, "\r\n"...)
	for _, f := range q.fields {
		b = append(b, f.name...)
		b = append(b, ": "...)
		b = append(b, f.value...)
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...)
}

// answer is what matters of an answer's head.
type answer struct {
	status int
	length int64 // -1 chunked, -2 until the connection ends
}

// Lengths of bodies that no number says.
const (
	lengthChunked  = -1
	lengthUntilEOF = -2
)

// parseAnswer reads an answer's head leniently. method is the request's. An
// error means: no HTTP/1, pass on what comes until it ends.
func parseAnswer(head []byte, method string) (answer, error) {
	lines := strings.Split(strings.ReplaceAll(string(head), "\r\n", "\n"), "\n")
	proto, rest, _ := strings.Cut(lines[0], " ")
	if !strings.HasPrefix(proto, "HTTP/1.") || len(rest) < 3 {
		return answer{}, errors.New("not an HTTP/1 answer")
	}
	status, err := strconv.Atoi(rest[:3])
	if err != nil || status < 100 {
		return answer{}, errors.New("not an HTTP/1 answer")
	}
	a := answer{status: status, length: lengthUntilEOF}
	lengths, codings := map[string]bool{}, ""
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "content-length":
			lengths[value] = true
		case "transfer-encoding":
			codings = strings.ToLower(value)
		}
	}
	switch {
	case method == "HEAD" || status < 200 || status == 204 || status == 304:
		a.length = 0
	case strings.HasSuffix(codings, "chunked"):
		a.length = lengthChunked
	case codings != "":
	case len(lengths) == 1:
		for text := range lengths {
			n, err := parseLength(text)
			if err != nil {
				return answer{}, err
			}
			a.length = n
		}
	case len(lengths) > 1:
		return answer{}, errors.New("an answer of two lengths")
	}
	return a, nil
}

// isToken says whether s is a token of RFC 9110, 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		if !isTokenByte(s[i]) {
			return false
		}
	}
	return s != ""
}

func isTokenByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// isVisible says whether s has no blank and no control character.
func isVisible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return s != ""
}

// looksHTTP says whether the first bytes of a client are an HTTP request, in the
// loosest way that some server reads: blanks first, any blank between the words,
// any method, however long. maybe: more bytes are needed. A whole line without an
// HTTP version is another protocol (SMTP, Redis, an SSH banner).
func looksHTTP(b []byte) (yes, maybe bool) {
	line := bytes.TrimLeft(b, " \t\v\f\r\n")
	n := wordLength(line)
	digits := bytes.ContainsAny(line[:n], "0123456789")
	switch {
	case n == len(line):
		return false, true // a word so far
	case n == 0 || strings.IndexByte(" \t\v\f\r", line[n]) < 0:
		return false, false
	}
	end := bytes.IndexByte(line, '\n')
	if end < 0 {
		// A line with a NUL is the Git protocol's, if its first word cannot be a
		// method; it has no line end to wait for.
		return false, !digits || bytes.IndexByte(line, 0) < 0
	}
	words := bytes.FieldsFunc(line[:end], func(r rune) bool { return strings.ContainsRune(" \t\v\f\r", r) })
	for _, w := range words[1:] {
		if len(w) >= 5 && bytes.EqualFold(w[:5], []byte("HTTP/")) {
			return true, false
		}
	}
	// HTTP/0.9 has no version. Let the parser refuse it. Without a host in it, it is
	// taken for that only as it is written: memcached has "get /key".
	return len(words) == 2 && (isMethod(string(words[0])) && words[1][0] == '/' ||
		isMethod(strings.ToUpper(string(words[0]))) && bytes.HasPrefix(bytes.ToLower(words[1]), []byte("http"))), false
}

// wordLength is how many bytes at the beginning are of a token.
func wordLength(b []byte) int {
	n := 0
	for n < len(b) && isTokenByte(b[n]) {
		n++
	}
	return n
}

// isMethod knows the methods that servers know.
func isMethod(word string) bool {
	switch word {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT":
		return true
	}
	return false
}
