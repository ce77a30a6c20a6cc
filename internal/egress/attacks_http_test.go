package egress

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"bawn.dev/bawn/internal/egress/tunnel/tunneltest"
)

// carelessServer answers requests and ignores their bodies, and what it does not
// understand; seen returns the heads.
func carelessServer(t *testing.T) (addr string, seen func() string) {
	t.Helper()
	out := &output{}
	addr = tunneltest.Serve(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			line, err := r.ReadString('\n')
			fmt.Fprint(out, line)
			if err != nil {
				return
			}
			if strings.Contains(line, " HTTP/1.1") {
				fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}
		}
	})
	return addr, out.String
}

// TestAttackRequestInABody: a server that ignores a body takes it for the next request.
func TestAttackRequestInABody(t *testing.T) {
	hidden := "GET /other HTTP/1.1\r\nHost: other.example\r\n\r\n"
	length := func(method, body string) string {
		return fmt.Sprintf("%s / HTTP/1.1\r\nHost: good.example\r\nContent-Length: %d\r\n\r\n%s", method, len(body), body)
	}
	chunks := func(method string, bodies ...string) string {
		s := method + " / HTTP/1.1\r\nHost: good.example\r\nTransfer-Encoding: chunked\r\n\r\n"
		for _, b := range bodies {
			s += fmt.Sprintf("%x\r\n%s\r\n", len(b), b)
		}
		return s + "0\r\n\r\n"
	}
	attacks := map[string]string{
		"GET":                      length("GET", hidden),
		"DELETE":                   length("DELETE", hidden),
		"OPTIONS":                  length("OPTIONS", hidden),
		"POST":                     length("POST", hidden),
		"unknown method":           length("BREW", "\r\n"+hidden),
		"empty lines before":       length("PUT", "\r\n\r\n"+hidden),
		"behind a line":            length("GET", "junk\r\n"+hidden),
		"behind JSON":              length("GET", "{}\r\n"+hidden),
		"in a chunk":               chunks("GET", hidden),
		"in the second chunk":      chunks("GET", "{", hidden),
		"in many chunks":           chunks("DELETE", "{", "GET /other", " HTTP/1.1\r\nHost: other.example\r\n\r\n"),
		"POST in a chunk":          chunks("POST", hidden),
		"without its end":          length("POST", "GET /other HTTP/1.1"),
		"rest as the next request": length("GET", "{}") + hidden,
	}
	python, pout := pythonServer(t)
	careless, seen := carelessServer(t)
	for _, addr := range []string{python, careless} {
		l := newLab(t, testRules{"good.example:80", "good.example:8080"})
		l.serve("good.example", "203.0.113.1:80", addr)
		l.serve("good.example", "203.0.113.1:8080", addr)
		for name, text := range attacks {
			for _, slow := range []bool{false, true} {
				c := l.mustDial("good.example", 80)
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				if slow {
					c = slowConn{c}
				}
				_, _ = io.WriteString(c, text)
				if b, err := io.ReadAll(c); isTimeout(err) {
					t.Errorf("%s: no end: %q", name, b)
				}
				c.Close()
			}
		}
		// A search with a body in a GET gets its answer, and so does what comes next.
		for range 2 {
			req, _ := http.NewRequest("GET", "http://good.example:8080/", strings.NewReader(`{"query": "GET / HTTP/1.1"}`))
			if addr == careless {
				req.Body, req.ContentLength = nil, 0
			}
			r, err := l.client().Do(req)
			if err != nil || r.StatusCode != 200 {
				t.Fatal(r, err)
			}
			r.Body.Close()
		}
	}
	if s := pout.String() + seen(); strings.Contains(s, "other.example") || strings.Contains(s, "REQUEST GET /other") {
		t.Errorf("the server was asked for another host:\n%s", s)
	}
	// Documents about HTTP can be sent.
	l := newLab(t, testRules{"good.example:80"})
	s := newCounter(t, false, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	l.serve("good.example", "203.0.113.1:80", s.addr())
	for _, body := range []string{"An example:\r\n" + hidden, `{"GET": "/ HTTP/1.1"}`, "--x\r\n\r\n" + hidden, "get /x\r\n", strings.Repeat("a", 1<<20), ""} {
		r, err := l.client().Post("http://good.example/", "text/plain", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(r.Body); string(b) != body || err != nil {
			t.Errorf("%.20q came back as %.20q, %v", body, b, err)
		}
		r.Body.Close()
	}
}

// TestLineEndBehindABody: it is no head whose time begins.
func TestLineEndBehindABody(t *testing.T) {
	l := newLab(t, testRules{"good.example:80"})
	l.headTime = 20 * time.Millisecond
	goOn := make(chan struct{})
	s := newCounter(t, false, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "first ")
		w.(http.Flusher).Flush()
		<-goOn
		fmt.Fprint(w, "second")
	})
	l.serve("good.example", "203.0.113.1:80", s.addr())
	for _, stray := range []string{"\r\n", "\n", "\r\n\r\n\n", "\r"} {
		c := l.mustDial("good.example", 80)
		fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: good.example\r\nContent-Length: 2\r\n\r\nok"+stray)
		br := bufio.NewReader(c)
		r, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * l.headTime)
		goOn <- struct{}{}
		if b, err := io.ReadAll(r.Body); string(b) != "first second" || err != nil {
			t.Errorf("%q: %q, %v", stray, b, err)
		}
		if stray == "\r" {
			continue
		}
		// The next request is read, and its head has its time.
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: good.example\r\nConnection: close\r\n")
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if b, err := io.ReadAll(br); isTimeout(err) {
			t.Errorf("a head without an end: %q, %v", b, err)
		}
	}
}

// TestAllHostsOfAConnectionAreRemembered: a connection to an address is cut with the
// rule of any host that was named on it.
func TestAllHostsOfAConnectionAreRemembered(t *testing.T) {
	rules := []string{"203.0.113.0/24:*", "a.example:*", "b.example:*", "c.example:*"}
	for _, port := range []string{"80", "8080"} {
		for gone := 1; gone < len(rules); gone++ {
			l := newLab(t, rules)
			s := newCounter(t, false, nil)
			l.serve("", "203.0.113.1:"+port, s.addr())
			c, err := l.dialAddr(netip.MustParseAddrPort("203.0.113.1:" + port))
			if err != nil {
				t.Fatal(err)
			}
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			br := bufio.NewReader(c)
			for _, host := range []string{"a.example", "b.example", "c.example", "a.example"} {
				fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host)
				r, err := http.ReadResponse(br, nil)
				if err != nil {
					t.Fatal(err)
				}
				if b, _ := io.ReadAll(r.Body); string(b) != "hello "+host {
					t.Fatalf("%q", b)
				}
			}
			l.SetPolicy(testRules(append(append([]string{}, rules[:gone]...), rules[gone+1:]...)).set())
			if _, err := br.ReadByte(); err == nil || isTimeout(err) {
				t.Errorf("without %s the connection lives on: %v", rules[gone], err)
			}
		}
	}
}

// TestManyHostsOnAConnection: what is remembered is bounded.
func TestManyHostsOnAConnection(t *testing.T) {
	l := newLab(t, testRules{"203.0.113.1:80", "**.example:80"})
	s := newCounter(t, false, nil)
	l.serve("", "203.0.113.1:80", s.addr())
	c, err := l.dialAddr(netip.MustParseAddrPort("203.0.113.1:80"))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for i := range maxAlso + 1 {
			fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: h%d.example\r\n\r\n", i)
		}
	}()
	b, _ := io.ReadAll(c)
	if n := strings.Count(string(b), "200 OK"); n != maxAlso || !strings.Contains(string(b), "403") {
		t.Errorf("%d requests passed", n)
	}
}

// TestAttackErrorPage: what the guest reads about a server that is not reached has
// nothing of the host's network.
func TestAttackErrorPage(t *testing.T) {
	closed := freePort(t)
	l := newLab(t, testRules{"**:*"}, func(c *Config) {
		c.Resolve = func(_ context.Context, name string) ([]netip.Addr, error) {
			switch name {
			case "missing.example":
				return nil, &net.DNSError{Err: "no such host", Name: name, Server: "10.9.8.7:53", IsNotFound: true}
			case "slow.example":
				return nil, &net.DNSError{Err: "read udp 10.1.1.1:4711->10.9.8.7:53: i/o timeout", Name: name, Server: "10.9.8.7:53", IsTimeout: true}
			case "broken.example":
				return nil, &net.DNSError{Err: "server misbehaving", Name: name, Server: "10.9.8.7:53"}
			}
			return []netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")}, nil
		}
		c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if strings.Contains(addr, "113.2:") {
				return nil, &net.OpError{Op: "dial", Net: network, Source: &net.TCPAddr{IP: net.IPv4(10, 1, 1, 1)}, Addr: &net.TCPAddr{IP: net.IPv4(203, 0, 113, 2)}, Err: fmt.Errorf("socket of 10.1.1.1")}
			}
			return new(net.Dialer).DialContext(ctx, network, closed)
		}
	})
	for name, want := range map[string]string{
		"missing.example": "no such host", "slow.example": "timed out", "broken.example": "cannot be resolved", "closed.example": "connection refused",
	} {
		code, body := get(t, l.client(), "http://"+name+"/")
		if code != 502 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %q", name, code, body)
		}
		for _, secret := range []string{"10.", "127.0", "203.", ":53", "udp", "lookup", "dial"} {
			if strings.Contains(body, secret) {
				t.Errorf("%s: the page has %q: %q", name, secret, body)
			}
		}
	}
	// The log, on the host, has it all.
	if log := fmt.Sprintf("%+v", readAll(t, l.path)); !strings.Contains(log, "10.9.8.7:53") {
		t.Error(log)
	}
}

// TestAttackTunnelByUpgrade: an upgrade to a tunnel is not offered to the server.
func TestAttackTunnelByUpgrade(t *testing.T) {
	l := newLab(t, testRules{"good.example:80"})
	s := newCounter(t, false, func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "upgrade %q", r.Header.Get("Upgrade")) })
	l.serve("good.example", "203.0.113.1:80", s.addr())
	for _, to := range []string{"connect-udp", "Connect-IP", "connect-tcp", "h2c", "TLS/1.2", "HTTP/2.0"} {
		got := send(t, l.mustDial("good.example", 80), "GET /.well-known/masque/udp/other.example/53/ HTTP/1.1\r\nHost: good.example\r\nConnection: close, Upgrade\r\nUpgrade: "+to+"\r\n\r\n")
		if !strings.HasSuffix(got, `upgrade ""`) {
			t.Errorf("%s: %q", to, got)
		}
	}
}
