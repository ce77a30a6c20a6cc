package httpwire

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Request is the checked head of an HTTP/1 request.
type Request struct {
	Method, Target, Proto string
	Fields                []Field
	Length                int64 // of the body, in bytes, or LengthChunked
	Upgrade               bool  // it asks to leave HTTP/1 for something that is let through
	last                  bool  // see SetLast
}

// ParseRequest reads a head strictly. Errors are *Error.
func ParseRequest(head []byte) (*Request, error) {
	text, ok := strings.CutSuffix(string(head), "\r\n\r\n")
	if !ok {
		return nil, Malformed("lines of a request must end in CR LF")
	}
	lines := strings.Split(text, "\r\n")
	if len(lines)-1 > MaxFields {
		return nil, &Error{431, fmt.Sprintf("more than %d header fields", MaxFields)}
	}
	parts := strings.Split(lines[0], " ")
	if len(parts) != 3 || !isToken(parts[0]) || len(parts[0]) > 32 || !isVisible(parts[1]) ||
		(parts[2] != "HTTP/1.1" && parts[2] != "HTTP/1.0") {
		return nil, Malformed("a malformed request line")
	}
	q := &Request{Method: parts[0], Target: parts[1], Proto: parts[2]}
	for _, line := range lines[1:] {
		f, err := parseField(line)
		if err != nil {
			return nil, err
		}
		q.Fields = append(q.Fields, f)
	}
	if err := q.frame(); err != nil {
		return nil, err
	}
	q.filterUpgrade(carriesNoRequests)
	return q, nil
}

// parseField reads "Name: value" strictly: no folding, no blank before the colon.
func parseField(line string) (Field, error) {
	name, value, ok := strings.Cut(line, ":")
	if !ok || !isToken(name) {
		return Field{}, Malformed("a malformed header field")
	}
	value = strings.Trim(value, " \t")
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return Field{}, Malformed("a control character in a header field")
		}
	}
	return Field{name, value}, nil
}

// frame finds where the body ends, and refuses what two servers may read
// differently (request smuggling).
func (q *Request) frame() error {
	var lengths, codings []string
	for _, f := range q.Fields {
		switch f.canonical() {
		case "content-length":
			lengths = append(lengths, f.Value)
		case "transfer-encoding":
			codings = append(codings, f.Value)
		case "connection":
			for _, option := range strings.Split(f.Value, ",") {
				switch strings.ToLower(strings.Trim(option, " \t")) {
				case "host", "content-length", "transfer-encoding":
					return Malformed("a Connection field that removes %s", strings.TrimSpace(option))
				}
			}
		default:
			continue
		}
		if strings.Contains(f.Name, "_") {
			return Malformed("a header field named %s", f.Name)
		}
	}
	switch {
	case len(codings) > 0 && len(lengths) > 0:
		return Malformed("both Transfer-Encoding and Content-Length")
	case len(codings) > 1 || len(lengths) > 1:
		return Malformed("Transfer-Encoding or Content-Length stands twice")
	case len(codings) == 1:
		if !strings.EqualFold(codings[0], "chunked") || q.Proto != "HTTP/1.1" {
			return Malformed("a Transfer-Encoding other than chunked in HTTP/1.1")
		}
		q.Length = LengthChunked
	case len(lengths) == 1:
		n, err := parseLength(lengths[0])
		if err != nil {
			return err
		}
		q.Length = n
	}
	return nil
}

// parseLength reads a Content-Length: digits only.
func parseLength(s string) (int64, error) {
	if s == "" || len(s) > 18 || strings.Trim(s, "0123456789") != "" {
		return 0, Malformed("a malformed Content-Length")
	}
	return strconv.ParseInt(s, 10, 64)
}

// filterUpgrade removes the offers to continue in a protocol that hides later
// authorities: HTTP/2 (clients send its requests over the same connection
// afterwards; a client that wants it starts with its preface), TLS, and tunnels
// (connect-udp, RFC 9298). A client
// must cope with a server that ignores an offer. Offers for which passes reports true stay.
func (q *Request) filterUpgrade(passes func(protocol string) bool) {
	offers := q.offers(passes)
	q.Upgrade = len(offers) > 0
	out := q.Fields[:0]
	wrote := false
	for _, f := range q.Fields {
		switch {
		case f.Is("HTTP2-Settings"):
			continue
		case f.Is("Upgrade"):
			if wrote || !q.Upgrade {
				continue
			}
			f.Value, wrote = strings.Join(offers, ", "), true
		case f.Is("Connection"):
			if f.Value = keptOptions(f.Value, q.Upgrade); f.Value == "" {
				continue
			}
		}
		out = append(out, f)
	}
	q.Fields = out
}

// carriesNoRequests reports whether no requests can follow in a protocol, which is in lower case.
func carriesNoRequests(protocol string) bool {
	return !slices.ContainsFunc([]string{"h2", "http/2", "tls", "connect-"}, func(p string) bool { return strings.HasPrefix(protocol, p) })
}

// UpgradeOnlyTo removes all offers to upgrade but those of one protocol, which is in lower case.
func (q *Request) UpgradeOnlyTo(protocol string) {
	q.filterUpgrade(func(p string) bool { return p == protocol })
}

// offers lists the protocols to upgrade to that are let through.
func (q *Request) offers(passes func(protocol string) bool) (keep []string) {
	for _, f := range q.Fields {
		if !f.Is("Upgrade") {
			continue
		}
		for p := range strings.SplitSeq(f.Value, ",") {
			if p = strings.Trim(p, " \t"); p != "" && passes(strings.ToLower(p)) {
				keep = append(keep, p)
			}
		}
	}
	return keep
}

// keptOptions is the value of a Connection field without the options that belong
// to the offers taken out.
func keptOptions(value string, upgrade bool) string {
	var keep []string
	for o := range strings.SplitSeq(value, ",") {
		o = strings.Trim(o, " \t")
		if o == "" || strings.EqualFold(o, "HTTP2-Settings") || strings.EqualFold(o, "upgrade") && !upgrade {
			continue
		}
		keep = append(keep, o)
	}
	return strings.Join(keep, ", ")
}

// SetLast asks the server for the connection's end after the answer.
func (q *Request) SetLast() { q.last = true }

// Bytes returns the head as it goes upstream.
func (q *Request) Bytes() []byte {
	b := []byte(q.Method)
	b = append(b, ' ')
	b = append(b, q.Target...)
	b = append(b, ' ')
	b = append(b, q.Proto...)
	b = append(b, "\r\n"...)
	if q.last {
		b = append(b, "Connection: close\r\n"...)
	}
	for _, f := range q.Fields {
		if q.last && (f.Is("Connection") || f.Is("Keep-Alive") || f.Is("Proxy-Connection")) {
			continue
		}
		b = append(b, f.Name...)
		b = append(b, ": "...)
		b = append(b, f.Value...)
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...)
}
