package policy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
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
//   - A parameter (;v=1) belongs to its segment for one server, and is dropped by another; so is
//     what follows an encoded ? or #, and a dot or space at the end. Compatibility forms of
//     letters (fullwidth) are letters for some. A deny rule sees all readings.
//   - A slash at the end means nothing.
//
// Allow rules compare exactly, deny rules in any case.

// maxPath bounds the path of a request that is judged, in bytes: as it is written, and in its canonical form,
// which may be longer since it encodes more characters.
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
	if 3*len(escaped) > maxPath && len(escapePath(segments)) > maxPath {
		return nil, fmt.Errorf("the path is longer than %d bytes once it is percent-encoded", maxPath)
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
		if part == "" || part[0] == ';' {
			return "", errors.New("the path has an empty segment")
		}
		if name := mainPart(part); isDots(name) {
			return "", fmt.Errorf("the path has the segment %q", name)
		}
	}
	return text, checkCompatible(text)
}

// lookalikes are what the code pages of Windows replace by a slash or backslash, and no
// normalization does.
const lookalikes = "\u2044\u2215\u2216"

// checkCompatible refuses a segment that servers which replace characters by their compatibility
// forms (Unicode's NFKC), as some do with all that they read, take apart in another way.
func checkCompatible(text string) error {
	compatible := norm.NFKC.String(text)
	apart := strings.ContainsAny(text, lookalikes)
	for _, c := range []string{"/", `\`, "%"} {
		apart = apart || strings.Count(compatible, c) > strings.Count(text, c)
	}
	for part := range strings.SplitSeq(compatible, "/") {
		apart = apart || isDots(mainPart(part))
	}
	if apart {
		return errors.New("the path has a character that some servers replace by a slash, a dot or a percent sign")
	}
	return nil
}

// mainPart returns a segment without a parameter, and without what stands behind a question mark
// or number sign, for servers that decode a path before they take it apart.
func mainPart(seg string) string {
	if i := strings.IndexAny(seg, ";?#"); i >= 0 {
		return seg[:i]
	}
	return seg
}

// isDots reports whether a segment means this folder or its parent. Windows drops a space
// behind it.
func isDots(seg string) bool {
	seg = strings.TrimRightFunc(seg, unicode.IsSpace)
	return seg == "." || seg == ".."
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

// readings returns the ways in which servers read a path: each of the changes below is made or
// not. There are at most 32.
func readings(segments []string) [][]string {
	all := [][]string{segments}
	for _, read := range []func([]string) []string{splitSegments, mainParts, compatibleForms, mainParts, trimmedSegments} {
		for _, r := range all[:len(all):len(all)] {
			if changed := read(r); !slices.Equal(changed, r) {
				all = append(all, changed)
			}
		}
	}
	return all
}

// splitSegments ends a segment at an encoded slash.
func splitSegments(segments []string) (out []string) {
	for _, seg := range segments {
		out = append(out, strings.Split(seg, "/")...)
	}
	return out
}

// mainParts takes off what mainPart does. A segment with an encoded slash is left to splitSegments.
func mainParts(segments []string) []string {
	return changed(segments, func(seg string) string {
		if strings.Contains(seg, "/") {
			return seg
		}
		return mainPart(seg)
	})
}

// compatibleForms replaces characters by their compatibility forms.
func compatibleForms(segments []string) []string { return changed(segments, norm.NFKC.String) }

// trimmedSegments takes off dots and spaces at the ends of segments, as Windows does.
func trimmedSegments(segments []string) []string {
	trim := func(seg string) string {
		return strings.TrimRightFunc(seg, func(c rune) bool { return c == '.' || unicode.IsSpace(c) })
	}
	if n := len(segments) - 1; n >= 0 && trim(segments[n]) == "" {
		segments = segments[:n]
	}
	return changed(segments, trim)
}

// changed returns the segments, each changed unless nothing would be left of it.
func changed(segments []string, change func(string) string) []string {
	out := make([]string, len(segments))
	for i, seg := range segments {
		out[i] = cmp.Or(change(seg), seg)
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
