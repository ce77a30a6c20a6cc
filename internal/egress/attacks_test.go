package egress

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bawn.dev/bawn/internal/egress/tunnel/tunneltest"
)

// Attacks on the inspection of streams, against real TLS and HTTP servers. None may
// show the server another host's name.

// output is what a process has written so far.
type output struct {
	mu   sync.Mutex
	b    bytes.Buffer
	in   io.Closer     // the process's input
	done chan struct{} // closed when it has ended
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// start runs a program until the test ends; the test is skipped where it is missing.
func start(t *testing.T, name string, args ...string) *output {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skip(err)
	}
	out := &output{}
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = out, out
	in, err := cmd.StdinPipe() // open: s_server ends with its input
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.in, out.done = in, make(chan struct{})
	go func() { _ = cmd.Wait(); close(out.done) }()
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Process.Kill()
		<-out.done
	})
	return out
}

// waitFor waits for a condition.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// freePort returns an address of the loopback at which nothing listens.
func freePort(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// opensslServer starts s_server with certificates for good.example and, by server
// name, for other.example.
func opensslServer(t *testing.T, args ...string) (addr string, out *output) {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"good", "other"} {
		cmd := exec.Command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
			"-keyout", filepath.Join(dir, name+".key"), "-out", filepath.Join(dir, name+".crt"), "-subj", "/CN="+name+".example", "-days", "2")
		if b, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, b)
		}
	}
	addr = freePort(t)
	out = start(t, "openssl", append([]string{
		"s_server", "-accept", addr, "-cert", dir + "/good.crt", "-key", dir + "/good.key",
		"-servername", "other.example", "-cert2", dir + "/other.crt", "-key2", dir + "/other.key",
	}, args...)...)
	waitFor(t, "s_server", func() bool { return strings.Contains(out.String(), "ACCEPT") })
	return addr, out
}

// helloParts are what a handmade ClientHello of TLS 1.3 differs in.
type helloParts struct {
	name            string
	share           bool // it has a key share
	record, message byte // the versions that it claims
}

func (p helloParts) bytes() []byte {
	var exts []byte
	ext := func(id uint16, data ...byte) {
		exts = append(exts, byte(id>>8), byte(id), byte(len(data)>>8), byte(len(data)))
		exts = append(exts, data...)
	}
	if n := len(p.name); n > 0 {
		ext(0, append([]byte{0, byte(n + 3), 0, 0, byte(n)}, p.name...)...)
	}
	ext(43, 2, 3, 4)                // supported_versions: 1.3
	ext(10, 0, 2, 0, 29)            // supported_groups: X25519
	ext(13, 0, 6, 4, 3, 8, 4, 8, 7) // signature_algorithms
	share := append([]byte{0, 29, 0, 32, 9}, make([]byte, 31)...)
	if !p.share {
		share = nil
	}
	ext(51, append([]byte{0, byte(len(share))}, share...)...)
	body := append([]byte{p.message, 3}, bytes.Repeat([]byte{7}, 32)...)
	body = append(body, 0, 0, 2, 0x13, 0x01, 1, 0, byte(len(exts)>>8), byte(len(exts)))
	body = append(body, exts...)
	msg := append([]byte{1, 0, byte(len(body) >> 8), byte(len(body))}, body...)
	return append([]byte{22, p.record, 1, byte(len(msg) >> 8), byte(len(msg))}, msg...)
}

// TestAttackSecondHello: after a HelloRetryRequest that the client provokes with an
// empty key share, OpenSSL believes the name in the second ClientHello.
func TestAttackSecondHello(t *testing.T) {
	l := newLab(t, testRules{"good.example:443", "good.example:9443"})
	addr, out := opensslServer(t)
	for _, port := range []string{"443", "9443"} {
		l.serve("good.example", "203.0.113.1:"+port, addr)
	}
	first := helloParts{"good.example", false, 3, 3}.bytes()
	second := helloParts{"other.example", true, 3, 3}.bytes()
	odd := helloParts{"other.example", true, 3, 4}.bytes()
	ccs := []byte{20, 3, 3, 0, 1, 1}
	data := append([]byte{23, 3, 3, 0, 3}, "abc"...)
	pieces := func(msg []byte) (all []byte) {
		for msg = msg[5:]; len(msg) > 0; {
			n := min(40, len(msg))
			all = append(append(all, 22, 3, 3, 0, byte(n)), msg[:n]...)
			msg = msg[n:]
		}
		return all
	}
	for name, writes := range map[string][][]byte{
		"in the same write":                 {append(bytes.Clone(first), second...)},
		"in the next write":                 {first, second},
		"cut in its header":                 {append(bytes.Clone(first), second[:3]...), second[3:]},
		"cut in its body":                   {append(bytes.Clone(first), second[:90]...), second[90:]},
		"after a ChangeCipherSpec":          {bytes.Join([][]byte{first, ccs, second}, nil)},
		"after early data":                  {bytes.Join([][]byte{first, data, second}, nil)},
		"version 4":                         {first, odd},
		"version 4, in the same write":      {append(bytes.Clone(first), odd...)},
		"version 4, in pieces":              {first, pieces(odd)},
		"version 4, in pieces, one write":   {append(bytes.Clone(first), pieces(odd)...)},
		"version 4, after CCS, in pieces":   {first, ccs, pieces(odd)},
		"record of version 5 (and the 1st)": {first, helloParts{"other.example", true, 5, 3}.bytes()},
		"first twice, then another":         {bytes.Join([][]byte{first, first, second}, nil)},
	} {
		for _, port := range []uint16{443, 9443} {
			c := l.mustDial("good.example", port)
			for _, b := range writes {
				_, _ = c.Write(b)
			}
			_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
			// The end comes by a reset, or an alert: s_server does not end by itself.
			if _, err := io.ReadAll(c); isTimeout(err) {
				t.Errorf("%s, port %d: not refused", name, port)
			}
			c.Close()
		}
	}
	if strings.Contains(out.String(), "other.example\"") || strings.Contains(out.String(), "Switching server context") {
		t.Errorf("the server was asked for another name:\n%s", out)
	}
}

// forward listens on the loopback for a real client of the guest.
func (l *lab) forward(name string, port uint16) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			up, err := l.dialName(name, port)
			if err != nil {
				c.Close()
				continue
			}
			go func() { _, _ = io.Copy(c, up); c.Close() }()
			go func() { _, _ = io.Copy(up, c); _ = up.(*net.TCPConn).CloseWrite() }()
		}
	}()
	return ln.Addr().String()
}

// TestEarlyData: a client of 0-RTT sends more with its ClientHello than one read takes.
func TestEarlyData(t *testing.T) {
	l := newLab(t, testRules{"good.example:443", "good.example:9443"})
	addr, out := opensslServer(t, "-early_data")
	dir := t.TempDir()
	early := filepath.Join(dir, "early")
	if err := os.WriteFile(early, []byte(strings.Repeat("early data ", 1000)+"the end of it\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, port := range []uint16{443, 9443} {
		l.serve("good.example", fmt.Sprintf("203.0.113.1:%d", port), addr)
		at, session := l.forward("good.example", port), filepath.Join(dir, "session")
		os.Remove(session)
		c1 := start(t, "openssl", "s_client", "-connect", at, "-servername", "good.example", "-sess_out", session)
		waitFor(t, "the session", func() bool { b, _ := os.ReadFile(session); return bytes.Contains(b, []byte("END")) })
		c1.in.Close() // s_server serves one at a time, and forgets sessions that are cut
		<-c1.done
		c2 := start(t, "openssl", "s_client", "-connect", at, "-servername", "good.example", "-sess_in", session, "-early_data", early)
		waitFor(t, "the verdict on early data", func() bool {
			return strings.Contains(c2.String(), "Early data was") || strings.Contains(c2.String(), "errno")
		})
		if !strings.Contains(c2.String(), "Early data was accepted") {
			t.Fatalf("port %d: %s", port, c2)
		}
		waitFor(t, "early data", func() bool { return strings.Count(out.String(), "the end of it") == i+1 })
		c2.in.Close()
		<-c2.done
	}
}

// tlsServer notes the server names that it is asked for, and echoes. It takes text up
// to a line STARTTLS first, if plain.
func tlsServer(t *testing.T, plain bool) (addr string, names func() []string) {
	cert := newCounter(t, true, nil).TLS.Certificates
	var mu sync.Mutex
	var list []string
	cfg := &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		mu.Lock()
		defer mu.Unlock()
		list = append(list, h.ServerName)
		return &cert[0], nil
	}}
	addr = tunneltest.Serve(t, func(c net.Conn) {
		held := &bufferedConn{Conn: c, r: bufio.NewReader(c)}
		for plain {
			line, err := held.r.ReadString('\n')
			if err != nil {
				return
			}
			if strings.HasPrefix(line, "STARTTLS") {
				fmt.Fprint(c, "go on\r\n")
				break
			}
		}
		s := tls.Server(held, cfg)
		_, _ = io.Copy(s, s)
	})
	return addr, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return list
	}
}

type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *bufferedConn) Read(b []byte) (int, error) { return c.r.Read(b) }

// versionConn changes the version of the first record that is written.
type versionConn struct {
	net.Conn
	version byte
	over    bool
}

func (c *versionConn) Write(b []byte) (int, error) {
	if !c.over {
		c.over = true
		b = bytes.Clone(b)
		b[1] = c.version
	}
	return c.Conn.Write(b)
}

// piecesConn sends the first record's contents in records of n bytes.
type piecesConn struct {
	net.Conn
	n    int
	over bool
}

func (c *piecesConn) Write(b []byte) (int, error) {
	if c.over {
		return c.Conn.Write(b)
	}
	c.over = true
	var out []byte
	for msg := b[5:]; len(msg) > 0; {
		n := min(c.n, len(msg))
		out = append(append(out, 22, 3, 1, byte(n>>8), byte(n)), msg[:n]...)
		msg = msg[n:]
	}
	_, err := c.Conn.Write(out)
	return len(b), err
}

// TestAttackTLSOfAnotherVersion: crypto/tls takes a first record of any version below
// 16.
func TestAttackTLSOfAnotherVersion(t *testing.T) {
	l := newLab(t, testRules{"good.example:9443"})
	addr, names := tlsServer(t, false)
	l.serve("good.example", "203.0.113.1:9443", addr)
	for _, name := range []string{"other.example", ""} {
		for _, version := range []byte{0, 2, 4, 5, 15} {
			c := &versionConn{Conn: l.mustDial("good.example", 9443), version: version}
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			if err := tls.Client(c, &tls.Config{ServerName: name, InsecureSkipVerify: true}).Handshake(); err == nil || isTimeout(err) {
				t.Errorf("version %d, name %q: %v", version, name, err)
			}
		}
	}
	if got := names(); len(got) != 0 {
		t.Errorf("the server was asked for %q", got)
	}
	// As it should be, with an odd version, it works.
	c := &versionConn{Conn: l.mustDial("good.example", 9443), version: 4}
	if err := tls.Client(c, &tls.Config{ServerName: "good.example", InsecureSkipVerify: true}).Handshake(); err != nil {
		t.Error(err)
	}
}

// TestAttackTLSBehindText: a ClientHello behind a first exchange in the clear is
// bound to the name, too; one without a name passes.
func TestAttackTLSBehindText(t *testing.T) {
	l := newLab(t, testRules{"good.example:587"})
	addr, names := tlsServer(t, true)
	l.serve("good.example", "203.0.113.1:587", addr)
	for text, wait := range map[string]bool{
		"EHLO x\r\nSTARTTLS\r\n":                          true,
		"\r\nSTARTTLS\r\n":                                true,
		"\x00\x01\x02binary\nSTARTTLS\r\n":                true,
		"a line that ends late" + "\nSTARTTLS\n":          true,
		strings.Repeat("NOOP\r\n", 3000) + "STARTTLS\r\n": true,
	} {
		for name, want := range map[string]bool{"good.example": true, "": true, "other.example": false} {
			for kind, wrap := range map[string]func(net.Conn) net.Conn{
				"whole":   func(c net.Conn) net.Conn { return c },
				"version": func(c net.Conn) net.Conn { return &versionConn{Conn: c, version: 9} },
				"bytes":   func(c net.Conn) net.Conn { return slowConn{c} },
				"pieces":  func(c net.Conn) net.Conn { return &piecesConn{Conn: c, n: 50} },
			} {
				before := len(names())
				c := l.mustDial("good.example", 587)
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				fmt.Fprint(c, text)
				r := bufio.NewReader(c)
				if wait {
					if _, err := r.ReadString('\n'); err != nil {
						t.Fatal(err)
					}
				}
				err := tls.Client(wrap(&bufferedConn{c, r}), &tls.Config{ServerName: name, InsecureSkipVerify: true}).Handshake()
				if (err == nil) != want || isTimeout(err) {
					t.Errorf("%.10q, %s, %q: %v", text, kind, name, err)
				}
				if !want && len(names()) != before {
					t.Errorf("%.10q, %s: the server was asked for %q", text, kind, names()[before:])
				}
				c.Close()
			}
		}
	}
}

// nodeServer starts an HTTP server of Node that answers with what it was asked for.
func nodeServer(t *testing.T) (addr string, out *output) {
	addr = freePort(t)
	port := addr[strings.LastIndexByte(addr, ':')+1:]
	out = start(t, "node", "-e", `
		require('http').createServer((q, a) => { console.log('REQUEST ' + q.method + ' ' + q.url + ' ' + q.headers.host + '.'); a.end('node ' + q.headers.host) })
		.listen(`+port+`, '127.0.0.1', () => console.log('ready'))`)
	waitFor(t, "node", func() bool { return strings.Contains(out.String(), "ready") })
	return addr, out
}

// pythonServer is the same with Python's http.server, which takes HTTP/0.9.
func pythonServer(t *testing.T) (addr string, out *output) {
	addr = freePort(t)
	port := addr[strings.LastIndexByte(addr, ':')+1:]
	out = start(t, "python3", "-u", "-c", `
import http.server, sys
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        sys.stdout.write(f"REQUEST {self.command} {self.path} {self.headers.get('host')}.\n")
        self.send_response(200); self.send_header('Content-Length', '6'); self.end_headers(); self.wfile.write(b'python')
    def log_message(self, *a):
        pass
    do_POST = do_GET
    do_DELETE = do_GET
http.server.ThreadingHTTPServer.allow_reuse_address = True
s = http.server.ThreadingHTTPServer(('127.0.0.1', `+port+`), H)
print('ready')
s.serve_forever()`)
	waitFor(t, "python", func() bool { return strings.Contains(out.String(), "ready") })
	return addr, out
}

// TestAttackTextThatIsHTTP: bytes that do not look like an HTTP request, and that
// servers take for one all the same.
func TestAttackTextThatIsHTTP(t *testing.T) {
	for server, begin := range map[string]func(*testing.T) (string, *output){"node": nodeServer, "python": pythonServer} {
		t.Run(server, func(t *testing.T) {
			l := newLab(t, testRules{"good.example:9000"})
			addr, out := begin(t)
			l.serve("good.example", "203.0.113.1:9000", addr)
			good := "POST / RTSP/1.1\r\nHost: good.example:9000\r\nContent-Length: 7\r\n\r\n{\"a\":1}"
			for name, text := range map[string]string{
				"RTSP":                    "POST / RTSP/1.1\r\nHost: other.example\r\nContent-Length: 0\r\n\r\n",
				"ICE":                     "SOURCE / ICE/1.0\r\nHost: other.example\r\n\r\n",
				"lower-case field":        "GET /x RTSP/1.0\r\nhost:other.example\r\n\r\n",
				"pipelined HTTP":          good + "GET /second HTTP/1.1\r\nHost: other.example\r\n\r\n",
				"pipelined RTSP":          good + "GET /second RTSP/1.1\r\nHost: other.example\r\n\r\n",
				"pipelined without host":  good + "GET /other.example HTTP/1.0\r\n\r\n",
				"HTTP/0.9 with fields":    "GET other.example\r\nHost: other.example\r\n\r\n",
				"empty lines":             "\r\n\r\n\r\nPOST / RTSP/1.1\r\nHost: other.example\r\n\r\n",
				"address in the line":     "GET http://other.example/ RTSP/1.1\r\nHost: good.example\r\n\r\n",
				"a line before":           "PING\r\nGET / HTTP/1.1\r\nHost: other.example\r\n\r\n",
				"host at the end":         "POST / RTSP/1.1\r\n" + strings.Repeat("X: y\r\n", 1000) + "Host: other.example\r\n\r\n",
				"lines end in CR":         "POST / RTSP/1.1\r\nX: y\rHost: other.example\r\n\r\n",
				"without a last line end": "GET / RTSP/1.1\r\nHost: other.example",
			} {
				for _, slow := range []bool{false, true} {
					if slow && len(text) > 1000 {
						continue
					}
					c := l.mustDial("good.example", 9000)
					_ = c.SetDeadline(time.Now().Add(20 * time.Second))
					if slow {
						for i := range text {
							fmt.Fprint(c, text[i:i+1])
						}
					} else {
						fmt.Fprint(c, text)
					}
					_ = c.(*net.TCPConn).CloseWrite()
					if _, err := io.ReadAll(c); isTimeout(err) {
						t.Errorf("%s: no end", name)
					}
					c.Close()
				}
			}
			if strings.Contains(out.String(), "other.example") {
				t.Errorf("the server was asked for another host:\n%s", out)
			}
			// A request goes through.
			if code, body := get(t, l.client(), "http://good.example:9000/ok"); code != 200 {
				t.Error(code, body)
			}
			if !strings.Contains(out.String(), "REQUEST GET /ok good.example:9000.") {
				t.Errorf("the request did not arrive:\n%s", out)
			}
		})
	}
}

// TestOtherProtocolsAreNotHeld: what cannot be a request passes at once, and what may
// become one soon.
func TestOtherProtocolsAreNotHeld(t *testing.T) {
	l := newLab(t, testRules{"good.example:9000"})
	addr := tunneltest.Serve(t, func(c net.Conn) { _, _ = io.Copy(c, c) })
	l.serve("good.example", "203.0.113.1:9000", addr)
	bind := "\x30\x20\x02\x01\x01\x60\x1b\x02\x01\x03\x04\x0ecn=a,dc=example\x80\x06secret"
	for _, in := range []string{
		bind, "0 \x02\x01\x01", "\x16\x09\x00\x01", "A \x01", "abc /\x02", "get\t\x00\x00", "\x80\x2e\x01", // at once
		"get /x\r\n", "PING\r\n", "EHLO x\r\n", "HOST a /b c\r\n", // once the line ends
		"ruok", "two words", "get /x", "\x16", "CONNECTED", // after a moment
	} {
		atOnce := slices.ContainsFunc([]byte(in[:min(len(in), 8)]), func(b byte) bool { return b <= 2 || b == '\n' || b == 0x80 })
		if atOnce {
			l.graceTime = time.Hour
		} else {
			l.graceTime = 50 * time.Millisecond
		}
		c := l.mustDial("good.example", 9000)
		fmt.Fprint(c, in)
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if b, err := io.ReadAll(io.LimitReader(c, int64(len(in)))); string(b) != in {
			t.Errorf("%q: %q, %v", in, b, err)
		}
		c.Close()
		waitFor(t, "the end of the flow", func() bool { l.Gateway.mu.Lock(); defer l.Gateway.mu.Unlock(); return len(l.flows) == 0 })
	}
}
