package egress

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"bawn.dev/bawn/internal/egress/tunnel/tunneltest"
)

func TestUnendingFirstLine(t *testing.T) {
	l := newLab(t, testRules{"good.example:9000"})
	l.firstBytesTime = time.Millisecond
	ln, _ := net.Listen("tcp", "127.0.0.1:0")
	defer ln.Close()
	got := make(chan string, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		b, _ := io.ReadAll(c)
		got <- string(b)
	}()
	l.serve("good.example", "203.0.113.1:9000", ln.Addr().String())
	c := l.mustDial("good.example", 9000)
	if back := send(t, c, "GET / HT"); back != "" {
		t.Errorf("%q", back)
	}
	if b := <-got; b != "" {
		t.Errorf("%q reached the server", b)
	}
	if d := l.Denials(); len(d) != 1 || !strings.Contains(d[0].Reason, "does not end") {
		t.Errorf("%+v", d)
	}
}

// TestFirstWord: a protocol attribute first word has no line end is answered, and a
// request in single bytes arrives whole, once, or not at all.
func TestFirstWord(t *testing.T) {
	l := newLab(t, testRules{"good.example:2181", "good.example:9000", "good.example:9001"})
	addr := tunneltest.Serve(t, func(c net.Conn) {
		word := make([]byte, 4)
		if _, err := io.ReadFull(c, word); err == nil && string(word) == "ruok" {
			fmt.Fprint(c, "imok")
		}
	})
	l.serve("good.example", "203.0.113.1:2181", addr)
	c := l.mustDial("good.example", 2181)
	fmt.Fprint(c, "ru")
	time.Sleep(time.Millisecond) // two pieces, most times
	fmt.Fprint(c, "ok")
	if b, err := io.ReadAll(c); string(b) != "imok" {
		t.Errorf("%q, %v", b, err)
	}
	s := newCounter(t, false, nil)
	l.serve("good.example", "203.0.113.1:9000", s.addr())
	for host, want := range map[string]string{"good.example:9000": "HTTP/1.1 200", "other.example:9000": "HTTP/1.1 403"} {
		c := l.mustDial("good.example", 9000)
		for _, b := range []byte("GET / HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n") {
			_, _ = c.Write([]byte{b})
			time.Sleep(time.Millisecond)
		}
		if b, err := io.ReadAll(c); !strings.HasPrefix(string(b), want) {
			t.Errorf("%s: %q, %v", host, b, err)
		}
	}
	if s.requests.Load() != 1 {
		t.Errorf("%d requests arrived", s.requests.Load())
	}
}

func TestServerSpeaksFirst(t *testing.T) {
	l := newLab(t, testRules{"good.example:22", "good.example:5432", "good.example:9000", "closed.example:22"})
	addr := tunneltest.Serve(t, func(c net.Conn) {
		fmt.Fprint(c, "SSH-2.0-server\r\n")
		b, _ := io.ReadAll(c) // to the client's half-close
		fmt.Fprintf(c, "got %q", b)
	})
	for _, port := range []string{"22", "9000"} {
		l.serve("good.example", "203.0.113.1:"+port, addr)
	}
	talk := func(port uint16, text string) string {
		c := l.mustDial("good.example", port)
		br := bufio.NewReader(c)
		if line, err := br.ReadString('\n'); err != nil || line != "SSH-2.0-server\r\n" {
			t.Fatal(line, err)
		}
		fmt.Fprint(c, text)
		_ = c.(*net.TCPConn).CloseWrite()
		b, _ := io.ReadAll(br)
		return string(b)
	}
	if got := talk(22, "SSH-2.0-client x\r\nmore"); got != `got "SSH-2.0-client x\r\nmore"` {
		t.Error(got)
	}
	if got := talk(22, ""); got != `got ""` {
		t.Error(got)
	}
	if got := talk(9000, "GET / HTTP/1.1\r\nHost: good.example:9000\r\n\r\n"); !strings.HasPrefix(got, `got "GET / HTTP/1.1`) {
		t.Error(got)
	}
	if got := talk(9000, "GET / HTTP/1.1\r\nHost: other.example\r\n\r\n"); strings.Contains(got, "other") {
		t.Error(got)
	}
	if got := talk(9000, string(handmadeHello("other.example"))); strings.Contains(got, "other") {
		t.Error(got)
	}
	if _, err := l.dialName("closed.example", 22); !errors.Is(err, errRejected) {
		t.Error("a refused connection:", err)
	}
}

func TestOddPorts(t *testing.T) {
	l := newLab(t, testRules{"good.example:9443", "good.example:9080"})
	s, p := newCounter(t, true, nil), newCounter(t, false, nil)
	l.serve("good.example", "203.0.113.1:9443", s.addr())
	l.serve("good.example", "203.0.113.1:9080", p.addr())
	if code, body := get(t, l.client(), "https://good.example:9443/"); code != 200 || body != "hello good.example:9443" {
		t.Error(code, body)
	}
	c := l.mustDial("good.example", 9443)
	if err := tls.Client(c, &tls.Config{ServerName: "other.example", InsecureSkipVerify: true}).Handshake(); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("another name on an odd port: %v", err)
	}
	if code, body := get(t, l.client(), "http://good.example:9080/"); code != 200 || body != "hello good.example:9080" {
		t.Error(code, body)
	}
	req, _ := http.NewRequest("GET", "http://good.example:9080/", nil)
	req.Host = "other.example"
	if r, err := l.client().Do(req); err != nil || r.StatusCode != 403 {
		t.Error(r, err)
	}
	if s.requests.Load() != 1 || p.requests.Load() != 1 {
		t.Error("a refused request reached the server")
	}
}
