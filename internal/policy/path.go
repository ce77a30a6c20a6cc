package policy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Paths of URLs.
//
// Theory of operation. A rule about requests is worth what its reading of a path is worth: if
// the server reads /v1/%2e%2e/admin as /admin, a rule that allows /v1/** opens /admin. So a path
// is taken apart here once, and nothing is guessed:
//
//   - What servers are known to read in different ways is refused: dot segments and empty
//     segments, written or encoded, also before a parameter (/..;/), backslashes, control
//     characters, bytes that are not UTF-8, and encodings of encodings (%252e).
//   - An encoded slash is part of a segment for one server and ends it for another, and clients
//     need it (scoped packages, projects of GitLab). It is never matched by *, only by a rule
//     that writes it, or by **, below which both readings lie. A deny rule sees both readings.
//   - A parameter (;v=1) belongs to its segment for one server, and is dropped by another. A deny
//     rule sees both readings.
//   - A slash at the end means nothing.
//
// Allow rules compare exactly, deny rules in any case.

// maxPath bounds the path of a request that is judged, in bytes.
const maxPath = 8 << 10

// parsePath returns the decoded segments of an escaped path, without those of a slash at the
// end. The error says why servers may read the path in different ways.
func parsePath(escaped string) ([]string, error) {
	switch {
	case len(escaped) > maxPath:
		return nil, fmt.Errorf("the path is longer than %d bytes", maxPath)
	case escaped == "" || escaped[0] != '/':
		return nil, errors.New("the path does not begin with a slash")
	}
	rest := strings.TrimPrefix(escaped, "/")
	if rest == "" {
		return nil, nil
	}
	raw := strings.Split(rest, "/")
	if raw[len(raw)-1] == "" {
		raw = raw[:len(raw)-1]
	}
	segments := make([]string, 0, len(raw))
	for _, r := range raw {
		seg, err := decodeSegment(r)
		if err != nil {
			return nil, err
		}
		segments = append(segments, seg)
	}
	return segments, nil
}

// decodeSegment undoes the percent-encoding of one segment, and refuses one that is ambiguous.
func decodeSegment(raw string) (string, error) {
	seg := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch {
		case c <= ' ' || c >= 0x7f || c == '?' || c == '#':
			return "", fmt.Errorf("the path has the byte %#02x, which must be percent-encoded", c)
		case c == '%':
			b, ok := decodeByte(raw[i:])
			if !ok {
				return "", errors.New("the path has a malformed percent-encoding")
			}
			c, i = b, i+2
		}
		seg = append(seg, c)
	}
	text := string(seg)
	for i, c := range seg {
		if _, again := decodeByte(text[i:]); again {
			return "", errors.New("the path is percent-encoded twice")
		}
		switch {
		case c < ' ' || c == 0x7f:
			return "", errors.New("the path has a control character")
		case c == '\\':
			return "", errors.New("the path has a backslash")
		}
	}
	if !utf8.ValidString(text) {
		return "", errors.New("the path is not UTF-8")
	}
	for part := range strings.SplitSeq(text, "/") {
		switch name, _, _ := strings.Cut(part, ";"); name {
		case "":
			return "", errors.New("the path has an empty segment")
		case ".", "..":
			return "", fmt.Errorf("the path has the segment %q", name)
		}
	}
	return text, nil
}

// decodeByte decodes the percent-encoding that a text begins with.
func decodeByte(s string) (byte, bool) {
	if len(s) < 3 || s[0] != '%' {
		return 0, false
	}
	b, err := strconv.ParseUint(s[1:3], 16, 8)
	return byte(b), err == nil
}

// escapePath returns the canonical form of a path: only what must be percent-encoded is.
func escapePath(segments []string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()+,;=:@" // pchar of RFC 3986, without the wildcard
	var b strings.Builder
	for _, seg := range segments {
		b.WriteByte('/')
		if seg == "*" || seg == "**" {
			b.WriteString(seg)
			continue
		}
		for i := range len(seg) {
			if c := seg[i]; strings.IndexByte(plain, c) >= 0 {
				b.WriteByte(c)
			} else {
				fmt.Fprintf(&b, "%%%02X", c)
			}
		}
	}
	if b.Len() == 0 {
		return "/"
	}
	return b.String()
}

// readings returns the ways in which servers read a path: an encoded slash ends a segment or
// not, a parameter counts or not.
func readings(segments []string) [][]string {
	all := [][]string{segments}
	if joined := strings.Join(segments, "\x00"); !strings.ContainsAny(joined, "/;") {
		return all
	}
	var split []string
	for _, seg := range segments {
		split = append(split, strings.Split(seg, "/")...)
	}
	return append(all, split, withoutParameters(segments), withoutParameters(split))
}

func withoutParameters(segments []string) []string {
	out := make([]string, len(segments))
	for i, seg := range segments {
		if semicolon := strings.IndexByte(seg, ';'); semicolon >= 0 && !strings.Contains(seg, "/") {
			seg = seg[:semicolon]
		}
		out[i] = seg
	}
	return out
}

// matchPath reports whether a path matches the pattern of a rule: * is one segment without an
// encoded slash, ** any number of segments. same compares a segment with one of the pattern.
// The time is at most the product of both lengths.
func matchPath(pattern, path []string, same func(a, b string) bool) bool {
	p, s := 0, 0
	star, mark := -1, 0 // of the last **: its place, and the segment from which the rest is tried
	for s < len(path) {
		switch {
		case p < len(pattern) && pattern[p] == "**":
			star, mark = p, s
			p++
		case p < len(pattern) && (pattern[p] == "*" && !strings.Contains(path[s], "/") || pattern[p] != "*" && same(pattern[p], path[s])):
			p++
			s++
		case star >= 0:
			mark++
			p, s = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == "**" {
		p++
	}
	return p == len(pattern)
}
