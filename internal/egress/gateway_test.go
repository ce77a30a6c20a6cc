package egress

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/http2"
	"golang.org/x/time/rate"

	"bawn.dev/bawn/internal/egress/audit"
	"bawn.dev/bawn/internal/egress/tlshello"
)

var errRejected = errors.New("rejected")

var (
	testPool4 = netip.MustParsePrefix("198.18.0.0/16")
	testPool6 = netip.MustParsePrefix("fd62:7269:6700:1::/64")
)

// lab is a gateway between a test's clients and counting servers on loopback.
type lab struct {
	*Gateway
	t     *testing.T
	path  string
	mu    sync.Mutex
	zone  map[string][]netip.Addr
	route map[string]string // "addr:port" as dialled -> the server's real address
}

var (
	testDNS   = netip.MustParseAddrPort("192.0.2.1:53")
	testGuest = netip.MustParseAddrPort("192.0.2.2:40000")
	testInfo  = netip.MustParseAddrPort("192.0.2.1:80")
)

func newLab(t *testing.T, r testRules, change ...func(*Config)) *lab {
	l := &lab{t: t, zone: map[string][]netip.Addr{}, route: map[string]string{}}
	l.path = filepath.Join(t.TempDir(), "net.log")
	log, err := audit.Open(l.path, 0)
	if err != nil {
		t.Fatal(err)
	}
	conf := Config{
		Policy: r.set(),
		Pool4:  testPool4, Pool6: testPool6, DNS: []netip.AddrPort{testDNS}, Info: []netip.AddrPort{testInfo},
		Log: log,
		Resolve: func(_ context.Context, name string) ([]netip.Addr, error) {
			l.mu.Lock()
			defer l.mu.Unlock()
			if a, ok := l.zone[name]; ok {
				return a, nil
			}
			return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
		},
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			l.mu.Lock()
			real, ok := l.route[addr]
			l.mu.Unlock()
			if !ok {
				return nil, fmt.Errorf("dial %s: connection refused", addr)
			}
			return new(net.Dialer).DialContext(ctx, network, real)
		},
		HostAddrs: func() []netip.Addr { return addrs("203.0.113.200") },
	}
	for _, c := range change {
		c(&conf)
	}
	l.Gateway = New(conf)
	t.Cleanup(func() {
		l.Close()
		log.Close()
	})
	return l
}

// readAll returns the entries of a log.
func readAll(t *testing.T, path string) []audit.Entry {
	t.Helper()
	var all []audit.Entry
	if err := audit.Read(path, func(e audit.Entry) error { all = append(all, e); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

// serve routes addr:port to a server, under a name if there is one.
func (l *lab) serve(name, addrPort, real string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ap := netip.MustParseAddrPort(addrPort)
	if name != "" {
		l.zone[name] = []netip.Addr{ap.Addr()}
	}
	l.route[addrPort] = real
}

// guestRequest is a connection that the guest wants, over a real socket pair.
type guestRequest struct {
	accepted chan net.Conn
	rejected chan struct{}
}

func (r *guestRequest) Accept() (net.Conn, error) {
	inner, outer, err := socketPair()
	if err != nil {
		return nil, err
	}
	r.accepted <- outer
	return inner, nil
}

func (r *guestRequest) Reject() { close(r.rejected) }

func socketPair() (a, b net.Conn, err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer ln.Close()
	if b, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		return nil, nil, err
	}
	a, err = ln.Accept()
	return a, b, err
}

// dialAddr connects like the guest; errRejected is a reset.
func (l *lab) dialAddr(dst netip.AddrPort) (net.Conn, error) {
	r := &guestRequest{accepted: make(chan net.Conn, 1), rejected: make(chan struct{})}
	go l.TCP(testGuest, dst, r)
	select {
	case c := <-r.accepted:
		l.t.Cleanup(func() { c.Close() })
		return c, nil
	case <-r.rejected:
		return nil, errRejected
	}
}

// ask queries the gateway's DNS server.
func (l *lab) ask(name string, qtype uint16) *dns.Msg {
	l.t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(name, qtype)
	b, err := q.Pack()
	if err != nil {
		l.t.Fatal(err)
	}
	var out dns.Msg
	if err := out.Unpack(l.reply(b, nil)); err != nil {
		l.t.Fatal(err)
	}
	return &out
}

// dialName looks the name up as the guest does, and connects.
func (l *lab) dialName(name string, port uint16) (net.Conn, error) {
	m := l.ask(name+".", dns.TypeA)
	if m.Rcode == dns.RcodeNameError {
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	a, _ := netip.AddrFromSlice(m.Answer[0].(*dns.A).A.To4())
	return l.dialAddr(netip.AddrPortFrom(a, port))
}

func (l *lab) mustDial(name string, port uint16) net.Conn {
	l.t.Helper()
	c, err := l.dialName(name, port)
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

// client is an HTTP client in the guest.
func (l *lab) client() *http.Client {
	tr := &http.Transport{
		DialContext: func(_ context.Context, _, addr string) (net.Conn, error) {
			host, port, _ := net.SplitHostPort(addr)
			var n uint16
			fmt.Sscan(port, &n)
			if a, err := netip.ParseAddr(host); err == nil {
				return l.dialAddr(netip.AddrPortFrom(a, n))
			}
			return l.dialName(host, n)
		},
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		ForceAttemptHTTP2: true,
	}
	l.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// send writes bytes and returns all that comes back until the end.
func send(t *testing.T, c net.Conn, text string) string {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(c)
	return string(b)
}

// counter is an HTTP server that counts connections and requests.
type counter struct {
	*httptest.Server
	conns, requests atomic.Int32
}

func newCounter(t *testing.T, useTLS bool, h http.HandlerFunc) *counter {
	var both http.Protocols
	both.SetHTTP1(true)
	both.SetHTTP2(true)
	both.SetUnencryptedHTTP2(true)
	c := &counter{}
	if h == nil {
		h = func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "hello %s", r.Host) }
	}
	c.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.requests.Add(1)
		h(w, r)
	}))
	c.Config.Protocols = &both
	c.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			c.conns.Add(1)
		}
	}
	c.EnableHTTP2 = true
	if useTLS {
		c.StartTLS()
	} else {
		c.Start()
	}
	t.Cleanup(c.Close)
	return c
}

func (c *counter) addr() string { return c.Listener.Addr().String() }

func get(t *testing.T, c *http.Client, url string) (int, string) {
	t.Helper()
	r, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

func TestTLS(t *testing.T) {
	l := newLab(t, testRules{"good.example:443", "bad.example:443", "raw.example:443 raw"})
	s := newCounter(t, true, nil)
	l.serve("good.example", "203.0.113.1:443", s.addr())
	l.serve("raw.example", "203.0.113.2:443", s.addr())
	if code, body := get(t, l.client(), "https://good.example/"); code != 200 || body != "hello good.example" {
		t.Fatal(code, body)
	}
	before := s.conns.Load()
	handshake := func(host string, cfg *tls.Config) error {
		cfg.InsecureSkipVerify = true
		c := l.mustDial(host, 443)
		defer c.Close()
		return tls.Client(c, cfg).Handshake()
	}
	for name, cfg := range map[string]*tls.Config{
		"another name": {ServerName: "bad.example"},
		"a name below": {ServerName: "x.good.example"},
		"no name":      {},
	} {
		var alertErr tls.AlertError
		err := handshake("good.example", cfg)
		if !errors.As(err, &alertErr) && (err == nil || !strings.Contains(err.Error(), "unrecognized name")) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := l.mustDial("good.example", 443)
	if got := send(t, c, string(handmadeHello("good.example", []byte{0xfe, 0x0d, 0, 1, 0}))); got != string(tlshello.Alert(tlshello.AlertUnrecognizedName)) {
		t.Errorf("ECH: %q", got)
	}
	c = l.mustDial("good.example", 443)
	if got := send(t, c, "GET / HTTP/1.1\r\nHost: good.example\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 403") || strings.Contains(got, "policy allow") || !strings.Contains(got, "a rule with raw") {
		t.Errorf("plain HTTP, which a rule allows already: %q", got)
	}
	c = l.mustDial("good.example", 443)
	if got := send(t, c, "SSH-2.0-x\r\n"); got != "" {
		t.Errorf("SSH: %q", got)
	}
	if n := s.conns.Load(); n != before {
		t.Errorf("%d refused connections reached the server", n-before)
	}
	if err := handshake("raw.example", &tls.Config{ServerName: "anything.example"}); err != nil {
		t.Errorf("raw: %v", err)
	}
	if len(l.Denials()) < 4 {
		t.Errorf("denials: %+v", l.Denials())
	}
}

func TestDeniedConnections(t *testing.T) {
	l := newLab(t, testRules{"good.example:443", "192.0.2.55:8080", "10.0.0.0/8:443"})
	s := newCounter(t, false, nil)
	for _, a := range []string{"203.0.113.1:22", "203.0.113.1:80", "203.0.113.9:443", "198.18.77.77:443", "169.254.169.254:80", "127.0.0.1:443", "192.0.2.1:22"} {
		l.serve("", a, s.addr())
	}
	l.serve("good.example", "203.0.113.1:22", s.addr())
	if _, err := l.dialName("good.example", 22); !errors.Is(err, errRejected) {
		t.Error("another port:", err)
	}
	for _, a := range []string{"203.0.113.9:443", "198.18.77.77:443", "169.254.169.254:80", "127.0.0.1:443", "192.0.2.1:22", "[::ffff:10.0.0.1]:443"} {
		if _, err := l.dialAddr(netip.MustParseAddrPort(a)); !errors.Is(err, errRejected) {
			t.Errorf("%s: %v", a, err)
		}
	}
	if _, err := l.dialName("evil.example", 443); err == nil {
		t.Error("an unknown name resolves")
	}
	// Port 80 of a known name explains itself.
	if code, body := get(t, l.client(), "http://good.example/x"); code != 403 || !strings.Contains(body, "bawn policy allow good.example\n") {
		t.Error(code, body)
	}
	if s.conns.Load() != 0 {
		t.Error("something reached the server")
	}
	if !slices.ContainsFunc(l.Denials(), func(d Denial) bool { return d.Name == "good.example" && d.Port == 22 && d.Suggest == "good.example:22" }) {
		t.Errorf("the denials are %+v", l.Denials())
	}
}

func TestDeniedByFloor(t *testing.T) {
	l := newLab(t, testRules{"inside.example:80", "inside.example:443", "inside.example:22", "none.example:80"})
	s := newCounter(t, false, nil)
	for _, port := range []string{"80", "443", "22"} {
		l.serve("inside.example", "10.0.0.1:"+port, s.addr())
	}
	code, body := get(t, l.client(), "http://inside.example/")
	if code != 403 || !strings.Contains(body, "10.0.0.1 is private") || !strings.Contains(body, "bawn policy allow 10.0.0.1\n") {
		t.Error(code, body)
	}
	c := l.mustDial("inside.example", 443)
	err := tls.Client(c, &tls.Config{ServerName: "inside.example"}).Handshake()
	if err == nil || !strings.Contains(err.Error(), "access denied") {
		t.Error(err)
	}
	if _, err := l.dialName("inside.example", 22); !errors.Is(err, errRejected) {
		t.Error(err)
	}
	if code, body := get(t, l.client(), "http://none.example/"); code != 502 || !strings.Contains(body, "no such host") {
		t.Error(code, body)
	}
	if s.conns.Load() != 0 {
		t.Error("something reached the server")
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

type zero struct{}

func (zero) Read(b []byte) (int, error) { clear(b); return len(b), nil }

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

func TestHTTP2Clear(t *testing.T) {
	l := newLab(t, testRules{"good.example:80", "good.example:50051"})
	s := newCounter(t, false, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s", r.Proto, r.Host, b)
	})
	for _, port := range []uint16{80, 50051} {
		l.serve("good.example", fmt.Sprintf("203.0.113.1:%d", port), s.addr())
		//nolint:staticcheck // its successor speaks no HTTP/2 in the clear from the start on this connection
		tr := &http2.Transport{AllowHTTP: true, DialTLSContext: func(context.Context, string, string, *tls.Config) (net.Conn, error) {
			return l.dialName("good.example", port)
		}}
		defer tr.CloseIdleConnections() //nolint:staticcheck // as above
		c := &http.Client{Transport: tr}
		base := fmt.Sprintf("http://good.example:%d/", port)
		for range 2 {
			r, err := c.Post(base, "text/plain", strings.NewReader("body"))
			if err != nil {
				t.Fatal(err)
			}
			if b, _ := io.ReadAll(r.Body); string(b) != fmt.Sprintf("HTTP/2.0 good.example:%d body", port) {
				t.Fatalf("%q", b)
			}
			r.Body.Close()
		}
		before := s.requests.Load()
		req, _ := http.NewRequest("GET", base, nil)
		req.Host = "other.example"
		r, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(r.Body)
		if r.StatusCode != 403 || !strings.Contains(string(b), "other.example") || s.requests.Load() != before {
			t.Fatalf("%d %q", r.StatusCode, b)
		}
		r.Body.Close()
	}
}

func TestServerSpeaksFirst(t *testing.T) {
	l := newLab(t, testRules{"good.example:22", "good.example:5432", "good.example:9000", "closed.example:22"})
	ln, _ := net.Listen("tcp", "127.0.0.1:0")
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				fmt.Fprint(c, "SSH-2.0-server\r\n")
				b, _ := io.ReadAll(c) // to the client's half-close
				fmt.Fprintf(c, "got %q", b)
			}()
		}
	}()
	for _, port := range []string{"22", "9000"} {
		l.serve("good.example", "203.0.113.1:"+port, ln.Addr().String())
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

func TestSetRulesCuts(t *testing.T) {
	all := testRules{"a.example:80", "b.example:22", "c.example:22 raw", "d.example:22", "10.0.0.0/8:22", "203.0.113.9:22"}
	l := newLab(t, all)
	ln, _ := net.Listen("tcp", "127.0.0.1:0")
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); c.Close() }()
		}
	}()
	l.serve("b.example", "203.0.113.1:22", ln.Addr().String())
	l.serve("c.example", "203.0.113.1:22", ln.Addr().String())
	l.serve("d.example", "10.0.0.1:22", ln.Addr().String())
	l.serve("", "203.0.113.9:22", ln.Addr().String())
	open := map[string]net.Conn{}
	for _, name := range []string{"b.example", "c.example", "d.example"} {
		open[name] = l.mustDial(name, 22)
	}
	var err error
	if open["ip"], err = l.dialAddr(netip.MustParseAddrPort("203.0.113.9:22")); err != nil {
		t.Fatal(err)
	}
	echo := func(name string) error {
		if _, err := io.WriteString(open[name], "\x00ping"); err != nil {
			return err
		}
		_, err := io.ReadFull(open[name], make([]byte, 5))
		return err
	}
	check := func(when string, alive ...string) {
		t.Helper()
		for name := range open {
			err := echo(name)
			if want := strings.Contains(strings.Join(alive, " "), name); (err == nil) != want {
				t.Errorf("%s: %s: %v", when, name, err)
			}
			if err != nil {
				delete(open, name)
			}
		}
	}
	check("before", "b.example", "c.example", "d.example", "ip")
	l.SetPolicy(testRules{"b.example:22", "c.example:22 raw", "d.example:22", "203.0.113.9:22"}.set())
	check("without the block", "b.example", "c.example", "ip")
	l.SetPolicy(testRules{"b.example:22", "c.example:22", "203.0.113.9:22"}.set())
	check("no longer raw", "b.example", "ip")
	l.SetPolicy(testRules{"b.example:22"}.set())
	check("without the address", "b.example")
	l.SetPolicy(nil)
	check("without rules")
	if _, err := l.dialName("b.example", 22); err == nil {
		t.Error("a flow without rules")
	}
	l.Close()
	cut := 0
	_ = audit.Read(l.path, func(e audit.Entry) error {
		if e.Event == audit.EventClose && strings.HasPrefix(e.Reason, "the rules changed") && e.Sent >= 5 && e.Got >= 5 {
			cut++
		}
		return nil
	})
	if cut != 4 {
		t.Errorf("%d cut flows are in the log", cut)
	}
}

func TestLimits(t *testing.T) {
	l := newLab(t, testRules{"b.example:22 raw"}, func(c *Config) {
		c.Limits = Limits{Conns: 2, BytesPerSecond: 1 << 30}
	})
	l.limiter.flows = rate.NewLimiter(0, 3)
	l.limiter.dns = rate.NewLimiter(0, 2)
	ln, _ := net.Listen("tcp", "127.0.0.1:0")
	defer ln.Close()
	l.serve("b.example", "203.0.113.1:22", ln.Addr().String())
	a, _, _ := l.names.Addresses("b.example")
	dst := netip.AddrPortFrom(a, 22)
	for i, want := range []error{nil, nil, errRejected, errRejected} {
		if _, err := l.dialAddr(dst); !errors.Is(err, want) {
			t.Errorf("connection %d: %v", i, err)
		}
	}
	reasons := fmt.Sprint(l.Denials())
	if !strings.Contains(reasons, "too many open") || !strings.Contains(reasons, "too many new") {
		t.Error(reasons)
	}
	q := new(dns.Msg)
	q.SetQuestion("b.example.", dns.TypeA)
	b, _ := q.Pack()
	for i, want := range []byte{dns.RcodeSuccess, dns.RcodeSuccess, dns.RcodeRefused} {
		if out := l.reply(b, nil); out[3]&0xf != want {
			t.Errorf("query %d: %x", i, out)
		}
	}
}

func TestHostLoopback(t *testing.T) {
	l := newLab(t, testRules{"host:3000"})
	s := newCounter(t, false, nil)
	l.serve("", "127.0.0.1:3000", s.addr())
	l.serve("", "127.0.0.1:3001", s.addr())
	if code, body := get(t, l.client(), "http://host.bawn.internal:3000/"); code != 200 || body != "hello host.bawn.internal:3000" {
		t.Error(code, body)
	}
	if _, err := l.dialName(HostName, 3001); !errors.Is(err, errRejected) {
		t.Error("another port of the host:", err)
	}
	if d := l.Denials(); len(d) != 1 || d[0].Suggest != "host:3001" {
		t.Error(d)
	}
}

func TestInfoPage(t *testing.T) {
	empty := newLab(t, testRules{})
	if _, body := get(t, empty.client(), "http://192.0.2.1/"); !strings.Contains(body, "none: nothing passes") {
		t.Error(body)
	}
	for page, want := range map[string]string{"policy": `{"rules":[]}`, "denials": `{"denials":[]}`} {
		if _, body := get(t, empty.client(), "http://192.0.2.1/"+page+".json"); strings.TrimSpace(body) != want {
			t.Error(body)
		}
	}
	l := newLab(t, testRules{"good.example:443"})
	_, _ = l.dialName("evil.example", 443)
	code, body := get(t, l.client(), "http://bawn.internal/")
	if code != 200 || !strings.Contains(body, "good.example:443") || !strings.Contains(body, "evil.example") {
		t.Error(code, body)
	}
	if code, body := get(t, l.client(), "http://192.0.2.1/denials.json"); code != 200 || !strings.Contains(body, `"evil.example"`) {
		t.Error(code, body)
	}
}

func TestDNSOverTCP(t *testing.T) {
	l := newLab(t, testRules{"good.example:443"})
	c, err := l.dialAddr(testDNS)
	if err != nil {
		t.Fatal(err)
	}
	q := new(dns.Msg)
	q.SetQuestion("good.example.", dns.TypeA)
	b, _ := q.Pack()
	for range 2 {
		_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			t.Fatal(err)
		}
		out := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, out); err != nil || out[3]&0xf != 0 {
			t.Fatal(err)
		}
	}
	if got := send(t, c, "\x00\x01x"); got != "" {
		t.Fatalf("%q", got)
	}
}

// packetRequest is a UDP association over a real socket pair.
type packetRequest struct {
	guest    net.Conn
	inner    net.Conn
	accepted chan struct{}
	rejected chan struct{}
}

func (r *packetRequest) Accept() (net.Conn, error) { close(r.accepted); return r.inner, nil }
func (r *packetRequest) Reject()                   { close(r.rejected) }

func (l *lab) packets(dst netip.AddrPort) (net.Conn, error) {
	a, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	b, err := net.DialUDP("udp", nil, a.LocalAddr().(*net.UDPAddr))
	if err != nil {
		return nil, err
	}
	local := a.LocalAddr().(*net.UDPAddr)
	a.Close()
	inner, err := net.DialUDP("udp", local, b.LocalAddr().(*net.UDPAddr))
	if err != nil {
		return nil, err
	}
	r := &packetRequest{b, inner, make(chan struct{}), make(chan struct{})}
	go l.UDP(testGuest, dst, r)
	l.t.Cleanup(func() { b.Close(); inner.Close() })
	select {
	case <-r.accepted:
		return b, nil
	case <-r.rejected:
		return nil, errRejected
	}
}

func TestUDP(t *testing.T) {
	l := newLab(t, testRules{"good.example:443", "udp time.example:123"})
	s, _ := net.ListenPacket("udp", "127.0.0.1:0")
	defer s.Close()
	var seen atomic.Int32
	go func() {
		buf := make([]byte, 100)
		for {
			n, from, err := s.ReadFrom(buf)
			if err != nil {
				return
			}
			seen.Add(1)
			_, _ = s.WriteTo(bytes.ToUpper(buf[:n]), from)
		}
	}()
	for _, a := range []string{"203.0.113.1:443", "203.0.113.2:123", "203.0.113.3:53", "203.0.113.2:124"} {
		l.serve("", a, s.LocalAddr().String())
	}
	l.serve("good.example", "203.0.113.1:443", s.LocalAddr().String())
	l.serve("time.example", "203.0.113.2:123", s.LocalAddr().String())
	good, _, _ := l.names.Addresses("good.example")
	clock, _, _ := l.names.Addresses("time.example")
	for _, dst := range []netip.AddrPort{
		netip.AddrPortFrom(good, 443), netip.AddrPortFrom(clock, 124),
		netip.MustParseAddrPort("203.0.113.3:53"), netip.MustParseAddrPort("198.18.99.99:123"),
	} {
		if _, err := l.packets(dst); !errors.Is(err, errRejected) {
			t.Errorf("%s: %v", dst, err)
		}
	}
	c, err := l.packets(netip.AddrPortFrom(clock, 123))
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	for range 2 {
		fmt.Fprint(c, "tick")
		if n, err := c.Read(buf); err != nil || string(buf[:n]) != "TICK" {
			t.Fatal(string(buf[:n]), err)
		}
	}
	if seen.Load() != 2 {
		t.Errorf("%d datagrams reached the server", seen.Load())
	}
	if c, err = l.packets(testDNS); err != nil {
		t.Fatal(err)
	}
	q := new(dns.Msg)
	q.SetQuestion("good.example.", dns.TypeAAAA)
	b, _ := q.Pack()
	_, _ = c.Write(b)
	n, err := c.Read(buf)
	if err != nil || buf[3]&0xf != 0 || n < 12 { // a DNS header
		t.Fatal(n, err)
	}
}

// handmadeHello is a ClientHello with a server name and other extensions.
func handmadeHello(name string, exts ...[]byte) []byte {
	n := len(name)
	all := append([]byte{0, 0, 0, byte(n + 5), 0, byte(n + 3), 0, 0, byte(n)}, name...)
	all = append(all, bytes.Join(exts, nil)...)
	body := append([]byte{3, 3}, make([]byte, 32)...)
	body = append(body, 0, 0, 2, 0x13, 0x01, 1, 0, byte(len(all)>>8), byte(len(all)))
	body = append(body, all...)
	msg := append([]byte{1, 0, byte(len(body) >> 8), byte(len(body))}, body...)
	return append([]byte{22, 3, 1, byte(len(msg) >> 8), byte(len(msg))}, msg...)
}

// slowConn writes byte by byte.
type slowConn struct{ net.Conn }

func (c slowConn) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := c.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

func TestSlowClient(t *testing.T) {
	l := newLab(t, testRules{"good.example:80", "good.example:443", "good.example:9000", "good.example:9443"})
	echo := func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }
	p, s := newCounter(t, false, echo), newCounter(t, true, echo)
	for port, server := range map[uint16]*counter{80: p, 9000: p, 443: s, 9443: s} {
		l.serve("good.example", fmt.Sprintf("203.0.113.1:%d", port), server.addr())
		c := net.Conn(slowConn{l.mustDial("good.example", port)})
		if server == s {
			c = tls.Client(c, &tls.Config{ServerName: "good.example", InsecureSkipVerify: true})
		}
		for range 2 {
			req, _ := http.NewRequest("POST", fmt.Sprintf("http://good.example:%d/", port), io.MultiReader(strings.NewReader("some "), strings.NewReader("words")))
			if err := req.Write(c); err != nil {
				t.Fatal(err)
			}
			r, err := http.ReadResponse(bufio.NewReader(c), req)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(r.Body); err != nil || string(b) != "some words" {
				t.Errorf("port %d: %q, %v", port, b, err)
			}
		}
	}
}

func TestTLSThrough(t *testing.T) {
	// Bytes both ways at once, then half-close, inside TLS that bawn only passes.
	l := newLab(t, testRules{"good.example:443"})
	s := newCounter(t, true, nil) // only for its certificate
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
			Certificates: s.TLS.Certificates, MaxVersion: version,
			CurvePreferences: []tls.CurveID{tls.CurveP384}, // asks the client again (HelloRetryRequest)
		})
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		go func() {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(c, c)
			c.Close()
		}()
		l.serve("good.example", "203.0.113.1:443", ln.Addr().String())
		c := tls.Client(l.mustDial("good.example", 443), &tls.Config{ServerName: "good.example", InsecureSkipVerify: true})
		const n = 3 << 20
		go func() {
			_, _ = io.CopyN(c, zero{}, n)
			_ = c.CloseWrite()
		}()
		if got, err := io.Copy(io.Discard, c); err != nil || got != n {
			t.Errorf("TLS %x: %d bytes, %v", version, got, err)
		}
		if !c.ConnectionState().HandshakeComplete || c.ConnectionState().Version != version {
			t.Errorf("version %x", c.ConnectionState().Version)
		}
	}
}

// TestCloseEndsDNS: Close ends the connections of DNS clients, and waits for that.
func TestCloseEndsDNS(t *testing.T) {
	l := newLab(t, testRules{"good.example:443"})
	c, err := l.dialAddr(testDNS)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	r := &guestRequest{accepted: make(chan net.Conn, 1), rejected: make(chan struct{})}
	go func() { l.UDP(testGuest, testDNS, r); close(served) }()
	defer (<-r.accepted).Close()
	l.Close()
	if l.dnsUDP.Load() != 0 || l.dnsTCP.Load() != 0 {
		t.Error("Close did not wait for the DNS clients")
	}
	<-served
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a DNS connection goes on")
	}
	if _, err := l.dialAddr(testDNS); !errors.Is(err, errRejected) {
		t.Error("a DNS connection after Close:", err)
	}
}

// TestDenialsAreCounted: a denial is kept once, and anew after the rules changed.
func TestDenialsAreCounted(t *testing.T) {
	l := newLab(t, testRules{"good.example:443"})
	for range 5 {
		_, _ = l.dialName("good.example", 22)
	}
	if d := l.Denials(); len(d) != 1 || d[0].Count != 5 || d[0].Suggest != "good.example:22" {
		t.Errorf("%+v", d)
	}
	l.SetPolicy(testRules{"good.example:443", "good.example:23"}.set())
	_, _ = l.dialName("good.example", 22)
	if d := l.Denials(); len(d) != 1 || d[0].Count != 1 { // under other rules it is another
		t.Errorf("%+v", d)
	}
	// The audit log has each of them.
	n := 0
	_ = audit.Read(l.path, func(e audit.Entry) error {
		if e.Verdict == audit.Denied && e.Port == 22 && e.Suggest == "good.example:22" {
			n++
		}
		return nil
	})
	if n != 6 {
		t.Errorf("%d lines", n)
	}
}

// TestWithoutPolicy: nothing passes.
func TestWithoutPolicy(t *testing.T) {
	g := New(Config{Pool4: testPool4, Pool6: testPool6, DNS: []netip.AddrPort{testDNS}})
	defer g.Close()
	l := &lab{Gateway: g, t: t}
	if _, err := l.dialAddr(netip.MustParseAddrPort("203.0.113.1:443")); !errors.Is(err, errRejected) {
		t.Error("without a policy:", err)
	}
	g.Dropped("icmp", netip.MustParseAddr("203.0.113.1"), "not TCP or UDP")
	d := g.Denials()
	if len(d) != 2 || d[0].Proto != "icmp" || d[1].Reason != "no policy is loaded" {
		t.Errorf("%+v", d)
	}
}

// TestAddressRule: a connection to an address by an IP rule may name that
// address, nothing, or a name that the rules allow; and with the name's rule it
// ends.
func TestAddressRule(t *testing.T) {
	l := newLab(t, testRules{"203.0.113.0/24:*", "good.example:*"})
	s, p := newCounter(t, true, nil), newCounter(t, false, nil)
	l.serve("", "203.0.113.1:443", s.addr())
	l.serve("", "203.0.113.1:80", p.addr())
	https, plain := netip.MustParseAddrPort("203.0.113.1:443"), netip.MustParseAddrPort("203.0.113.1:80")
	open := map[string]*tls.Conn{}
	for name, want := range map[string]bool{"": true, "good.example": true, "other.example": false} {
		raw, err := l.dialAddr(https)
		if err != nil {
			t.Fatal(err)
		}
		c := tls.Client(raw, &tls.Config{ServerName: name, InsecureSkipVerify: true})
		if err := c.Handshake(); (err == nil) != want {
			t.Errorf("TLS for %q: %v", name, err)
		}
		open[name] = c
		raw, err = l.dialAddr(plain)
		if err != nil {
			t.Fatal(err)
		}
		host := name
		if host == "" {
			host = "203.0.113.1:80"
		}
		got := send(t, raw, "GET / HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
		if strings.HasPrefix(got, "HTTP/1.1 200") != want {
			t.Errorf("HTTP for %q: %q", host, got)
		}
	}
	l.SetPolicy(testRules{"203.0.113.0/24:*", "third.example:*"}.set())
	if _, err := open["good.example"].Read(make([]byte, 1)); err == nil {
		t.Error("the connection lived on without the name's rule")
	}
	if _, err := fmt.Fprint(open[""], "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Error(err)
	}
	if _, err := open[""].Read(make([]byte, 1)); err != nil {
		t.Error("the connection that named nothing was cut:", err)
	}
}

// TestDefaults: without functions of the caller, a name that the host resolves
// to its loopback stays out of reach.
func TestDefaults(t *testing.T) {
	s := newCounter(t, false, nil)
	port := netip.MustParseAddrPort(s.addr()).Port()
	g := New(Config{Policy: testRules{"**:*"}.set(), Pool4: testPool4, Pool6: testPool6})
	defer g.Close()
	l := &lab{Gateway: g, t: t}
	if _, err := l.dialName("localhost", port); !errors.Is(err, errRejected) {
		t.Error(err)
	}
	if d := g.Denials(); len(d) != 1 || !strings.Contains(d[0].Reason, "loopback") || s.conns.Load() != 0 {
		t.Errorf("%+v", d)
	}
	if n, err := hostResolve(t.Context(), "localhost"); err != nil || len(n) == 0 {
		t.Error(n, err)
	}
}

func TestBytesPerSecond(t *testing.T) {
	l := newLimiter(Limits{BytesPerSecond: 1})
	if err := l.wait(t.Context(), minBytesBurst); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.wait(ctx, 1000); err == nil {
		t.Fatal("more than the rate passes at once")
	}
}

// TestRateOfTransfers: what two connections carry, both ways, takes as long as
// the rate says together, by a clock of the test's own.
func TestRateOfTransfers(t *testing.T) {
	const perSecond, seconds = 1 << 20, 30
	for _, limit := range []int64{perSecond, 0} {
		synctest.Test(t, func(t *testing.T) {
			g := &Gateway{limiter: newLimiter(Limits{BytesPerSecond: limit})}
			start := time.Now()
			var all sync.WaitGroup
			for range 2 {
				f := &flow{g: g, ctx: t.Context()}
				server, far := net.Pipe()
				up := &countedConn{Conn: server, f: f}
				all.Go(func() { // a server that reads all and says as much
					_, _ = io.CopyN(io.Discard, far, seconds/4*perSecond)
					_, _ = io.CopyN(far, endless{}, seconds/4*perSecond)
					far.Close()
				})
				all.Go(func() {
					if err := copyStream(up, io.LimitReader(endless{}, seconds/4*perSecond), nil); err != nil {
						t.Error(err)
					}
					if err := copyStream(io.Discard, up, nil); err != nil {
						t.Error(err)
					}
					if f.sent.Load() != seconds/4*perSecond || f.got.Load() != seconds/4*perSecond {
						t.Errorf("%d sent, %d got", f.sent.Load(), f.got.Load())
					}
				})
			}
			all.Wait()
			// The first second's worth is there at once.
			want := time.Duration(0)
			if limit != 0 {
				want = (4*(seconds/4) - 1) * time.Second
			}
			if took := time.Since(start); took < want || took > want+time.Millisecond {
				t.Errorf("limit %d: took %s, want %s", limit, took, want)
			}
		})
	}
}

// endless gives zeros.
type endless struct{}

func (endless) Read(b []byte) (int, error) { clear(b); return len(b), nil }
