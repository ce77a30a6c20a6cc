package egress

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"bawn.dev/bawn/internal/egress/httpwire"
	"bawn.dev/bawn/internal/egress/tlshello"
	"bawn.dev/bawn/internal/egress/tunnel/tunneltest"
)

// TestRequestWithoutLineEnd: what some servers take for a request at the end of the
// stream is one here too.
func TestRequestWithoutLineEnd(t *testing.T) {
	for in, want := range map[string]kind{
		"GET http://other.example/ HTTP/1.0": kindHTTP, "GET /": kindHTTP, "get http://other.example/": kindHTTP, "ruok": kindOther, "get key": kindOther,
	} {
		c := &heldConn{Conn: readConn{r: strings.NewReader(in)}}
		if k, err := new(sniffer).sniff(c); k != want || string(c.held) != in || !errors.Is(err, io.EOF) {
			t.Errorf("%q: %v, %q, %v", in, k, c.held, err)
		}
	}
}

// TestLongMethod: what a lenient server would read as a request is looked at,
// however long its first word is.
func TestLongMethod(t *testing.T) {
	l := newLab(t, testRules{"good.example:9000"})
	s := newCounter(t, false, nil)
	l.serve("good.example", "203.0.113.1:9000", s.addr())
	for _, n := range []int{20, 70, 5000} {
		c := l.mustDial("good.example", 9000)
		got := send(t, c, strings.Repeat("A", n)+" / HTTP/1.1\r\nHost: other.example\r\n\r\nGET / HTTP/1.1\r\nHost: other.example\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 40") || !strings.Contains(got, "bawn: ") {
			t.Errorf("a method of %d letters: %q", n, got)
		}
	}
	if s.requests.Load() != 0 {
		t.Errorf("%d requests arrived", s.requests.Load())
	}
}

// readConn is a connection that is only read from.
type readConn struct {
	net.Conn
	r io.Reader
}

func (c readConn) Read(b []byte) (int, error) { return c.r.Read(b) }

// TestFirstBytesAreBounded: a first line or a ClientHello, byte by byte, ends.
func TestFirstBytesAreBounded(t *testing.T) {
	for _, in := range []string{strings.Repeat("A", 3*httpwire.MaxHead), "GET /" + strings.Repeat("a", 3*httpwire.MaxHead)} {
		c := &heldConn{Conn: readConn{r: iotest.OneByteReader(strings.NewReader(in))}}
		if k, err := new(sniffer).sniff(c); k != kindHTTP || len(c.held) > httpwire.MaxHead+1 || err != nil {
			t.Errorf("%v after %d bytes, %v", k, len(c.held), err)
		}
	}
	hello := []byte{22, 3, 1, 0, 1, 1}
	for range tlshello.MaxHello {
		hello = append(hello, 22, 3, 1, 0, 1, 0)
	}
	for _, in := range [][]byte{hello, append([]byte{22, 3, 1, 0x20, 0, 1, 0, 0x1f, 0xfc}, make([]byte, 9000)...)} {
		c := &heldConn{Conn: readConn{r: iotest.OneByteReader(bytes.NewReader(in))}}
		if _, _, err := readHello(c); !errors.As(err, new(refusedHello)) || len(c.held) > tlshello.MaxHello+smallBuffer {
			t.Error(err, len(c.held))
		}
	}
}

// TestBlindAnswers: answers attribute ends cannot be told are passed on, for as many
// requests as come, and a denial among them is quick: a reset.
func TestBlindAnswers(t *testing.T) {
	l := newLab(t, testRules{"good.example:80"})
	addr := tunneltest.Serve(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			if strings.HasPrefix(line, "GET") { // an answer of two lengths
				fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok\n")
			}
		}
	})
	l.serve("good.example", "203.0.113.1:80", addr)
	c := l.mustDial("good.example", 80)
	r := bufio.NewReader(c)
	for i := range 3 * pipelined {
		upgrade := ""
		if i%2 == 1 {
			upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\n"
		}
		fmt.Fprintf(c, "GET /%d HTTP/1.1\r\nHost: good.example\r\n%s\r\n", i, upgrade)
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				t.Fatalf("request %d: %v", i, err)
			}
			if line == "ok\n" {
				break
			}
		}
	}
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: other.example\r\n\r\n")
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := r.ReadString('\n'); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("no end:", err)
	}
	if d := l.Denials(); len(d) != 1 || !strings.Contains(d[0].Reason, "other.example") {
		t.Errorf("%+v", d)
	}
}

func TestHTTPAuthority(t *testing.T) {
	l := newLab(t, testRules{"good.example:80", "other.example:80", "203.0.113.7:80"})
	s := newCounter(t, false, nil)
	l.serve("good.example", "203.0.113.1:80", s.addr())
	l.serve("", "203.0.113.7:80", s.addr())
	c := l.client()
	for range 3 {
		if code, body := get(t, c, "http://good.example/"); code != 200 || body != "hello good.example" {
			t.Fatal(code, body)
		}
	}
	if n := s.conns.Load(); n != 1 {
		t.Errorf("%d connections: not kept alive", n)
	}
	if code, body := get(t, c, "http://203.0.113.7/"); code != 200 || body != "hello 203.0.113.7" {
		t.Error(code, body)
	}
	good := "GET / HTTP/1.1\r\nHost: good.example\r\n\r\n"
	before := s.requests.Load()
	for name, head := range map[string]string{
		"another Host":         "GET / HTTP/1.1\r\nHost: other.example\r\n\r\n",
		"another port":         "GET / HTTP/1.1\r\nHost: good.example:8080\r\n\r\n",
		"no Host":              "GET / HTTP/1.0\r\n\r\n",
		"absolute form":        "GET http://other.example/ HTTP/1.1\r\nHost: good.example\r\n\r\n",
		"absolute form, alone": "GET http://other.example/ HTTP/1.1\r\nHost: other.example\r\n\r\n",
		"CONNECT":              "CONNECT other.example:443 HTTP/1.1\r\nHost: good.example\r\n\r\n",
		"user in the address":  "GET http://good.example@other.example/ HTTP/1.1\r\n\r\n",
		"lower-case, blank":    "\r\n get / HTTP/1.1\r\nhost: other.example\r\n\r\n",
		"two lengths":          "POST / HTTP/1.1\r\nHost: good.example\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	} {
		if got := send(t, l.mustDial("good.example", 80), head); !strings.HasPrefix(got, "HTTP/1.1 40") || !strings.Contains(got, "bawn: ") {
			t.Errorf("%s: %q", name, got)
		}
	}
	if n := s.requests.Load(); n != before {
		t.Errorf("%d refused requests reached the server", n-before)
	}
	// On a kept-alive connection, and pipelined: the first is answered whole.
	for name, second := range map[string]string{
		"Host":    "GET /2 HTTP/1.1\r\nHost: other.example\r\n\r\n",
		"smuggle": "POST /2 HTTP/1.1\r\nHost: good.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /3 HTTP/1.1\r\nHost: other.example\r\n\r\n",
	} {
		got := send(t, l.mustDial("good.example", 80), good+second)
		i := strings.Index(got, "hello good.example")
		j := strings.Index(got, "HTTP/1.1 403 Forbidden")
		if i < 0 || j < i || strings.Contains(got, "hello other") {
			t.Errorf("pipelined %s: %q", name, got)
		}
	}
}

func TestHTTPStreaming(t *testing.T) {
	l := newLab(t, testRules{"good.example:80", "good.example:8080"})
	step := make(chan struct{})
	s := newCounter(t, false, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/stream": // each part is sent only when the client has seen the last
			for i := range 3 {
				fmt.Fprintf(w, "part %d\n", i)
				w.(http.Flusher).Flush()
				<-step
			}
		case "/echo": // full duplex
			_ = http.NewResponseController(w).EnableFullDuplex()
			buf := make([]byte, 100)
			for {
				n, err := r.Body.Read(buf)
				_, _ = w.Write(buf[:n])
				w.(http.Flusher).Flush()
				if err != nil {
					return
				}
			}
		case "/big":
			_, _ = io.CopyN(w, zero{}, 10<<20)
		case "/length":
			n, _ := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, n, r.Header.Get("Expect"))
		case "/close":
			w.Header().Set("Connection", "close")
			fmt.Fprint(w, "bye")
		}
	})
	for _, port := range []string{"80", "8080"} {
		l.serve("good.example", "203.0.113.1:"+port, s.addr())
		base := "http://good.example:" + port
		c := l.client()
		r, err := c.Get(base + "/stream")
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(r.Body)
		for i := range 3 {
			line, err := lines.ReadString('\n')
			if err != nil || line != fmt.Sprintf("part %d\n", i) {
				t.Fatal(line, err)
			}
			step <- struct{}{}
		}
		r.Body.Close()

		pr, pw := io.Pipe()
		req, _ := http.NewRequest("POST", base+"/echo", pr)
		go func() { _, _ = io.WriteString(pw, "one") }()
		r, err = c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 3)
		for _, word := range []string{"one", "two"} {
			if word == "two" {
				_, _ = io.WriteString(pw, word)
			}
			if _, err := io.ReadFull(r.Body, buf); err != nil || string(buf) != word {
				t.Fatal(string(buf), err)
			}
		}
		pw.Close()
		if rest, err := io.ReadAll(r.Body); err != nil || len(rest) != 0 {
			t.Fatal(rest, err)
		}
		r.Body.Close()

		if _, body := get(t, c, base+"/big"); len(body) != 10<<20 {
			t.Fatal(len(body))
		}
		tr := c.Transport.(*http.Transport)
		tr.ExpectContinueTimeout = time.Minute
		req, _ = http.NewRequest("POST", base+"/length", io.LimitReader(zero{}, 5<<20))
		req.ContentLength = 5 << 20
		req.Header.Set("Expect", "100-continue")
		if r, err = c.Do(req); err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(r.Body); string(b) != "5242880100-continue" && string(b) != "5242880 100-continue" {
			t.Fatal(string(b))
		}
		r.Body.Close()
		if _, body := get(t, c, base+"/close"); body != "bye" {
			t.Fatal(body)
		}
		if r, err := c.Head(base + "/big"); err != nil || r.StatusCode != 200 {
			t.Fatal(r, err)
		}
		if code, body := get(t, c, base+"/length"); code != 200 || body != "0" {
			t.Fatal(code, body)
		}
	}
}

func TestHTTPUpgrade(t *testing.T) {
	l := newLab(t, testRules{"good.example:80"})
	var upgrades atomic.Int32
	s := newCounter(t, false, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			fmt.Fprint(w, "plain")
			return
		}
		upgrades.Add(1)
		c, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhi!")
		rw.Flush()
		_, _ = io.Copy(c, rw)
	})
	l.serve("good.example", "203.0.113.1:80", s.addr())
	c := l.mustDial("good.example", 80)
	fmt.Fprint(c, "GET /ws HTTP/1.1\r\nHost: good.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	br := bufio.NewReader(c)
	r, err := http.ReadResponse(br, nil)
	if err != nil || r.StatusCode != 101 {
		t.Fatal(r, err)
	}
	// What follows is no HTTP of this connection any more, and half-close works.
	frame := "GET / HTTP/1.1\r\nHost: other.example\r\n\r\n\x00\xff"
	fmt.Fprint(c, frame)
	_ = c.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(br); err != nil || string(b) != "hi!"+frame {
		t.Fatalf("%q %v", b, err)
	}
	// h2c is not offered to the server; the request goes on as HTTP/1.
	got := send(t, l.mustDial("good.example", 80), "GET / HTTP/1.1\r\nHost: good.example\r\nConnection: close, Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n")
	if !strings.HasSuffix(got, "plain") || upgrades.Load() != 1 {
		t.Fatal(got)
	}
}
