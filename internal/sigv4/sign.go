package sigv4

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// Keys are those that sign.
type Keys struct {
	ID, Secret string
	Token      string // of the session; may be empty
}

// presignedTime is how long a signature in the query counts, in seconds: it is used at once.
const presignedTime = "300"

// dateFormat is that of the time in a signature.
const dateFormat = "20060102T150405Z"

// changing are headers that proxies change or take off, in lower case. They are not signed.
var changing = []string{
	"accept-encoding", "authorization", "connection", "content-length", "date", "expect", "forwarded", "host", "keep-alive", "proxy-authenticate",
	"proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "user-agent", "via", "x-amzn-trace-id",
	"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto",
}

// Chain is what the signatures of a body's chunks begin with.
type Chain struct {
	key         []byte
	date, scope string
	last        string // signature
}

// Signature returns that of the request, or once a part of the body is signed, that of this part.
func (s *Chain) Signature() string { return s.last }

// Sign signs a request, from which the signature was taken, as the claim says and with the time now. The
// request must be as it is sent: its path is escaped in the one way that services expect, and its query is
// sorted. payload is the hash of the body, where the client claims none. Sign returns the beginning of the chunks' signatures.
func (c *Claim) Sign(r *http.Request, k Keys, payload string, now time.Time) (*Chain, error) {
	if _, err := url.ParseQuery(r.URL.RawQuery); err != nil {
		return nil, fmt.Errorf("the query cannot be signed: %w", err)
	}
	if c.Payload != "" {
		payload = c.Payload
	} else if c.encodesOnce() {
		r.Header.Set(payloadName, payload)
	}
	r.Host = strings.TrimSuffix(r.Host, ":443")
	if c.encodesOnce() {
		if err := escapePath(r.URL); err != nil {
			return nil, err
		}
	}
	signature, err := c.sign(r, k, payload, now)
	if err != nil {
		return nil, err
	}
	date := now.UTC().Format(dateFormat)
	scope := []string{date[:8], c.Region, c.Service, "aws4_request"}
	key := []byte("AWS4" + k.Secret)
	for _, part := range scope {
		key = mac(key, part)
	}
	return &Chain{key: key, date: date, scope: strings.Join(scope, "/"), last: signature}, nil
}

// sign has the signer sign a copy of the request with the headers that are signed, and takes over what it has
// set. Each call has a signer of its own: a signer keeps a key that it derived, by the ID of the access key.
func (c *Claim) sign(r *http.Request, k Keys, payload string, now time.Time) (signature string, err error) {
	target := *r.URL
	target.Scheme = "https"
	shadow := &http.Request{Method: r.Method, URL: &target, Host: r.Host, Header: c.toSign(r.Header), ContentLength: max(r.ContentLength, 0)}
	creds := aws.Credentials{AccessKeyID: k.ID, SecretAccessKey: k.Secret, SessionToken: k.Token}
	signer := v4.NewSigner(func(o *v4.SignerOptions) {
		o.DisableURIPathEscaping, o.DisableHeaderHoisting = c.encodesOnce(), true
	})
	ctx := context.Background() // the signer takes its logger from it
	if c.Presigned {
		target.RawQuery = strings.Trim(target.RawQuery+"&"+expiresName+"="+presignedTime, "&")
		signed, _, err := signer.PresignHTTP(ctx, creds, shadow, payload, c.Service, c.Region, now)
		if err != nil {
			return "", err
		}
		_, r.URL.RawQuery, _ = strings.Cut(signed, "?")
		_, signature, _ = strings.Cut(r.URL.RawQuery, "&X-Amz-Signature=")
		return signature, nil
	}
	if err := signer.SignHTTP(ctx, creds, shadow, payload, c.Service, c.Region, now); err != nil {
		return "", err
	}
	r.URL.RawQuery = target.RawQuery
	for _, name := range []string{"Authorization", dateName, tokenName} {
		if v := shadow.Header.Get(name); v != "" {
			r.Header.Set(name, v)
		}
	}
	_, signature, _ = strings.Cut(shadow.Header.Get("Authorization"), "Signature=")
	return signature, nil
}

// toSign returns the headers that are signed.
func (c *Claim) toSign(all http.Header) http.Header {
	h := http.Header{}
	for name, values := range all {
		lower := strings.ToLower(name)
		if strings.HasPrefix(lower, "x-amz-") || lower == "content-type" || lower == "content-md5" || slices.Contains(c.signed, lower) && !slices.Contains(changing, lower) {
			h[name] = slices.Clone(values)
		}
	}
	return h
}

// escapePath writes a path in the form that is signed: each byte of a segment but letters, digits and -._~ is
// escaped. The segments stay what they are.
func escapePath(u *url.URL) error {
	segments := strings.Split(u.EscapedPath(), "/")
	for i, s := range segments {
		text, err := url.PathUnescape(s)
		if err != nil {
			return errors.New("the path cannot be signed")
		}
		segments[i] = strings.ReplaceAll(url.QueryEscape(text), "+", "%20")
	}
	raw := strings.Join(segments, "/")
	if raw == "" {
		raw = "/"
	}
	path, err := url.PathUnescape(raw)
	u.Path, u.RawPath = path, raw
	return err
}

// next returns the signature of the next part of a body: a chunk, or what is behind the last one.
func (s *Chain) next(kind string, parts ...string) string {
	text := strings.Join(append([]string{kind, s.date, s.scope, s.last}, parts...), "\n")
	s.last = hex.EncodeToString(mac(s.key, text))
	return s.last
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// Hash returns the hash of a body.
func Hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
