package httpwire

import (
	"net/netip"
	"strconv"
	"strings"
)

// Authority returns the HOST[:PORT] that the request is for. Errors are *Error: none, two
// that differ, or a request that asks for a tunnel.
func (q *Request) Authority() (string, error) {
	host, named, err := q.host()
	if err != nil {
		return "", err
	}
	if q.Method == "CONNECT" {
		return "", ErrConnect
	}
	if strings.HasPrefix(q.Target, "/") || q.Target == "*" {
		if host == "" {
			return "", ErrNoHost
		}
		return host, nil
	}
	scheme, rest, ok := strings.Cut(q.Target, "://") // absolute form
	if !ok || !strings.EqualFold(scheme, "http") {
		return "", Malformed("a request target that is neither a path nor an http address")
	}
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		rest = rest[:end]
	}
	if named && !strings.EqualFold(host, rest) {
		return "", &Error{403, "the request target and the Host field name different hosts"}
	}
	return rest, nil
}

// Path returns the path that the request is for, with the query, whether its target is a path
// or a URL. It is not checked.
func (q *Request) Path() string {
	_, rest, absolute := strings.Cut(q.Target, "://")
	if !absolute || strings.HasPrefix(q.Target, "/") {
		return q.Target
	}
	end := strings.IndexAny(rest, "/?#")
	switch {
	case end < 0:
		return "/"
	case rest[end] == '/':
		return rest[end:]
	}
	return "/" + rest[end:]
}

// Requests of which no authority can be compared with the connection's.
var (
	ErrConnect = &Error{403, "CONNECT is not allowed: connect to the host itself; no proxy is needed in a sandbox"}
	ErrNoHost  = &Error{403, "the request names no host"}
)

// host returns the value of the Host field; named reports whether there is one.
func (q *Request) host() (value string, named bool, err error) {
	for _, f := range q.Fields {
		if f.canonical() != "host" {
			continue
		}
		if strings.Contains(f.Name, "_") {
			return "", false, Malformed("a header field named %s", f.Name)
		}
		if named {
			return "", false, Malformed("two Host fields")
		}
		value, named = f.Value, true
	}
	return value, named, nil
}

// SplitAuthority takes HOST[:PORT] apart: lower case, without a final dot. port is
// 0 when there is none. Errors are *Error.
func SplitAuthority(s string) (host string, port uint16, err error) {
	bad := Malformed("a malformed host in the request: %.80q", s)
	host, rest, ok := cutHost(s)
	if !ok {
		return "", 0, bad
	}
	if rest != "" {
		if port, ok = parsePort(rest); !ok {
			return "", 0, bad
		}
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if !isHost(host) {
		return "", 0, bad
	}
	return host, port, nil
}

// cutHost cuts an authority behind its host; an address in brackets comes without
// them.
func cutHost(s string) (host, rest string, ok bool) {
	if !strings.HasPrefix(s, "[") {
		if i := strings.IndexByte(s, ':'); i >= 0 {
			return s[:i], s[i:], true
		}
		return s, "", true
	}
	end := strings.IndexByte(s, ']')
	if end < 0 {
		return "", "", false
	}
	a, err := netip.ParseAddr(s[1:end])
	if err != nil || !a.Is6() || a.Zone() != "" {
		return "", "", false
	}
	return a.String(), s[end+1:], true
}

// parsePort reads ":PORT"; ":" alone is the default port, 0.
func parsePort(s string) (uint16, bool) {
	digits, ok := strings.CutPrefix(s, ":")
	if !ok || strings.Trim(digits, "0123456789") != "" || len(digits) > 5 {
		return 0, false
	}
	if digits == "" {
		return 0, true
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	return uint16(n), err == nil && n != 0
}

// isHost reports whether s has only bytes that names and addresses have.
func isHost(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '.', c == '_', c == ':':
		default:
			return false
		}
	}
	return s != ""
}
