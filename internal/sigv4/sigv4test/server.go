// Package sigv4test is a server for tests that verifies signatures of AWS, by a computation of its own, and
// keeps objects as S3 does.
package sigv4test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// maxSkew is how far the time of a request may be from the server's.
const maxSkew = 15 * time.Minute

// Server verifies requests and keeps objects, by path. Other services than S3 are answered with what was
// sent. The fields are set before the first request.
type Server struct {
	ID, Secret, Token string // the key that may sign

	mu      sync.Mutex
	objects map[string][]byte
	seen    []Seen
}

// Seen is a request that came, and why it was refused; nil: it was not.
type Seen struct {
	Request *http.Request
	Body    []byte // without the format in which it was sent
	Err     error
}

// Last returns the last request; the zero value: none came.
func (s *Server) Last() Seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.seen) == 0 {
		return Seen{}
	}
	return s.seen[len(s.seen)-1]
}

// Count returns the number of requests.
func (s *Server) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.seen)
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(r.Body)
	var body []byte
	if err == nil {
		body, err = s.Verify(r, raw, time.Now())
	}
	s.mu.Lock()
	s.seen = append(s.seen, Seen{r, body, err})
	s.mu.Unlock()
	switch {
	case err != nil: // as S3 does, with the ID and the token that were sent
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, "<Error><Code>SignatureDoesNotMatch</Code><Message>%s</Message><AWSAccessKeyId>%s</AWSAccessKeyId><Token-0>%s</Token-0></Error>", err, s.ID, s.Token)
	case r.Method == http.MethodPut:
		s.mu.Lock()
		if s.objects == nil {
			s.objects = map[string][]byte{}
		}
		s.objects[r.URL.Path] = body
		s.mu.Unlock()
	case r.Method == http.MethodPost:
		_, _ = w.Write(body)
	default:
		s.mu.Lock()
		object, ok := s.objects[r.URL.Path]
		s.mu.Unlock()
		if !ok {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(object))
	}
}

// Chunks returns a body in the format aws-chunked with these chunks and what is behind the last. If they are signed, it
// is with signatures that are none.
func Chunks(signed bool, tail string, chunks ...string) string {
	var b strings.Builder
	for _, c := range append(chunks, "") {
		b.WriteString(strconv.FormatInt(int64(len(c)), 16))
		if signed {
			b.WriteString(";chunk-signature=" + strings.Repeat("0", 64))
		}
		if b.WriteString("\r\n" + c); c != "" {
			b.WriteString("\r\n")
		}
	}
	return b.String() + tail
}

// signature is what a request says of its own.
type signature struct {
	credential, headers, signature string
	date, token                    string
	presigned                      bool
}

// Verify returns the body without the format in which it was sent, or why the request is not signed with the
// server's key at that time.
func (s *Server) Verify(r *http.Request, raw []byte, now time.Time) ([]byte, error) {
	sig, err := read(r)
	if err != nil {
		return nil, err
	}
	scope := strings.Split(sig.credential, "/")
	at, err := time.Parse("20060102T150405Z", sig.date)
	switch {
	case err != nil || at.Sub(now).Abs() > maxSkew:
		return nil, fmt.Errorf("RequestTimeTooSkewed: %q", sig.date)
	case len(scope) != 5 || scope[0] != s.ID || scope[1] != sig.date[:8]:
		return nil, fmt.Errorf("InvalidAccessKeyId: %q", sig.credential)
	case sig.token != s.Token:
		return nil, errors.New("InvalidToken")
	}
	payload := payloadOf(r, raw, scope[3], sig.presigned)
	canonical, err := canonicalRequest(r, sig, scope[3], payload)
	if err != nil {
		return nil, err
	}
	c := chain{key: s.key(scope), date: sig.date, scope: strings.Join(scope[1:], "/")}
	want := c.sign("AWS4-HMAC-SHA256\n" + c.date + "\n" + c.scope + "\n" + hash(canonical))
	if subtle.ConstantTimeCompare([]byte(want), []byte(sig.signature)) != 1 {
		return nil, fmt.Errorf("SignatureDoesNotMatch, canonical request %q", canonical)
	}
	c.last = want
	return c.payload(payload, raw)
}

// key derives that of a scope.
func (s *Server) key(scope []string) []byte {
	key := []byte("AWS4" + s.Secret)
	for _, part := range scope[1:] {
		key = mac(key, part)
	}
	return key
}

// read reads the signature of a request.
func read(r *http.Request) (s signature, err error) {
	q := r.URL.Query()
	if v := r.Header.Values("Authorization"); len(v) == 1 && q.Get("X-Amz-Signature") == "" {
		rest, ok := strings.CutPrefix(v[0], "AWS4-HMAC-SHA256 ")
		parts := strings.Split(rest, ", ")
		if !ok || len(parts) != 3 {
			return s, fmt.Errorf("the header Authorization: %q", v[0])
		}
		s.credential = strings.TrimPrefix(parts[0], "Credential=")
		s.headers = strings.TrimPrefix(parts[1], "SignedHeaders=")
		s.signature = strings.TrimPrefix(parts[2], "Signature=")
		s.date, s.token = r.Header.Get("X-Amz-Date"), r.Header.Get("X-Amz-Security-Token")
		return s, nil
	}
	if len(r.Header.Values("Authorization")) > 0 || len(q["X-Amz-Signature"]) != 1 || q.Get("X-Amz-Algorithm") != "AWS4-HMAC-SHA256" {
		return s, errors.New("AccessDenied: not signed once")
	}
	return signature{q.Get("X-Amz-Credential"), q.Get("X-Amz-SignedHeaders"), q.Get("X-Amz-Signature"), q.Get("X-Amz-Date"), q.Get("X-Amz-Security-Token"), true}, nil
}

// payloadOf returns the hash of the body that is signed.
func payloadOf(r *http.Request, raw []byte, service string, presigned bool) string {
	switch h := r.Header.Get("X-Amz-Content-Sha256"); {
	case h != "":
		return h
	case presigned && service == "s3":
		return "UNSIGNED-PAYLOAD"
	}
	return hash(string(raw))
}

// canonicalRequest is the request as it is signed.
func canonicalRequest(r *http.Request, s signature, service, payload string) (string, error) {
	names := strings.Split(s.headers, ";")
	if !slices.IsSorted(names) || !slices.Contains(names, "host") {
		return "", fmt.Errorf("signed headers: %q", s.headers)
	}
	for name := range r.Header {
		if name = strings.ToLower(name); (strings.HasPrefix(name, "x-amz-") || name == "content-type") && !slices.Contains(names, name) {
			return "", fmt.Errorf("AccessDenied: %s is not signed", name)
		}
	}
	var lines strings.Builder
	for _, name := range names {
		values := r.Header.Values(name)
		switch name {
		case "host":
			values = []string{r.Host}
		case "content-length":
			values = []string{strconv.FormatInt(r.ContentLength, 10)}
		}
		if len(values) == 0 {
			return "", fmt.Errorf("the signed header %s is not there", name)
		}
		fmt.Fprintf(&lines, "%s:%s\n", name, strings.Join(strings.Fields(strings.Join(values, ",")), " "))
	}
	path := escape(r.URL.Path, true)
	if service != "s3" {
		path = escape(r.URL.EscapedPath(), true)
	}
	return strings.Join([]string{r.Method, path, canonicalQuery(r.URL.Query()), lines.String(), s.headers, payload}, "\n"), nil
}

// canonicalQuery is the query as it is signed: sorted by the escaped names, then by the escaped values.
func canonicalQuery(q url.Values) string {
	var fields [][]string
	for name, values := range q {
		for _, v := range values {
			if name != "X-Amz-Signature" {
				fields = append(fields, []string{escape(name, false), escape(v, false)})
			}
		}
	}
	slices.SortFunc(fields, slices.Compare)
	var b strings.Builder
	for i, f := range fields {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(f[0] + "=" + f[1])
	}
	return b.String()
}

// escape escapes all bytes but those that no URL escapes.
func escape(text string, path bool) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0 || path && c == '/' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// chain computes signatures of which each is over the one before.
type chain struct {
	key               []byte
	date, scope, last string
}

func (c *chain) sign(text string) string { return hex.EncodeToString(mac(c.key, text)) }

func (c *chain) next(kind, rest string) string {
	c.last = c.sign(strings.Join([]string{kind, c.date, c.scope, c.last, rest}, "\n"))
	return c.last
}

// payload verifies a body and returns what it carries.
func (c *chain) payload(claimed string, raw []byte) ([]byte, error) {
	switch {
	case claimed == "UNSIGNED-PAYLOAD":
		return raw, nil
	case !strings.HasPrefix(claimed, "STREAMING-"):
		if hash(string(raw)) != claimed {
			return nil, errors.New("XAmzContentSHA256Mismatch")
		}
		return raw, nil
	}
	var out []byte
	for rest := string(raw); ; {
		line, after, ok := strings.Cut(rest, "\r\n")
		size, signature, signed := strings.Cut(line, ";chunk-signature=")
		n, err := strconv.ParseInt(size, 16, 32)
		if !ok || err != nil || signed != strings.HasPrefix(claimed, "STREAMING-AWS4") || n > int64(len(after))-2 {
			return nil, fmt.Errorf("chunk %q", line)
		}
		data := after[:n]
		if signed && c.next("AWS4-HMAC-SHA256-PAYLOAD", hash("")+"\n"+hash(data)) != signature {
			return nil, errors.New("SignatureDoesNotMatch: of a chunk")
		}
		out = append(out, data...)
		if n == 0 {
			return out, c.trailer(claimed, after)
		}
		if rest, ok = strings.CutPrefix(after[n:], "\r\n"); !ok {
			return nil, errors.New("the end of a chunk")
		}
	}
}

// trailer verifies what is behind the last chunk.
func (c *chain) trailer(claimed, text string) error {
	var lines string
	var signature string
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimRight(line, "\r")
		if v, ok := strings.CutPrefix(line, "x-amz-trailer-signature:"); ok {
			signature = v
		} else if line != "" {
			lines += line + "\n"
		}
	}
	if strings.HasPrefix(claimed, "STREAMING-AWS4") && strings.HasSuffix(claimed, "-TRAILER") && c.next("AWS4-HMAC-SHA256-TRAILER", hash(lines)) != signature {
		return errors.New("SignatureDoesNotMatch: of the trailer")
	}
	return nil
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
