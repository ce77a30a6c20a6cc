package egress

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"bawn.dev/bawn/internal/egress/httpwire"
	"bawn.dev/bawn/internal/egress/tlshello"
	"bawn.dev/bawn/internal/policy"
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
	ln, _ := net.Listen("tcp", "127.0.0.1:0")
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			word := make([]byte, 4)
			if _, err := io.ReadFull(c, word); err == nil && string(word) == "ruok" {
				fmt.Fprint(c, "imok")
			}
			c.Close()
		}
	}()
	l.serve("good.example", "203.0.113.1:2181", ln.Addr().String())
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

// TestRequestWithoutLineEnd: what some servers take for a request at the end of the
// stream is one here too.
func TestRequestWithoutLineEnd(t *testing.T) {
	for in, want := range map[string]kind{
		"GET http://other.example/ HTTP/1.0": kindHTTP, "GET /": kindHTTP, "get http://other.example/": kindHTTP, "ruok": kindOther, "get key": kindOther,
	} {
		if k, head, err := sniff(strings.NewReader(in), nil); k != want || string(head) != in || !errors.Is(err, io.EOF) {
			t.Errorf("%q: %v, %q, %v", in, k, head, err)
		}
	}
}

// TestResumed: a server gets what it has not had, and nothing that differs from it.
func TestResumed(t *testing.T) {
	var got bytes.Buffer
	r := &resumed{Conn: writeConn{w: &got}, had: []byte("GET")}
	for _, s := range []string{"G", "ET /", "x"} {
		if n, err := io.WriteString(r, s); n != len(s) || err != nil {
			t.Error(n, err)
		}
	}
	if got.String() != " /x" {
		t.Errorf("%q", got.String())
	}
	r = &resumed{Conn: writeConn{w: &got}, had: []byte("GET")}
	if _, err := io.WriteString(r, "get /"); err == nil {
		t.Error("another method went through")
	}
}

// writeConn is a connection that is only written to.
type writeConn struct {
	net.Conn
	w io.Writer
}

func (c writeConn) Write(b []byte) (int, error) { return c.w.Write(b) }

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

// TestTooManyPieces: a first line or a ClientHello, byte by byte, ends.
func TestTooManyPieces(t *testing.T) {
	for _, in := range []string{strings.Repeat("A", 3*maxFirstReads), "GET /" + strings.Repeat("a", 3*maxFirstReads)} {
		if k, head, err := sniff(iotest.OneByteReader(strings.NewReader(in)), nil); k != kindHTTP || len(head) > maxFirstReads+1 || err != nil {
			t.Errorf("%v after %d bytes, %v", k, len(head), err)
		}
	}
	hello := []byte{22, 3, 1, 0x20, 0, 1, 0, 0x1f, 0xfc}
	if _, _, err := tlshello.Read(iotest.OneByteReader(bytes.NewReader(append(hello, make([]byte, 9000)...))), nil); !errors.Is(err, tlshello.ErrRefused) {
		t.Error(err)
	}
}

// TestBlindAnswers: answers attribute ends cannot be told are passed on, for as many
// requests as come, and a denial among them is quick: a reset.
func TestBlindAnswers(t *testing.T) {
	l := newLab(t, testRules{"good.example:80"})
	ln, _ := net.Listen("tcp", "127.0.0.1:0")
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
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
			}()
		}
	}()
	l.serve("good.example", "203.0.113.1:80", ln.Addr().String())
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

func TestUpstreamBreaks(t *testing.T) {
	l := newLab(t, testRules{"good.example:80", "good.example:22"})
	ln, _ := net.Listen("tcp", "127.0.0.1:0")
	defer ln.Close()
	for _, port := range []string{"80", "22"} {
		l.serve("good.example", "203.0.113.1:"+port, ln.Addr().String())
	}
	// A server that resets in the middle of its answer must not look like an end.
	for port, text := range map[uint16]string{80: "GET / HTTP/1.1\r\nHost: good.example\r\n\r\n", 22: "\x00"} {
		go func() {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 1))
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
			abort(c)
		}()
		c := l.mustDial("good.example", port)
		fmt.Fprint(c, text)
		if b, err := io.ReadAll(c); err == nil {
			t.Errorf("port %d: a clean end after %q", port, b)
		}
	}
}

// appendFrame appends a frame as it stands on the wire, of any contents.
func appendFrame(b []byte, kind http2.FrameType, flags http2.Flags, stream uint32, payload ...[]byte) []byte {
	p := bytes.Join(payload, nil)
	b = append(b, byte(len(p)>>16), byte(len(p)>>8), byte(len(p)), byte(kind), byte(flags))
	return append(binary.BigEndian.AppendUint32(b, stream), p...)
}

// http2Client encodes what a client sends.
func http2Client(fields ...string) []byte {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		_ = enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return block.Bytes()
}

// pass runs frames through the check and returns what would go to the server.
func passHTTP2(f *flow, in []byte) ([]byte, error) {
	h := f.newHTTP2(nil)
	h.framed = false // there is no client to answer
	var out bytes.Buffer
	w := bufio.NewWriter(&out)
	r := bufio.NewReader(bytes.NewReader(in))
	var err error
	for err == nil {
		err = h.frame(w, r)
	}
	w.Flush()
	return out.Bytes(), err
}

func testFlow(t testing.TB) *flow {
	g := New(Config{Policy: testRules{"good.example:80"}.set(), Pool4: testPool4, Pool6: testPool6})
	t.Cleanup(g.Close)
	return &flow{g: g, to: policy.Flow{Name: "good.example", Port: 80, Proto: "tcp"}}
}

func TestHTTP2Frames(t *testing.T) {
	f := testFlow(t)
	good := http2Client(":method", "POST", ":scheme", "http", ":path", "/", ":authority", "good.example", "content-type", "application/grpc")
	evil := http2Client(":method", "POST", ":scheme", "http", ":path", "/", ":authority", "evil.example")
	both := http2Client(":method", "POST", ":scheme", "http", ":path", "/", ":authority", "good.example", "host", "evil.example")
	none := http2Client(":method", "POST", ":scheme", "http", ":path", "/")
	tunnel := http2Client(":method", "CONNECT", ":authority", "good.example:80")
	trailer := http2Client("grpc-status", "0")
	headers := func(stream uint32, flags http2.Flags, block []byte) []byte {
		return appendFrame(nil, http2.FrameHeaders, flags, stream, block)
	}
	padded := appendFrame(nil, http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersPadded|http2.FlagHeadersPriority, 1, []byte{3, 0, 0, 0, 0, 9}, good, []byte{0, 0, 0})
	split := append(headers(1, 0, good[:5]), appendFrame(nil, http2.FrameContinuation, http2.FlagHeadersEndHeaders, 1, good[5:])...)
	for name, in := range map[string][]byte{
		"request":     headers(1, http2.FlagHeadersEndHeaders, good),
		"padded":      padded,
		"split":       split,
		"with body":   append(headers(1, http2.FlagHeadersEndHeaders, good), appendFrame(nil, http2.FrameData, http2.FlagHeadersEndStream, 1, bytes.Repeat([]byte("x"), 100_000))...),
		"trailer":     append(headers(1, http2.FlagHeadersEndHeaders, good), headers(1, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, trailer)...),
		"other frame": appendFrame(nil, 0x8, 0, 0, []byte{0, 0, 1, 0}),
	} {
		out, err := passHTTP2(f, in)
		if !errors.Is(err, io.EOF) || !bytes.Equal(out, in) {
			t.Errorf("%s: %d of %d bytes passed, %v", name, len(out), len(in), err)
		}
	}
	for name, in := range map[string][]byte{
		"another authority": headers(1, http2.FlagHeadersEndHeaders, evil),
		"two authorities":   headers(1, http2.FlagHeadersEndHeaders, both),
		"none":              headers(1, http2.FlagHeadersEndHeaders, none),
		"CONNECT":           headers(1, http2.FlagHeadersEndHeaders, tunnel),
		"interrupted":       append(headers(1, 0, good[:5]), appendFrame(nil, http2.FrameData, 0, 1, []byte("x"))...),
		"other stream":      append(headers(1, 0, good[:5]), appendFrame(nil, http2.FrameContinuation, http2.FlagHeadersEndHeaders, 3, good[5:])...),
		"continuation":      appendFrame(nil, http2.FrameContinuation, http2.FlagHeadersEndHeaders, 1, good),
		"push":              appendFrame(nil, http2.FramePushPromise, http2.FlagHeadersEndHeaders, 1, good),
		"bad padding":       appendFrame(nil, http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersPadded, 1, []byte{200}, good),
		"bad index":         headers(1, http2.FlagHeadersEndHeaders, []byte{0xff, 0x7f}),
		"endless":           bytes.Repeat(append(headers(1, 0, good), appendFrame(nil, http2.FrameContinuation, 0, 1, good)...), 3000),
		"bomb":              headers(1, http2.FlagHeadersEndHeaders, append(http2Client("x", strings.Repeat("y", 4000)), bytes.Repeat([]byte{0xbe}, 1000)...)),
		"second evil":       append(headers(1, http2.FlagHeadersEndHeaders, good), headers(3, http2.FlagHeadersEndHeaders, evil)...),
	} {
		out, err := passHTTP2(f, in)
		var he *httpwire.Error
		if !errors.As(err, &he) || bytes.Contains(out, evil) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzHTTP2(f *testing.F) {
	good := http2Client(":method", "GET", ":scheme", "http", ":path", "/", ":authority", "good.example")
	f.Add(appendFrame(nil, http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, good))
	f.Add(append(appendFrame(nil, http2.FrameHeaders, 0, 1, good[:4]), appendFrame(nil, http2.FrameContinuation, http2.FlagHeadersEndHeaders, 1, good[4:])...))
	fl := testFlow(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := passHTTP2(fl, in)
		if err == nil || !bytes.HasPrefix(in, out) {
			t.Fatalf("%v; %x became %x", err, in, out)
		}
	})
}

// TestIdleMemory: a thousand idle connections are cheap.
func TestIdleMemory(t *testing.T) {
	const n = 1000
	ln, _ := net.Listen("tcp", "127.0.0.1:0")
	defer ln.Close()
	ready := make(chan net.Conn, n)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			ready <- c
		}
	}()
	l := newLab(t, testRules{"good.example:22"})
	l.limiter.flows.SetBurst(2 * n)
	l.serve("good.example", "203.0.113.1:22", ln.Addr().String())
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range n {
		c := l.mustDial("good.example", 22)
		s := <-ready
		defer s.Close()
		fmt.Fprint(c, "\x00x")
		if _, err := io.ReadFull(s, make([]byte, 2)); err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(s, "y")
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := (int64(after.HeapInuse+after.StackInuse) - int64(before.HeapInuse+before.StackInuse)) / n
	t.Logf("%d bytes each", each)
	if each > 64<<10 {
		t.Errorf("an idle connection holds %d bytes", each)
	}
}

// benchmark relays b.N MiB, or makes b.N connections.
func BenchmarkThroughput(b *testing.B) {
	for _, kind := range []string{"direct", "raw", "sniffed", "http"} {
		b.Run(kind, func(b *testing.B) {
			g, dst := benchGateway(b, kind)
			inner, outer, err := socketPair()
			if err != nil {
				b.Fatal(err)
			}
			c := outer
			if kind == "direct" {
				c, err = net.Dial("tcp", dst.String())
				if err != nil {
					b.Fatal(err)
				}
			} else {
				go g.TCP(netip.AddrPort{}, dst, ready{inner})
			}
			defer c.Close()
			size := 1 << 20 * b.N
			req := make([]byte, 8)
			if kind == "http" {
				req = []byte(fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: good.example\r\n\r\n", size))
			} else {
				binary.BigEndian.PutUint64(req, uint64(size))
			}
			b.SetBytes(1 << 20)
			b.ResetTimer()
			_, _ = c.Write(req)
			if _, err := io.CopyN(io.Discard, c, int64(size)); err != nil {
				b.Fatal(err)
			}
		})
	}
}

type ready struct{ net.Conn }

func (r ready) Accept() (net.Conn, error) { return r.Conn, nil }
func (r ready) Reject()                   { r.Close() }

// benchGateway serves as many bytes as asked for.
func benchGateway(b *testing.B, kind string) (*Gateway, netip.AddrPort) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				head := make([]byte, 8)
				if _, err := io.ReadFull(c, head); err != nil {
					return
				}
				n := binary.BigEndian.Uint64(head)
				if kind == "http" {
					line, _ := bufio.NewReader(io.MultiReader(bytes.NewReader(head), c)).ReadString('\n')
					_, _ = fmt.Sscanf(line, "GET /%d", &n)
					fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", n)
				}
				buf := make([]byte, 256<<10)
				for n > 0 {
					m, err := c.Write(buf[:min(n, uint64(len(buf)))])
					if err != nil {
						return
					}
					n -= uint64(m)
				}
			}()
		}
	}()
	real := netip.MustParseAddrPort(ln.Addr().String())
	if kind == "direct" {
		return nil, real
	}
	port, rule := uint16(9000), "203.0.113.1:9000"
	switch kind {
	case "raw":
		rule += " raw"
	case "http":
		port, rule = 80, "203.0.113.1:80"
	}
	g := New(Config{Policy: testRules{rule, "good.example:80"}.set(), Pool4: testPool4, Pool6: testPool6, Dial: dialTo(real.String())})
	b.Cleanup(g.Close)
	return g, netip.AddrPortFrom(netip.MustParseAddr("203.0.113.1"), port)
}
