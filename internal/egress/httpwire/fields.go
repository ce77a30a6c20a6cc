package httpwire

import (
	"fmt"
	"strings"
)

// HTTP/2 sends a request as fields: first the pseudo-fields, whose names begin with a
// colon, for what stands in the first line of HTTP/1; then the others (RFC 9113,
// section 8). They are judged as strictly as the heads of HTTP/1, for many servers
// write them anew as one.

// FieldsRequest is the checked head of an HTTP/2 request.
type FieldsRequest struct {
	Method    string
	Target    string // the path, with the query
	Authority string // HOST[:PORT]
	Length    int64  // of the body, as announced; -1 if it is not
}

// ParseFields reads the fields of an HTTP/2 request strictly. Errors are *Error.
func ParseFields(fields []Field) (FieldsRequest, error) {
	pseudo, rest, err := cutPseudo(fields)
	if err != nil {
		return FieldsRequest{}, err
	}
	q := FieldsRequest{Method: pseudo[":method"], Target: pseudo[":path"], Authority: pseudo[":authority"], Length: -1}
	if err := checkPseudo(pseudo); err != nil {
		return q, err
	}
	host := false
	for _, f := range rest {
		if err := checkField(f); err != nil {
			return q, err
		}
		switch f.Name {
		case "host":
			if host || q.Authority != "" && !strings.EqualFold(q.Authority, f.Value) {
				return q, &Error{403, "the :authority and Host fields name different hosts, or a field stands twice"}
			}
			host, q.Authority = true, f.Value
		case "content-length":
			if q.Length >= 0 {
				return q, Malformed("Content-Length stands twice")
			}
			if q.Length, err = parseLength(f.Value); err != nil {
				return q, err
			}
		}
	}
	if q.Authority == "" {
		return q, ErrNoHost
	}
	return q, nil
}

// cutPseudo takes the pseudo-fields off: each once, and before all others.
func cutPseudo(fields []Field) (pseudo map[string]string, rest []Field, err error) {
	if len(fields) > MaxFields {
		return nil, nil, &Error{431, fmt.Sprintf("more than %d header fields", MaxFields)}
	}
	pseudo = make(map[string]string, 4)
	for len(fields) > 0 && strings.HasPrefix(fields[0].Name, ":") {
		f := fields[0]
		fields = fields[1:]
		switch f.Name {
		case ":method", ":scheme", ":authority", ":path":
		case ":protocol":
			return nil, nil, ErrConnect
		default:
			return nil, nil, Malformed("an unknown pseudo-field %.40q", f.Name)
		}
		if _, twice := pseudo[f.Name]; twice {
			return nil, nil, Malformed("the pseudo-field %s stands twice", f.Name)
		}
		pseudo[f.Name] = f.Value
	}
	return pseudo, fields, nil
}

// checkPseudo judges the pseudo-fields but the authority.
func checkPseudo(pseudo map[string]string) error {
	method, path := pseudo[":method"], pseudo[":path"]
	switch {
	case method == "CONNECT":
		return ErrConnect
	case !isToken(method) || len(method) > 32:
		return Malformed("a malformed :method")
	case pseudo[":scheme"] != "http":
		return Malformed("a :scheme other than http, in the clear")
	case path == "*" && method == "OPTIONS":
	case !isVisible(path) || path[0] != '/':
		return Malformed("a :path that is no path")
	}
	return nil
}

// CheckTrailerFields judges the fields behind a body of HTTP/2. Errors are *Error.
func CheckTrailerFields(fields []Field) error {
	if len(fields) > MaxFields {
		return &Error{431, fmt.Sprintf("more than %d trailer fields", MaxFields)}
	}
	for _, f := range fields {
		if err := checkField(f); err != nil {
			return err
		}
		switch f.canonical() {
		case "host", "content-length", "te", "trailer":
			return Malformed("a trailer with %s", f.Name)
		}
	}
	return nil
}

// checkField judges a field that is no pseudo-field.
func checkField(f Field) error {
	if !isToken(f.Name) || f.Name != strings.ToLower(f.Name) {
		return Malformed("a malformed or misplaced field %.40q", f.Name)
	}
	for i := range len(f.Value) {
		if c := f.Value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return Malformed("a control character in a header field")
		}
	}
	switch f.canonical() {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade", "http2-settings":
		return Malformed("the field %s, which HTTP/2 does not have", f.Name)
	case "te":
		if !strings.EqualFold(f.Value, "trailers") {
			return Malformed("a TE field other than trailers")
		}
	case "host", "content-length":
		if strings.Contains(f.Name, "_") {
			return Malformed("a header field named %s", f.Name)
		}
	}
	return nil
}
