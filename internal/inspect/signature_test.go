package inspect

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"bawn.dev/bawn/internal/secret"
	"bawn.dev/bawn/internal/sigv4"
	"bawn.dev/bawn/internal/sigv4/sigv4test"
)

// The pair, and what the guest has instead.
var (
	realPair = secret.KeyPair{ID: "AKIAREALREALREALREAL", Secret: "real/SECRET+key0123456789abcdefghijklmno", Token: "real-session-token/" + strings.Repeat("Token+/0", 50) + "=="}
	thePair  = secret.KeyPair{ID: "AKIASTANDINSTANDIN22", Secret: "standInSecretKeyStandInSecretKeyStandInS", Token: "standInToken" + strings.Repeat("StandIn", 20)}
)

// boundPair is a pair of keys for hostName.
func boundPair(p secret.Place) secret.Bound {
	p.Where = secret.InSignature
	return secret.Bound{
		Secret: secret.Secret{Name: "AWS", For: []secret.Host{{Name: hostName, Port: 443}}, Place: p, KeyPair: &secret.KeyPairShape{HasToken: true}},
		Keys:   thePair,
		Value: func(context.Context) (string, error) {
			b, err := json.Marshal(realPair)
			return string(b), err
		},
	}
}

func awsServer() *sigv4test.Server {
	return &sigv4test.Server{ID: realPair.ID, Secret: realPair.Secret, Token: realPair.Token}
}

// awsSign signs a request as a client of the guest's does that has these keys. Its clock is an hour off.
func awsSign(t *testing.T, r *http.Request, keys secret.KeyPair, payload, service, region string) {
	t.Helper()
	if payload != "" {
		r.Header.Set("X-Amz-Content-Sha256", payload)
	}
	hash := payload
	if hash == "" {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		r.Body, hash = io.NopCloser(bytes.NewReader(b)), sigv4.Hash(b)
	}
	creds := aws.Credentials{AccessKeyID: keys.ID, SecretAccessKey: keys.Secret, SessionToken: keys.Token}
	if err := v4.NewSigner().SignHTTP(t.Context(), creds, r, hash, service, region, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
}

// awsPresign is awsSign for a presigned URL.
func awsPresign(t *testing.T, r *http.Request, keys secret.KeyPair, service, region string) *http.Request {
	t.Helper()
	creds := aws.Credentials{AccessKeyID: keys.ID, SecretAccessKey: keys.Secret, SessionToken: keys.Token}
	signed, _, err := v4.NewSigner().PresignHTTP(t.Context(), creds, r, "UNSIGNED-PAYLOAD", service, region, time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	out, err := http.NewRequestWithContext(t.Context(), r.Method, signed, r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// noReal fails if what the guest gets has a part of the pair.
func noReal(t *testing.T, what, text string) {
	t.Helper()
	for _, part := range []string{realPair.ID, realPair.Secret, realPair.Token} {
		if strings.Contains(text, part) {
			t.Errorf("%s has a part of the pair: %.400q", what, text)
		}
	}
}

// TestSignedAnew: what the guest signs with the placeholders arrives signed with the pair, whatever it says
// about its body.
func TestSignedAnew(t *testing.T) {
	everyProtocol(t, func(t *testing.T, proto string) {
		server := awsServer()
		p := newPlace(t, server, bothProtocols, boundPair(secret.Place{}), boundElsewhere())
		c := p.client(proto)
		var zipped bytes.Buffer
		z := gzip.NewWriter(&zipped)
		_, _ = io.WriteString(z, "plain")
		_ = z.Close()
		for _, one := range []struct {
			name, service, payload, body, arrives string
			header                                []string
		}{
			{"unsigned payload", "s3", "UNSIGNED-PAYLOAD", "an object", "an object", nil},
			{"hash of the client", "s3", sigv4.Hash([]byte("an object")), "an object", "an object", []string{"Content-Type", "text/plain"}},
			{"no hash", "dynamodb", "", `{"TableName":"t"}`, `{"TableName":"t"}`, []string{"X-Amz-Target", "DynamoDB_20120810.GetItem", "Content-Type", "application/x-amz-json-1.0"}},
			{"no hash, S3", "s3", "", "an object", "an object", nil},
			{"trailer", "s3", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", sigv4test.Chunks(false, "x-amz-checksum-crc32:AAAAAA==\r\n\r\n", "an ", "object"), "an object", []string{"Content-Encoding", "aws-chunked", "X-Amz-Trailer", "x-amz-checksum-crc32", "X-Amz-Decoded-Content-Length", "9"}},
			{"gzip in chunks", "s3", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", sigv4test.Chunks(false, "x-amz-checksum-crc32:AAAAAA==\r\n\r\n", zipped.String()), zipped.String(), []string{"Content-Encoding", "gzip,aws-chunked"}},
			{"signed chunks", "s3", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", sigv4test.Chunks(true, "\r\n", strings.Repeat("x", 64<<10), "the rest"), strings.Repeat("x", 64<<10) + "the rest", []string{"Content-Encoding", "aws-chunked"}},
			{"signed chunks and trailer", "s3", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", sigv4test.Chunks(true, "x-amz-checksum-crc32:AAAAAA==\r\nx-amz-trailer-signature:"+strings.Repeat("0", 64)+"\r\n\r\n", "an object"), "an object", []string{"Content-Encoding", "aws-chunked"}},
		} {
			for _, keys := range []secret.KeyPair{thePair, {ID: thePair.ID, Secret: thePair.Secret}} {
				r := request(t, "PUT", "/bucket/a%20key%2Bplus?partNumber=1&uploadId=a/b", strings.NewReader(one.body), one.header...)
				awsSign(t, r, keys, one.payload, one.service, "eu-central-1")
				res, body := p.do(c, r)
				noReal(t, one.name, fmt.Sprint(res.Header, body))
				if last := server.Last(); res.StatusCode != 200 || last.Err != nil || string(last.Body) != one.arrives {
					t.Errorf("%s: %s %s: %v %.100q", one.name, res.Status, body, last.Err, last.Body)
				}
			}
		}
		for _, service := range []string{"s3", "execute-api"} {
			r := awsPresign(t, request(t, "GET", "/bucket/a%20key?X-Amz-Expires=86400&x=y", nil), thePair, service, "eu-central-1")
			res, body := p.do(c, r)
			if last := server.Last(); res.StatusCode != 404 || last.Err != nil || last.Request.URL.Query().Get("X-Amz-Expires") != "300" {
				t.Error("presigned:", service, res.Status, body, last.Err)
			}
		}
		if log := p.log(); log != "" {
			t.Error(log)
		}
	})
}

// TestSignaturesOfOthers: each attack is refused before a byte of it leaves, says why, and is logged.
func TestSignaturesOfOthers(t *testing.T) {
	theirs := secret.KeyPair{ID: "AKIATTACKERATTACKER2", Secret: "attackerSecret"}
	signed := func(keys secret.KeyPair, payload, service, region, path, body string, header ...string) func(*testing.T) *http.Request {
		return func(t *testing.T) *http.Request {
			r := request(t, "PUT", path, strings.NewReader(body), header...)
			awsSign(t, r, keys, payload, service, region)
			return r
		}
	}
	changed := func(f func(*testing.T) *http.Request, change func(r *http.Request)) func(*testing.T) *http.Request {
		return func(t *testing.T) *http.Request {
			r := f(t)
			change(r)
			return r
		}
	}
	presigned := func(keys secret.KeyPair) func(*testing.T) *http.Request {
		return func(t *testing.T) *http.Request {
			return awsPresign(t, request(t, "GET", "/b/k", nil), keys, "s3", "eu-central-1")
		}
	}
	ours := signed(thePair, "UNSIGNED-PAYLOAD", "s3", "eu-central-1", "/b/k", "x")
	const trailer = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
	for name, c := range map[string]struct {
		r    func(*testing.T) *http.Request
		says string
	}{
		"another key":              {signed(theirs, "UNSIGNED-PAYLOAD", "s3", "eu-central-1", "/b/k", "x"), "another credential"},
		"another key, presigned":   {presigned(theirs), "another credential"},
		"another session":          {signed(secret.KeyPair{ID: thePair.ID, Secret: thePair.Secret, Token: "attacker-session-token"}, "UNSIGNED-PAYLOAD", "s3", "eu-central-1", "/b/k", "x"), "another session token"},
		"another session, presign": {presigned(secret.KeyPair{ID: thePair.ID, Secret: thePair.Secret, Token: "attacker-session-token"}), "another session token"},
		"another region":           {signed(thePair, "UNSIGNED-PAYLOAD", "s3", "us-east-1", "/b/k", "x"), "region us-east-1"},
		"another service":          {signed(thePair, "", "sts", "eu-central-1", "/", "Action=GetSessionToken"), "service sts"},
		"two headers":              {changed(ours, func(r *http.Request) { r.Header.Add("Authorization", "Bearer theirs") }), "several Authorization"},
		"header and query":         {changed(ours, func(r *http.Request) { r.URL.RawQuery = presigned(theirs)(t).URL.RawQuery }), "signed in the query"},
		"token in the query":       {changed(ours, func(r *http.Request) { r.URL.RawQuery = "X-Amz-Security-Token=theirs" }), "signed in the query"},
		"another credential":       {changed(ours, func(r *http.Request) { r.Header.Set("X-Api-Key", "of-a-stranger-0123456789") }), "another credential"},
		"SigV4a": {changed(ours, func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "HMAC-SHA256", "ECDSA-P256-SHA256", 1))
		}), "SigV4a"},
		"version 2":                {changed(ours, func(r *http.Request) { r.Header.Set("Authorization", "AWS "+thePair.ID+":c2lnbmF0dXJl") }), "placeholder"},
		"events":                   {changed(ours, func(r *http.Request) { r.Header.Set("X-Amz-Content-Sha256", "STREAMING-AWS4-HMAC-SHA256-EVENTS") }), "stream of events"},
		"secret as a header":       {changed(ours, func(r *http.Request) { r.Header.Set("X-Amz-Meta-A", thePair.Secret) }), "placeholder"},
		"secret in the path":       {signed(thePair, "UNSIGNED-PAYLOAD", "s3", "eu-central-1", "/b/"+thePair.Secret, "x"), "placeholder"},
		"secret of another host":   {signed(thePair, "UNSIGNED-PAYLOAD", "s3", "eu-central-1", "/b/k", elsewhere), "placeholder of the secret OTHER_KEY"},
		"the same over chunks":     {signed(thePair, trailer, "s3", "eu-central-1", "/b/k", sigv4test.Chunks(false, "\r\n", elsewhere[:20], elsewhere[20:]), "Content-Encoding", "aws-chunked"), "placeholder of the secret OTHER_KEY"},
		"the same over signed":     {signed(thePair, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "s3", "eu-central-1", "/b/k", sigv4test.Chunks(true, "\r\n", elsewhere[:20], elsewhere[20:])), "placeholder of the secret OTHER_KEY"},
		"the same in a trailer":    {signed(thePair, trailer, "s3", "eu-central-1", "/b/k", sigv4test.Chunks(false, "x-amz-checksum-a:"+elsewhere+"\r\n\r\n", "x")), "placeholder of the secret OTHER_KEY"},
		"the same, held":           {signed(thePair, "", "s3", "eu-central-1", "/b/k", elsewhere), "placeholder of the secret OTHER_KEY"},
		"secret in a form":         {signed(thePair, "UNSIGNED-PAYLOAD", "s3", "eu-central-1", "/b/k", "a="+thePair.Secret, "Content-Type", "application/x-www-form-urlencoded"), "placeholder of the secret AWS"},
		"no chunks":                {signed(thePair, trailer, "s3", "eu-central-1", "/b/k", "no chunks at all\r\n"), "aws-chunked"},
		"chunks without signature": {signed(thePair, "UNSIGNED-PAYLOAD", "s3", "eu-central-1", "/b/k", "x", "Content-Encoding", "aws-chunked"), "aws-chunked"},
		"too long to be held":      {signed(thePair, "", "s3", "eu-central-1", "/b/k", strings.Repeat("x", maxSignedBody+1)), "16 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			everyProtocol(t, func(t *testing.T, proto string) {
				server := awsServer()
				p := newPlace(t, server, bothProtocols, boundPair(secret.Place{Region: "eu-central-1", Service: "s3"}), boundElsewhere())
				res, err := p.client(proto).Do(c.r(t))
				if err == nil {
					b, _ := io.ReadAll(res.Body)
					res.Body.Close()
					if (res.StatusCode != 403 && res.StatusCode != 413) || !strings.Contains(string(b), c.says) {
						t.Errorf("%s %s", res.Status, b)
					}
				}
				if log := p.log(); !strings.Contains(log, c.says) || strings.Count(log, "\n") > 0 {
					t.Error("log:", log)
				}
				p.stop()
				if server.Count() > 0 && server.Last().Err == nil {
					t.Error("the server took it")
				}
			})
		})
	}
}

// TestOtherCredentialsBesideAPair pass where the person said so, as the client signed them; the placeholders do not.
func TestOtherCredentialsBesideAPair(t *testing.T) {
	b := boundPair(secret.Place{})
	b.OtherCredentials = true
	server := &sigv4test.Server{ID: "AKIAOTHERACCOUNT2345", Secret: "otherSecret"}
	p := newPlace(t, server, bothProtocols, b)
	r := request(t, "PUT", "/b/k", strings.NewReader("x"))
	creds := aws.Credentials{AccessKeyID: server.ID, SecretAccessKey: server.Secret}
	r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
	if err := v4.NewSigner().SignHTTP(t.Context(), creds, r, "UNSIGNED-PAYLOAD", "s3", "eu-central-1", time.Now()); err != nil {
		t.Fatal(err)
	}
	if res, body := p.do(p.client("h2"), r); res.StatusCode != 200 {
		t.Error(res.Status, body, server.Last().Err)
	}
	r = request(t, "GET", "/b/k", nil)
	awsSign(t, r, thePair, "UNSIGNED-PAYLOAD", "s3", "eu-central-1")
	r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "HMAC-SHA256", "ECDSA-P256-SHA256", 1))
	if res, _ := p.do(p.client("h2"), r); res.StatusCode != 403 || server.Count() != 1 {
		t.Error(res.Status, server.Count())
	}
}

// TestAnswersWithThePair have placeholders of the same length instead, and parts of an answer pass, since no
// server gets the secret part.
func TestAnswersWithThePair(t *testing.T) {
	everyProtocol(t, func(t *testing.T, proto string) {
		text := "id " + realPair.ID + " secret " + realPair.Secret + " token " + realPair.Token + "."
		p := newPlace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Amz-Echo", r.Header.Get("Authorization"))
			w.Header().Set("X-Amz-Token", realPair.Token)
			if r.URL.Path == "/gzip" {
				w.Header().Set("Content-Encoding", "gzip")
				w.Header().Set("X-Amz-Checksum-Crc32", "of-the-encoded")
				_, _ = io.WriteString(w, gzipped(text))
				return
			}
			if r.URL.Path == "/gzip-part" {
				w.Header().Set("Content-Encoding", "gzip")
				w.WriteHeader(http.StatusPartialContent)
				return
			}
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(text))
		}), bothProtocols, boundPair(secret.Place{}))
		c := p.client(proto)
		for _, path := range []string{"/", "/gzip"} {
			r := request(t, "GET", path, nil)
			awsSign(t, r, thePair, "UNSIGNED-PAYLOAD", "s3", "eu-central-1")
			res, body := p.do(c, r)
			noReal(t, path, fmt.Sprint(res.Header, body))
			if len(body) != len(text) || !strings.Contains(body, thePair.ID+" secret "+thePair.Secret+" token "+thePair.Token) || !strings.Contains(res.Header.Get("X-Amz-Echo"), thePair.ID+"/") {
				t.Error(path, res.Header, body)
			}
			if path == "/" && res.ContentLength != int64(len(text)) || res.Header.Get("X-Amz-Checksum-Crc32") != "" {
				t.Error(path, res.ContentLength, res.Header)
			}
		}
		r := request(t, "GET", "/", nil, "Range", "bytes=3-22")
		awsSign(t, r, thePair, "UNSIGNED-PAYLOAD", "s3", "eu-central-1")
		if res, body := p.do(c, r); res.StatusCode != 206 || body != thePair.ID {
			t.Error("a part:", res.Status, body)
		}
		if res, _ := p.do(c, request(t, "GET", "/gzip-part", nil, "Range", "bytes=0-9")); res.StatusCode != 502 {
			t.Error("a part of what is encoded:", res.Status)
		}
	})
}

// TestPairBesideAToken: a host that gets another secret as it is has whole answers only.
func TestPairBesideAToken(t *testing.T) {
	p := newPlace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader("0123456789"))
	}), bothProtocols, boundPair(secret.Place{}), bound(secret.Place{}))
	if res, body := p.do(p.client("h2"), request(t, "GET", "/", nil, "Range", "bytes=0-1")); res.StatusCode != 200 || body != "0123456789" {
		t.Error(res.Status, body)
	}
}

// TestNoPair: the request fails with the reason and is not sent on.
func TestNoPair(t *testing.T) {
	for _, value := range []func(context.Context) (string, error){
		func(context.Context) (string, error) { return "", errors.New("its command failed") },
		func(context.Context) (string, error) { return "no pair of keys at all", nil },
	} {
		server := awsServer()
		b := boundPair(secret.Place{})
		b.Value, b.Keeper = value, secret.Command
		p := newPlace(t, server, bothProtocols, b)
		r := request(t, "GET", "/", nil)
		awsSign(t, r, thePair, "UNSIGNED-PAYLOAD", "s3", "eu-central-1")
		if res, body := p.do(p.client("h2"), r); res.StatusCode != 503 || server.Count() != 0 || strings.Contains(body, "at all") {
			t.Error(res.Status, body, server.Count())
		}
	}
}

// TestBodiesThatAreHeld to be signed are bounded together, and give their room back.
func TestBodiesThatAreHeld(t *testing.T) {
	server := awsServer()
	p := newPlace(t, server, bothProtocols, boundPair(secret.Place{}))
	held := p.i.held
	if !held.TryAcquire(maxHeldBodies - 10) {
		t.Fatal("no room at the beginning")
	}
	c := p.client("h2")
	send := func(body string) int {
		r := request(t, "POST", "/", strings.NewReader(body))
		awsSign(t, r, thePair, "", "lambda", "eu-central-1")
		res, _ := p.do(c, r)
		return res.StatusCode
	}
	for range 3 {
		if s := send("0123456789"); s != 200 {
			t.Error("with room:", s)
		}
	}
	if s := send("0123456789x"); s != 503 {
		t.Error("without room:", s)
	}
	p.stop()
	if !held.TryAcquire(10) || held.TryAcquire(1) {
		t.Error("not 10 bytes are left")
	}
}

// TestAttackSignedChunksTakeMemory: chunks, which are held to be signed, are of the same bounded room, which is
// taken before a byte of one has come, and is given back.
func TestAttackSignedChunksTakeMemory(t *testing.T) {
	server := awsServer()
	p := newPlace(t, server, bothProtocols, boundPair(secret.Place{}))
	held := p.i.held
	if !held.TryAcquire(maxHeldBodies - 4<<10) {
		t.Fatal("no room at the beginning")
	}
	send := func(body string) int {
		r := request(t, "PUT", "/b/k", strings.NewReader(body), "Content-Encoding", "aws-chunked")
		awsSign(t, r, thePair, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "s3", "eu-central-1")
		res, err := p.client("h2").Do(r)
		if err != nil {
			return 0
		}
		res.Body.Close()
		return res.StatusCode
	}
	for range 3 {
		if s := send(sigv4test.Chunks(true, "\r\n", strings.Repeat("x", 3<<10), "rest")); s != 200 {
			t.Error("with room:", s)
		}
	}
	if s := send(sigv4test.Chunks(true, "\r\n", strings.Repeat("x", 5<<10))); s == 200 || !strings.Contains(p.log(), "64 MiB") {
		t.Error("without room:", s, p.log())
	}
	p.stop()
	if !held.TryAcquire(4<<10) || held.TryAcquire(1) {
		t.Error("not 4 KiB are left")
	}
}

// TestAttackTheSignatureOfAnAnswer: a guest that has the real signature could send the request from anywhere. What
// servers show of it in an error, a redirect or an echo is not it.
func TestAttackTheSignatureOfAnAnswer(t *testing.T) {
	everyProtocol(t, func(t *testing.T, proto string) {
		var got []string
		p := newPlace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			signature := r.URL.Query().Get("X-Amz-Signature")
			if _, s, found := strings.Cut(r.Header.Get("Authorization"), "Signature="); found {
				signature = s
			}
			got = append(got, signature)
			w.Header().Set("Location", "https://"+hostName+"/elsewhere?"+r.URL.RawQuery)
			w.Header().Set("X-Echo", r.Header.Get("Authorization"))
			if r.URL.Path == "/gzip" {
				w.Header().Set("Content-Encoding", "gzip")
				_, _ = io.WriteString(w, gzipped("<SignatureProvided>"+signature+"</SignatureProvided>"))
				return
			}
			w.WriteHeader(http.StatusTemporaryRedirect)
			_, _ = io.WriteString(w, "<SignatureProvided>"+signature+"</SignatureProvided>")
		}), bothProtocols, boundPair(secret.Place{}))
		c := p.client(proto)
		c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		header := request(t, "GET", "/gzip", nil)
		awsSign(t, header, thePair, "UNSIGNED-PAYLOAD", "s3", "eu-central-1")
		presigned := awsPresign(t, request(t, "GET", "/b/k", nil), thePair, "s3", "eu-central-1")
		for _, r := range []*http.Request{header, presigned} {
			res, body := p.do(c, r)
			all := fmt.Sprint(res.Header, body)
			noReal(t, r.URL.Path, all)
			if n := len(got); n == 0 || len(got[n-1]) != 64 || strings.Contains(all, got[n-1]) || !strings.Contains(body, noSignature) {
				t.Errorf("%s: the server got %q; the answer is %s", r.URL.Path, got, all)
			}
		}
	})
}

// TestAttackHeadersThatEndHere: one that is signed and then taken off would make the server show what it got.
func TestAttackHeadersThatEndHere(t *testing.T) {
	server := awsServer()
	p := newPlace(t, server, bothProtocols, boundPair(secret.Place{}))
	for _, connection := range []string{"X-Amz-Meta-A", "x-amz-meta-a,Keep-Alive , close", "close, keep-alive, TE, Upgrade"} {
		r := request(t, "GET", "/", nil, "X-Amz-Meta-A", "1", "Proxy-Authenticate", "x", "Keep-Alive", "timeout=5")
		awsSign(t, r, thePair, "UNSIGNED-PAYLOAD", "s3", "eu-central-1")
		r.Header.Set("Connection", connection)
		_, body := p.do(p.client("http/1.1"), r)
		if last := server.Last(); last.Err != nil {
			t.Errorf("Connection: %s: %v %s %s", connection, last.Err, body, p.log())
		}
	}
}

// TestClientsOfAWS: the AWS CLI, where there is one, works through the inspection.
func TestClientsOfAWS(t *testing.T) {
	cli, err := exec.LookPath("aws")
	if err != nil {
		t.Skip("there is no AWS CLI")
	}
	server := awsServer()
	p := newPlace(t, server, bothProtocols, boundPair(secret.Place{Service: "s3"}))
	proxy := connectProxy(t, p.guest.Addr().String())
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, p.pem, 0o600); err != nil {
		t.Fatal(err)
	}
	object := strings.Repeat("0123456789abcdef", 20<<10*4/16)
	if err := os.WriteFile(filepath.Join(dir, "object"), []byte(object), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		c := exec.CommandContext(ctx, cli, append([]string{"--endpoint-url", "https://" + hostName, "--region", "eu-central-1"}, args...)...)
		c.Env = []string{
			"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "HTTPS_PROXY=http://" + proxy, "AWS_CA_BUNDLE=" + ca, "AWS_EC2_METADATA_DISABLED=true", "AWS_MAX_ATTEMPTS=1",
			"AWS_ACCESS_KEY_ID=" + thePair.ID, "AWS_SECRET_ACCESS_KEY=" + thePair.Secret, "AWS_SESSION_TOKEN=" + thePair.Token,
		}
		c.Dir = dir
		out, err := c.CombinedOutput()
		noReal(t, strings.Join(args, " "), string(out))
		return string(out), err
	}
	if out, err := run("s3api", "put-object", "--bucket", "bucket", "--key", "a key+plus", "--body", "object"); err != nil {
		t.Fatal(out, err, server.Last().Err, p.log())
	}
	if got := string(server.Last().Body); got != object {
		t.Errorf("%d bytes arrived", len(got))
	}
	if out, err := run("s3api", "get-object", "--bucket", "bucket", "--key", "a key+plus", "--range", "bytes=16-31", "part"); err != nil {
		t.Fatal(out, err, server.Last().Err, p.log())
	}
	if b, err := os.ReadFile(filepath.Join(dir, "part")); string(b) != "0123456789abcdef" {
		t.Errorf("%q %v", b, err)
	}
	url, err := run("s3", "presign", "s3://bucket/a key+plus")
	if err != nil {
		t.Fatal(url, err)
	}
	r, err := http.NewRequestWithContext(t.Context(), "GET", strings.TrimSpace(url), nil)
	if err != nil {
		t.Fatal(err)
	}
	if res, body := p.do(p.client("http/1.1"), r); res.StatusCode != 200 || body != object {
		t.Error("presigned:", url, res.Status, len(body), server.Last().Err, p.log())
	}
	if out, err := run("sts", "get-caller-identity"); err == nil || !strings.Contains(out, "403") && !strings.Contains(p.log(), "service sts") {
		t.Error("another service:", out)
	}
}

// connectProxy returns the address of a proxy that leads each CONNECT to that address.
func connectProxy(t *testing.T, to string) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		up, err := net.Dial("tcp", to)
		if r.Method != http.MethodConnect || err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer up.Close()
		w.WriteHeader(http.StatusOK)
		down, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer down.Close()
		go func() { _, _ = io.Copy(down, up); down.Close() }()
		_, _ = io.Copy(up, buf)
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}
