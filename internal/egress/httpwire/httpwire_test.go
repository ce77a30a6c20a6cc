package httpwire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestParseRequest(t *testing.T) {
	q, err := ParseRequest([]byte("POST /a?b HTTP/1.1\r\nHost: Example.org:80\r\nX-Y:  z \r\nTransfer-Encoding: Chunked\r\n\r\n"))
	if err != nil || q.Method != "POST" || q.Length != LengthChunked || q.Upgrade {
		t.Fatalf("%+v, %v", q, err)
	}
	if got := string(q.Bytes()); got != "POST /a?b HTTP/1.1\r\nHost: Example.org:80\r\nX-Y: z\r\nTransfer-Encoding: Chunked\r\n\r\n" {
		t.Fatalf("%q", got)
	}
	for head, want := range map[string]string{
		"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n":                                         "a.example",
		"GET http://a.example:80/x HTTP/1.1\r\nHost: A.example:80\r\n\r\n":                  "a.example:80",
		"GET http://a.example?x HTTP/1.1\r\n\r\n":                                           "a.example",
		"OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n":                                     "a.example",
		"GET http://a.example@b.example/ HTTP/1.1\r\n\r\n":                                  "a.example@b.example",  // refused by SplitAuthority
		"GET http://a.example\\@b.example/ HTTP/1.1\r\nHost: a.example\\@b.example\r\n\r\n": `a.example\@b.example`, // refused by SplitAuthority
	} {
		q, err := ParseRequest([]byte(head))
		if err != nil {
			t.Errorf("%q: %v", head, err)
			continue
		}
		if got, err := q.Authority(); err != nil || got != want {
			t.Errorf("%q: %q, %v", head, got, err)
		}
	}
}

func TestParseRequestRefuses(t *testing.T) {
	for _, head := range []string{
		"GET / HTTP/1.1\nHost: a\n\n",
		"GET / HTTP/1.1\r\nHost: a\n\r\n",
		"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
		" GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
		"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
		"GET /\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
		"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\x00\r\n\r\n",
		"GET / HTTP/1.1\r\nnocolon\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 5\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
		"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, Host\r\n\r\n",
		"G\x00T / HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.1\r\n" + strings.Repeat("A: b\r\n", MaxFields+1) + "\r\n",
	} {
		if q, err := ParseRequest([]byte(head)); err == nil {
			t.Errorf("%.60q passes: %+v", head, q)
		}
	}
	for _, head := range []string{
		"GET / HTTP/1.1\r\n\r\n",
		"GET / HTTP/1.0\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nHOST: b\r\n\r\n",
		"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET a HTTP/1.1\r\nHost: a\r\n\r\n",
		"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		q, err := ParseRequest([]byte(head))
		if err != nil {
			t.Fatalf("%q: %v", head, err)
		}
		if got, err := q.Authority(); err == nil {
			t.Errorf("%q passes as %q", head, got)
		}
	}
}

func TestUpgradeFilter(t *testing.T) {
	q, err := ParseRequest([]byte("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n\r\n"))
	if err != nil || q.Upgrade {
		t.Fatalf("%+v, %v", q, err)
	}
	if got := string(q.Bytes()); got != "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n" {
		t.Fatalf("%q", got)
	}
	q, err = ParseRequest([]byte("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: TLS/1.2, websocket\r\nUpgrade: H2C\r\n\r\n"))
	if err != nil || !q.Upgrade {
		t.Fatalf("%+v, %v", q, err)
	}
	if got := string(q.Bytes()); got != "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" {
		t.Fatalf("%q", got)
	}
}

func TestSplitAuthority(t *testing.T) {
	for in, want := range map[string]struct {
		host string
		port uint16
	}{
		"Example.ORG.": {"example.org", 0}, "a:80": {"a", 80}, "a:": {"a", 0}, "[2001:DB8::1]:8080": {"2001:db8::1", 8080},
		"192.0.2.1:1": {"192.0.2.1", 1}, "a_b.example": {"a_b.example", 0},
	} {
		host, port, err := SplitAuthority(in)
		if err != nil || host != want.host || port != want.port {
			t.Errorf("%q: %q %d %v", in, host, port, err)
		}
	}
	for _, in := range []string{"", ":80", "a:b", "a:80:80", "a@b", `a\@b`, "a/b", "a b", "a,b", "[::1", "[::1]80", "[fe80::1%25eth0]", "a:0", "a:70000", "a:+80", ".", "a%00"} {
		if host, port, err := SplitAuthority(in); err == nil {
			t.Errorf("%q passes as %q %d", in, host, port)
		}
	}
}

func TestLooksHTTP(t *testing.T) {
	for in, want := range map[string][2]bool{
		"":                               {false, true},
		"GET":                            {false, true},
		"GET / HT":                       {false, true},
		"GET / HTTP/1.1\r\n":             {true, false},
		"\r\n\r\nget / http/1.0\n":       {true, false},
		" GET\t/\vHTTP/1.1 \r\n":         {true, false},
		"PRI * HTTP/2.0\r\n":             {true, false},
		"SSH-2.0-OpenSSH_9.2p1 Debian\n": {false, false},
		"SSH-2.0-Go\r\n":                 {false, false},
		"EHLO example.org\r\n":           {false, false},
		"PING\r\n":                       {false, false},
		"*1\r\n$4\r\nPING\r\n":           {false, false},
		"\x00\x00\x00\x08":               {false, false},
		"\x16\x03\x01":                   {false, false},
		"AMQP\x00\x00\x09\x01":           {false, false},
		"003fgit-upload-pack /x\x00host": {false, false},
		"GET /\x00 HTTP":                 {false, true},
		"GET /\x00 HTTP/1.1\r\n":         {true, false},
		"GET / HTTP/1.1 x\r\n":           {true, false},
		"GET /\r\n":                      {true, false},
		"get key\r\n":                    {false, false},
		"get /key\r\n":                   {false, false},
		"get HTTP://x/\r\n":              {true, false},
		"{\"json\"":                      {false, false},
		strings.Repeat("A", 70):          {false, true},
		strings.Repeat("A", 70) + "\n":   {false, false},
		strings.Repeat("A", 70) + "=":    {false, false},
		"GET\r/ HTTP/1.1\r\n":            {true, false},
		"get http://x/ FOO/1.1\r\n":      {true, false},
		"0 \x02\x01\x01\x60":             {false, false}, // an LDAP bind of length 32
		"A \x1b":                         {false, false},
		"get /x\x00":                     {false, false},

		strings.Repeat("A", 70) + " / HTTP/1.1\n": {true, false},
	} {
		if yes, maybe := Looks([]byte(in)); yes != want[0] || maybe != want[1] {
			t.Errorf("%q: %v %v", in, yes, maybe)
		}
	}
}

func TestReadHead(t *testing.T) {
	r := bufio.NewReaderSize(strings.NewReader("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nrest"), 16)
	head, err := ReadHead(r)
	if err != nil || string(head) != "GET / HTTP/1.1\r\nHost: a\r\n\r\n" {
		t.Fatalf("%q, %v", head, err)
	}
	if _, err := ReadHead(r); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	if _, err := ReadHead(r); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	var he *Error
	if _, err := ReadHead(bufio.NewReader(strings.NewReader("GET /" + strings.Repeat("a", MaxHead)))); !errors.As(err, &he) || he.Status != 431 {
		t.Fatal(err)
	}
}

func TestParseAnswer(t *testing.T) {
	for head, want := range map[string]Answer{
		"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n": {200, 7},
		"HTTP/1.0 200\n\n": {200, LengthUntilEOF},
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n":                  {200, LengthChunked},
		"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n":   {200, LengthChunked},
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n":                       {304, 0},
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n":               {101, 0},
		"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Length: 7\r\nX: y: z\r\n\r\n": {200, 7},
	} {
		if got, err := ParseAnswer([]byte(head), "GET"); err != nil || got != want {
			t.Errorf("%q: %+v, %v", head, got, err)
		}
	}
	if got, err := ParseAnswer([]byte("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"), "HEAD"); err != nil || got.Length != 0 {
		t.Errorf("HEAD: %+v, %v", got, err)
	}
	for _, head := range []string{"ICY 200 OK\r\n\r\n", "HTTP/1.1 x\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"} {
		if got, err := ParseAnswer([]byte(head), "GET"); err == nil {
			t.Errorf("%q passes: %+v", head, got)
		}
	}
}

// FuzzHTTPHead: what passes must be read by net/http as having the same host
// and the same framing.
func FuzzHTTPHead(f *testing.F) {
	f.Add([]byte("POST /a HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n"))
	f.Add([]byte("GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nabc"))
	f.Add([]byte("\r\nGET / HTTP/1.0\nHost: a\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		Looks(b)
		_, _ = ParseAnswer(b, "GET")
		head, err := ReadHead(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			return
		}
		if len(head) > MaxHead {
			t.Fatalf("a head of %d bytes", len(head))
		}
		q, err := ParseRequest(head)
		if err != nil {
			return
		}
		authority, err := q.Authority()
		if err != nil {
			return
		}
		host, _, err := SplitAuthority(authority)
		if err != nil {
			return
		}
		out := q.Bytes()
		if yes, _ := Looks(out); !yes {
			t.Fatalf("%q passes but does not look like HTTP", out)
		}
		req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(out)))
		if err != nil {
			return // net/http is stricter here and there
		}
		got, _, err := SplitAuthority(req.Host)
		if err != nil || got != host {
			t.Fatalf("host %q, but net/http reads %q from %q", host, req.Host, out)
		}
		if q.Length >= 0 && req.ContentLength != q.Length || q.Length == LengthChunked && len(req.TransferEncoding) != 1 {
			t.Fatalf("length %d, but net/http reads %d from %q", q.Length, req.ContentLength, out)
		}
	})
}
