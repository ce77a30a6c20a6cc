package sigv4

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// algorithm is the only one that is signed anew.
const algorithm = "AWS4-HMAC-SHA256"

// maxSigned bounds the names of headers that a client says it signed.
const maxSigned = 256

// The names of what a signature consists of, in headers and in the query.
const (
	tokenName   = "X-Amz-Security-Token" //nolint:gosec // a name
	dateName    = "X-Amz-Date"
	payloadName = "X-Amz-Content-Sha256"
	expiresName = "X-Amz-Expires"
)

// queryNames are the fields of the query that are a signature.
var queryNames = []string{"X-Amz-Algorithm", "X-Amz-Credential", dateName, expiresName, "X-Amz-SignedHeaders", "X-Amz-Signature", tokenName}

// Claim is what the signature of a request says.
type Claim struct {
	KeyID           string // of the access key that signed it
	Region, Service string
	Token           string // of the session; empty: there is none
	// Payload is the hash of the body that the client claims, or what it says in place of one; empty: it
	// claims none.
	Payload   string
	Presigned bool     // the signature is in the query
	signed    []string // headers that the client signed, in lower case
}

// Find returns the signature of a request; nil if it has none. An error means that it has one that cannot be
// signed anew, or that can be read in two ways.
func Find(r *http.Request) (*Claim, error) {
	fields, err := queryFields(r.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	heads := r.Header.Values("Authorization")
	inHeader := slices.ContainsFunc(heads, isSignature)
	switch {
	case !inHeader && fields == nil:
		return nil, nil
	case len(heads) > 1:
		return nil, errors.New("the request has several Authorization headers")
	case fields != nil && len(heads) > 0:
		return nil, errors.New("the request is signed in the query, and has an Authorization header")
	}
	c := &Claim{Presigned: !inHeader}
	if inHeader {
		err = c.readHeader(heads[0])
	} else {
		err = c.readQuery(fields)
	}
	if err != nil {
		return nil, err
	}
	if err := c.readRest(r); err != nil {
		return nil, err
	}
	return c, nil
}

// isSignature reports whether a value of Authorization is a signature of version 4 or 4a.
func isSignature(v string) bool { return len(v) > 5 && strings.EqualFold(v[:5], "AWS4-") }

// queryFields returns the fields of the query that are a signature, by name; nil if there is none. Servers
// differ in which of two fields they take, so a name that comes twice, or in another case, is an error.
func queryFields(raw string) (map[string]string, error) {
	var found map[string]string
	for f := range strings.SplitSeq(raw, "&") {
		key, value, _ := strings.Cut(f, "=")
		name, err := url.QueryUnescape(key)
		if err != nil {
			name = key
		}
		i := slices.IndexFunc(queryNames, func(n string) bool { return strings.EqualFold(n, name) })
		if i < 0 {
			continue
		}
		v, err := url.QueryUnescape(value)
		if _, twice := found[name]; twice || err != nil || key != queryNames[i] {
			return nil, fmt.Errorf("the query field %s of the signature is there twice or is misspelled", queryNames[i])
		}
		if found == nil {
			found = map[string]string{}
		}
		found[name] = v
	}
	return found, nil
}

// readHeader reads Authorization: AWS4-HMAC-SHA256 Credential=…, SignedHeaders=…, Signature=….
func (c *Claim) readHeader(v string) error {
	scheme, rest, _ := strings.Cut(v, " ")
	if err := checkAlgorithm(scheme); err != nil {
		return err
	}
	parts := map[string]string{}
	for p := range strings.SplitSeq(rest, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(p), "=")
		if _, twice := parts[name]; !ok || twice || len(parts) == 3 {
			return errors.New("the Authorization header of the signature cannot be read")
		}
		parts[name] = value
	}
	return c.read(parts["Credential"], parts["SignedHeaders"], parts["Signature"])
}

// readQuery reads the fields of a presigned URL.
func (c *Claim) readQuery(f map[string]string) error {
	if err := checkAlgorithm(f["X-Amz-Algorithm"]); err != nil {
		return err
	}
	c.Token = f[tokenName]
	return c.read(f["X-Amz-Credential"], f["X-Amz-SignedHeaders"], f["X-Amz-Signature"])
}

func checkAlgorithm(a string) error {
	switch {
	case a == algorithm:
		return nil
	case strings.HasPrefix(a, "AWS4-ECDSA"):
		return errors.New("the request is signed by SigV4a, which bawn does not sign anew: name one region in the client, and no multi-region access point")
	}
	return fmt.Errorf("the request is signed by %.40q, which bawn does not know", a)
}

// scopePart matches a region and a service.
var scopePart = regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]{0,63}$`)

// signatureText matches a signature and a hash.
var signatureText = regexp.MustCompile(`^[0-9a-f]{64}$`)

// read reads the parts of a signature.
func (c *Claim) read(credential, signed, signature string) error {
	scope := strings.Split(credential, "/")
	if len(scope) != 5 || scope[4] != "aws4_request" || !scopePart.MatchString(scope[2]) || !scopePart.MatchString(scope[3]) {
		return fmt.Errorf("the credential of the signature is not KEY/DATE/REGION/SERVICE/aws4_request: %.200q", credential)
	}
	if !signatureText.MatchString(signature) || signed == "" || strings.Count(signed, ";") >= maxSigned {
		return errors.New("the signature of the request cannot be read")
	}
	c.KeyID, c.Region, c.Service, c.signed = scope[0], scope[2], scope[3], strings.Split(strings.ToLower(signed), ";")
	return nil
}

// readRest reads the headers that belong to a signature.
func (c *Claim) readRest(r *http.Request) error {
	tokens, payloads := r.Header.Values(tokenName), r.Header.Values(payloadName)
	if len(tokens) > 1 || len(payloads) > 1 || len(tokens) > 0 && c.Token != "" {
		return errors.New("the request has several session tokens or hashes of its body")
	}
	if len(tokens) > 0 {
		c.Token = tokens[0]
	}
	if c.Payload = r.URL.Query().Get(payloadName); len(payloads) > 0 {
		c.Payload = payloads[0]
	}
	if c.Payload == "" && c.Presigned && c.encodesOnce() {
		c.Payload = unsigned
	}
	return c.checkPayload()
}

// What a client says in place of the hash of the body.
const (
	unsigned        = "UNSIGNED-PAYLOAD"
	unsignedTrailer = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
	signedChunks    = "STREAMING-" + algorithm + "-PAYLOAD"
	signedTrailer   = signedChunks + "-TRAILER"
)

// checkPayload returns an error if the body could not be signed anew.
func (c *Claim) checkPayload() error {
	switch p := c.Payload; {
	case p == "" || p == unsigned || p == unsignedTrailer || p == signedChunks || p == signedTrailer || signatureText.MatchString(p):
		return nil
	case strings.HasSuffix(p, "-EVENTS"):
		return fmt.Errorf("the request is a stream of events of which each is signed (%s: %.60q): bawn does not sign these anew", payloadName, p)
	default:
		return fmt.Errorf("%s: %.60q is nothing that bawn can sign anew", payloadName, p)
	}
}

// Chunked reports whether the body is in the format aws-chunked.
func (c *Claim) Chunked() bool { return strings.HasPrefix(c.Payload, "STREAMING-") }

// encodesOnce reports whether the service signs a path that is escaped once. Others escape what is on the
// wire again.
func (c *Claim) encodesOnce() bool {
	return slices.Contains([]string{"s3", "s3express", "s3-outposts", "s3-object-lambda"}, c.Service)
}

// Strip takes the signature off a request.
func (c *Claim) Strip(r *http.Request) {
	for _, name := range []string{"Authorization", tokenName, dateName, "Date"} {
		r.Header.Del(name)
	}
	if !c.Presigned {
		return
	}
	fields := strings.Split(r.URL.RawQuery, "&")
	fields = slices.DeleteFunc(fields, func(f string) bool {
		name, _, _ := strings.Cut(f, "=")
		return slices.Contains(queryNames, name)
	})
	r.URL.RawQuery = strings.Join(fields, "&")
}
