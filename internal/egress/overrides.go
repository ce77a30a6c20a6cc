package egress

import (
	"iter"
	"net/url"
	"slices"
	"strings"
)

// What asks a server for another request than the one that is judged.
//
// Theory of operation. Frameworks and reverse proxies take the method or the path of a request
// from a header or a field of the query, if they are told to. No list has all the names, so names are
// judged by their words; names that are known to mean a method are believed whatever their value,
// others only if the value is the name of a method.

// methodHeaders ask many frameworks for another method than the request's. In lower case.
var methodHeaders = []string{"x-http-method-override", "x-http-method", "x-method-override"}

// methodField is the query field that asks frameworks for another method.
const methodField = "_method"

// preflightHeader names the method of a later request (Fetch, CORS), in lower case.
const preflightHeader = "access-control-request-method"

// knownMethods are those that a value of a header or field is compared with.
var knownMethods = []string{
	"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT",
	"COPY", "MOVE", "MKCOL", "PROPFIND", "PROPPATCH", "LOCK", "UNLOCK", "REPORT", "SEARCH", "PURGE", "LINK", "UNLINK",
}

// A header whose name has one of otherWords and one of pathWords asks for another path
// (X-Original-URL, X-Forwarded-Prefix, X-OriginalURL), as do those in pathHeaders: the target of WebDAV's COPY
// and MOVE (RFC 4918, 10.3), the source of a copy in object stores, and what gateways of frameworks (CGI,
// Rack, Azure) take for the path or for its place on the disk. In lower case.
var (
	otherWords  = []string{"original", "rewrite", "override", "forwarded", "forward", "envoy", "request", "proxy", "real", "target", "upstream", "backend", "matched", "invoke", "unencoded"}
	pathWords   = []string{"url", "uri", "path", "pathname", "prefix", "route"}
	pathHeaders = []string{
		"destination", "script-name", "x-script-name", "path-info", "x-path-info", "path-translated", "x-http-destinationurl", "x-amz-copy-source", "x-amz-rename-source", "x-goog-copy-source", "x-ms-copy-source", "x-ms-rename-source", "x-copy-from", "x-oss-copy-source",
		"x-sendfile-type", "x-accel-mapping",
	}
)

// overrides returns the other methods that a request asks for, and a header that asks for
// another path.
func overrides(query string, header iter.Seq2[string, string]) (methods []string, hidden string) {
	add := func(m string, known bool) {
		if m = strings.TrimSpace(m); m != "" && (!known || slices.Contains(knownMethods, strings.ToUpper(m))) {
			methods = append(methods, m)
		}
	}
	for name, value := range header {
		name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
		if isPathHeader(name) {
			hidden = name
		}
		if strings.Contains(name, "method") && name != preflightHeader {
			for m := range strings.SplitSeq(value, ",") {
				add(m, !slices.Contains(methodHeaders, name))
			}
		}
	}
	for field := range strings.FieldsFuncSeq(query, func(c rune) bool { return c == '&' || c == ';' }) {
		name, value, _ := strings.Cut(field, "=")
		if name = strings.ToLower(decoded(name)); strings.Contains(name, "method") {
			add(decoded(value), name != methodField)
		}
	}
	return methods, hidden
}

// isPathHeader reports whether a header, in lower case, asks for another path.
func isPathHeader(name string) bool {
	words := strings.Split(name, "-")
	return slices.Contains(pathHeaders, name) || containsAny(words, otherWords) && containsAny(words, pathWords) || slices.ContainsFunc(words, isTwoWords)
}

func containsAny(words, of []string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return slices.Contains(of, w) })
}

// isTwoWords reports whether a word is one of otherWords and one of pathWords together.
func isTwoWords(word string) bool {
	return slices.ContainsFunc(otherWords, func(o string) bool {
		rest, ok := strings.CutPrefix(word, o)
		return ok && slices.Contains(pathWords, rest)
	})
}

// decoded undoes the encoding of a part of a query; what is no encoding stays.
func decoded(s string) string {
	if u, err := url.QueryUnescape(s); err == nil {
		return u
	}
	return s
}
