package sigv4

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"bawn.dev/bawn/internal/sigv4/sigv4test"
)

// The key and the time of the examples that AWS publishes for S3 ("Signature Calculations for the Authorization
// Header", "… Transferring a Payload in Multiple Chunks").
var (
	exampleKeys = Keys{ID: "AKIAIOSFODNN7EXAMPLE", Secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}
	exampleTime = time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)
)

const standInID = "AKIASTANDINSTANDIN22"

// signedBy returns a request as a client sends it that has signed with the placeholder; its signature is no
// matter.
func signedBy(method, url, payload string, headers ...string) *http.Request {
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		panic(err)
	}
	names := []string{"host", "x-amz-content-sha256", "x-amz-date"}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
		names = append(names, strings.ToLower(headers[i]))
	}
	slices.Sort(names)
	r.Header.Set("X-Amz-Date", "20010101T000000Z")
	r.Header.Set("X-Amz-Content-Sha256", payload)
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+standInID+"/20010101/us-east-1/s3/aws4_request,SignedHeaders="+strings.Join(names, ";")+", Signature="+strings.Repeat("0", 64))
	return r
}

// anew finds the signature of a request and signs it anew.
func anew(t *testing.T, r *http.Request) (*Claim, *Chain) {
	t.Helper()
	c, err := Find(r)
	if err != nil || c == nil || c.KeyID != standInID {
		t.Fatal(c, err)
	}
	c.Strip(r)
	chain, err := c.Sign(r, exampleKeys, "", exampleTime)
	if err != nil {
		t.Fatal(err)
	}
	return c, chain
}

// TestPublishedExamples are signed as AWS says.
func TestPublishedExamples(t *testing.T) {
	for _, c := range []struct {
		url, want string
		headers   []string
	}{
		{"https://examplebucket.s3.amazonaws.com/test.txt", "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41", []string{"Range", "bytes=0-9"}},
		{"https://examplebucket.s3.amazonaws.com/?lifecycle", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543", nil},
		{"https://examplebucket.s3.amazonaws.com/?prefix=J&max-keys=2", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7", nil},
	} {
		r := signedBy("GET", c.url, emptyHash, c.headers...)
		anew(t, r)
		if a := r.Header.Get("Authorization"); !strings.Contains(a, "Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,") || !strings.HasSuffix(a, "Signature="+c.want) {
			t.Errorf("%s: %s", c.url, a)
		}
	}
}

// TestPublishedChunks are signed as AWS says: 66,560 bytes in two chunks.
func TestPublishedChunks(t *testing.T) {
	body := sigv4test.Chunks(true, "\r\n", strings.Repeat("a", 65536), strings.Repeat("a", 1024))
	r := signedBy("PUT", "https://s3.amazonaws.com/examplebucket/chunkObject.txt", signedChunks,
		"Content-Encoding", "aws-chunked", "X-Amz-Decoded-Content-Length", "66560", "X-Amz-Storage-Class", "REDUCED_REDUNDANCY")
	r.ContentLength = 66824
	c, chain := anew(t, r)
	if want := "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"; chain.last != want {
		t.Error("the first signature:", chain.last)
	}
	for name, src := range map[string]io.Reader{"whole": strings.NewReader(body), "byte by byte": iotest.OneByteReader(strings.NewReader(body))} {
		var seen strings.Builder
		again := *chain
		b := c.NewBody(src, lookAt(func(p []byte, _ bool) error { seen.Write(p); return nil }))
		b.Start(&again)
		out, err := io.ReadAll(b)
		if err != nil || len(out) != len(body) || len(out) != 66824 {
			t.Fatal(name, len(out), err)
		}
		for _, want := range []string{
			"10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n",
			"400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n",
			"\r\n0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n",
		} {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s: there is no %q", name, want)
			}
		}
		if seen.Len() != 66560 {
			t.Error(name, "looked at", seen.Len(), "bytes")
		}
	}
}

// TestPublishedTrailer is signed as AWS says: 66,560 bytes in two chunks, and a checksum behind them.
func TestPublishedTrailer(t *testing.T) {
	r := signedBy("PUT", "https://s3.amazonaws.com/examplebucket/chunkObject.txt", signedTrailer,
		"Content-Encoding", "aws-chunked", "X-Amz-Decoded-Content-Length", "66560", "X-Amz-Storage-Class", "REDUCED_REDUNDANCY", "X-Amz-Trailer", "x-amz-checksum-crc32c")
	c, chain := anew(t, r)
	if want := "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"; chain.last != want {
		t.Error("the first signature:", chain.last)
	}
	b := c.NewBody(strings.NewReader(sigv4test.Chunks(true, "x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:"+strings.Repeat("1", 64)+"\r\n\r\n", strings.Repeat("a", 65536), strings.Repeat("a", 1024))), lookAt(func([]byte, bool) error { return nil }))
	b.Start(chain)
	out, err := io.ReadAll(b)
	if err != nil || !strings.HasSuffix(string(out), "0;chunk-signature=2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992\r\nx-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n") {
		t.Errorf("%.400q %v", out[max(0, len(out)-400):], err)
	}
}

// TestBodiesThatAreNotChunked end in an error, and what is wrong of them does not pass.
func TestBodiesThatAreNotChunked(t *testing.T) {
	zero := strings.Repeat("0", 64)
	for _, c := range []struct{ payload, body string }{
		{unsignedTrailer, "hello"},
		{unsignedTrailer, "5\r\nhello"},
		{unsignedTrailer, "5\r\nhelloX\r\n0\r\n\r\n"},
		{unsignedTrailer, "5;chunk-signature=" + zero + "\r\nhello\r\n0\r\n\r\n"},
		{unsignedTrailer, "5;x=y\r\nhello\r\n0\r\n\r\n"},
		{unsignedTrailer, "-1\r\n"},
		{unsignedTrailer, strings.Repeat("0", 10_000)},
		{unsignedTrailer, "0\r\n" + strings.Repeat("a:b\r\n", 10_000)},
		{unsignedTrailer, "0\r\nno line of a trailer\r\n\r\n"},
		{unsignedTrailer, "0\r\nx-amz-trailer-signature:" + zero + "\r\n\r\n"},
		{signedChunks, "5\r\nhello\r\n0\r\n\r\n"},
		{signedChunks, "5;chunk-signature=" + zero + "\r\nhel"},
		{signedChunks, "fffffff;chunk-signature=" + zero + "\r\nhel"},
		{signedChunks, "0;chunk-signature=" + zero + "\r\na:b\r\n\r\n"},
		{signedTrailer, "0;chunk-signature=" + zero + "\r\nx-amz-trailer-signature:00\r\n\r\n"},
	} {
		b := (&Claim{Payload: c.payload}).NewBody(strings.NewReader(c.body), lookAt(func([]byte, bool) error { return nil }))
		b.Start(&Chain{})
		if out, err := io.ReadAll(b); err == nil {
			t.Errorf("%s %.60q passed as %.60q", c.payload, c.body, out)
		}
	}
	refused := errors.New("refused")
	for _, p := range []string{unsignedTrailer, signedChunks} {
		b := (&Claim{Payload: p}).NewBody(strings.NewReader(sigv4test.Chunks(p == signedChunks, "\r\n", "hello", "secret")), lookAt(func(p []byte, _ bool) error {
			if string(p) == "secret" {
				return refused
			}
			return nil
		}))
		b.Start(&Chain{})
		if out, err := io.ReadAll(b); !errors.Is(err, refused) || strings.Contains(string(out), "secret") {
			t.Errorf("%q %v", out, err)
		}
	}
}

// TestAttackChunksThatGrow: a body takes memory for its longest chunk, once it may, and asks a few times only.
func TestAttackChunksThatGrow(t *testing.T) {
	var chunks []string
	for n := range 300 {
		chunks = append(chunks, strings.Repeat("x", 100+n*10))
	}
	body := sigv4test.Chunks(true, "\r\n", chunks...)
	asked, held, limit := 0, int64(0), int64(1<<20)
	look := lookAt(func([]byte, bool) error { return nil })
	look.Hold = func(n int64) error {
		if asked, held = asked+1, held+n; held > limit {
			return errors.New("no room")
		}
		return nil
	}
	read := func() (string, error) {
		b := (&Claim{Payload: signedChunks}).NewBody(strings.NewReader(body), look)
		b.Start(&Chain{})
		out, err := io.ReadAll(b)
		return string(out), err
	}
	if out, err := read(); err != nil || len(out) != len(body) || asked > 12 || held > 8<<10 {
		t.Errorf("%d of %d bytes, %v; asked %d times for %d bytes", len(out), len(body), err, asked, held)
	}
	asked, held, limit = 0, 0, 1000
	if out, err := read(); err == nil || err.Error() != "no room" || len(out) > 100*1000 {
		t.Errorf("without room: %d bytes, %v", len(out), err)
	}
}

// TestSignedAnewIsValid for a server that computes signatures in its own way.
func TestSignedAnewIsValid(t *testing.T) {
	server := &sigv4test.Server{ID: exampleKeys.ID, Secret: exampleKeys.Secret}
	for _, c := range []struct{ method, url, service, body string }{
		{"GET", "https://b.s3.example.org/a%20key/with+plus/%C3%A9/%2B!$&'()*,;=:@~", "s3", ""},
		{"GET", "https://b.s3.example.org/a//b/", "s3", ""},
		{"GET", "https://b.s3.example.org", "s3", ""},
		{"GET", "https://b.s3.example.org:443/?list-type=2&prefix=a%2Fb+c&delimiter=/&a=2&a=1", "s3", ""},
		{"POST", "https://dynamodb.example.org/", "dynamodb", `{"TableName":"t"}`},
		{"GET", "https://api.example.org/stage/a%20b/c%2Fd", "execute-api", ""},
		{"POST", "https://lambda.example.org/functions/arn:aws:lambda:x/invocations?Qualifier=1", "lambda", "{}"},
	} {
		r := signedBy(c.method, c.url, "")
		r.Header.Del("X-Amz-Content-Sha256")
		r.Header.Set("X-Amz-Target", "Some_1.Thing")
		r.Header.Set("Content-Type", "application/x-amz-json-1.0")
		r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "/s3/", "/"+c.service+"/", 1))
		r.ContentLength = int64(len(c.body))
		claim, err := Find(r)
		if err != nil {
			t.Fatal(c.url, err)
		}
		claim.Strip(r)
		if _, err := claim.Sign(r, exampleKeys, Hash([]byte(c.body)), time.Now()); err != nil {
			t.Fatal(c.url, err)
		}
		got, err := http.NewRequest(c.method, "https://"+r.Host+r.URL.RequestURI(), nil) // as the server reads it
		if err != nil {
			t.Fatal(err)
		}
		got.Header, got.ContentLength = r.Header, r.ContentLength
		if _, err := server.Verify(got, []byte(c.body), time.Now()); err != nil {
			t.Errorf("%s: %v", c.url, err)
		}
	}
}

// TestSignaturesThatAreRefused: what cannot be signed anew, or can be read in two ways.
func TestSignaturesThatAreRefused(t *testing.T) {
	ok := signedBy("GET", "https://s3.example.org/", emptyHash).Header.Get("Authorization")
	const presigned = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=" + standInID + "%2F20010101%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20010101T000000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=0000000000000000000000000000000000000000000000000000000000000000"
	for name, c := range map[string]struct {
		query   string
		headers []string
	}{
		"two headers":            {"", []string{"Authorization", ok, "Authorization", ok}},
		"another one beside it":  {"", []string{"Authorization", "Bearer x", "Authorization", ok}},
		"query and header":       {presigned, []string{"Authorization", ok}},
		"query and bearer":       {presigned, []string{"Authorization", "Bearer x"}},
		"a field twice":          {presigned + "&X-Amz-Credential=other", nil},
		"a field in other case":  {presigned + "&x-amz-credential=other", nil},
		"an escaped field":       {presigned + "&X-Amz-%43redential=other", nil},
		"two tokens":             {presigned + "&X-Amz-Security-Token=a", []string{"X-Amz-Security-Token", "b"}},
		"4a":                     {"", []string{"Authorization", strings.Replace(ok, "AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256", 1)}},
		"4a in the query":        {strings.Replace(presigned, "AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256", 1), nil},
		"lower case":             {"", []string{"Authorization", strings.ToLower(ok)}},
		"no signature":           {"", []string{"Authorization", "AWS4-HMAC-SHA256 Credential=" + standInID + "/20010101/us-east-1/s3/aws4_request"}},
		"no scope":               {"", []string{"Authorization", strings.Replace(ok, "/us-east-1", "", 1)}},
		"a part twice":           {"", []string{"Authorization", ok + ", Credential=x"}},
		"events":                 {"", []string{"Authorization", ok, "X-Amz-Content-Sha256", "STREAMING-AWS4-HMAC-SHA256-EVENTS"}},
		"chunks of 4a":           {"", []string{"Authorization", ok, "X-Amz-Content-Sha256", "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"}},
		"two hashes of the body": {"", []string{"Authorization", ok, "X-Amz-Content-Sha256", unsigned, "X-Amz-Content-Sha256", emptyHash}},
	} {
		r := signedBy("GET", "https://s3.example.org/?"+c.query, emptyHash)
		r.Header = http.Header{}
		for i := 0; i < len(c.headers); i += 2 {
			r.Header.Add(c.headers[i], c.headers[i+1])
		}
		if claim, err := Find(r); err == nil {
			t.Errorf("%s: read as %+v", name, claim)
		}
	}
	r := signedBy("GET", "https://s3.example.org/?"+presigned, emptyHash)
	r.Header = http.Header{}
	if c, err := Find(r); err != nil || !c.Presigned || c.KeyID != standInID || c.Payload != unsigned {
		t.Error("presigned:", c, err)
	}
	if c, err := Find(httpRequest("https://s3.example.org/?x=y")); c != nil || err != nil {
		t.Error("not signed:", c, err)
	}
}

// lookAt looks at the contents alone.
func lookAt(f func(p []byte, final bool) error) Look {
	return Look{Content: f, Tail: func(string) error { return nil }, Hold: func(int64) error { return nil }}
}

func httpRequest(url string) *http.Request {
	r, err := http.NewRequest("GET", url, nil)
	if err != nil {
		panic(err)
	}
	return r
}

// FuzzFind: no header and no query is read in a way that signs what it does not show.
func FuzzFind(f *testing.F) {
	f.Add(signedBy("GET", "https://s3.example.org/", emptyHash).Header.Get("Authorization"), "a=b")
	f.Add("", "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential="+standInID+"%2F20010101%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-SignedHeaders=host&X-Amz-Signature="+strings.Repeat("0", 64))
	server := &sigv4test.Server{ID: exampleKeys.ID, Secret: exampleKeys.Secret}
	f.Fuzz(func(t *testing.T, authorization, query string) {
		r := httpRequest("https://s3.example.org/key")
		r.URL.RawQuery = query
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		c, err := Find(r)
		if err != nil || c == nil {
			return
		}
		c.Strip(r)
		if again, err := Find(r); again != nil || err != nil {
			t.Fatalf("after Strip: %+v, %v", again, err)
		}
		if _, err := c.Sign(r, exampleKeys, emptyHash, time.Now()); err != nil || !signs(c) {
			return
		}
		if _, err := server.Verify(r, nil, time.Now()); err != nil {
			t.Fatal(err)
		}
	})
}

// signs reports whether the test's server knows the service, which is S3 or one of all others.
func signs(c *Claim) bool { return c.Service == "s3" || !c.encodesOnce() }

// FuzzBody: what passes is in the format, as long as before, and with nothing that was not looked at.
func FuzzBody(f *testing.F) {
	f.Add(sigv4test.Chunks(false, "\r\n", "hello", "world"), false)
	f.Add(sigv4test.Chunks(true, "\r\n", "hello", "world"), true)
	f.Fuzz(func(t *testing.T, body string, signed bool) {
		c := &Claim{Payload: unsignedTrailer}
		if signed {
			c.Payload = signedTrailer
		}
		seen := 0
		b := c.NewBody(strings.NewReader(body), lookAt(func(p []byte, _ bool) error { seen += len(p); return nil }))
		b.Start(&Chain{})
		out, err := io.ReadAll(b)
		if err == nil && len(out) != len(body) || len(out) > len(body) || seen > len(body) {
			t.Fatalf("%q became %q (%d seen), %v", body, out, seen, err)
		}
	})
}
