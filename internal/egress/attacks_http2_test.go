package egress

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"bawn.dev/bawn/internal/egress/httpwire"
)

// pseudo is a request's pseudo-fields with other fields behind them.
func pseudo(more ...string) []string {
	return append([]string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", "good.example"}, more...)
}

// headersFrame is a whole header block in one frame.
func headersFrame(stream uint32, end bool, fields ...string) []byte {
	flags := http2.FlagHeadersEndHeaders
	if end {
		flags |= http2.FlagHeadersEndStream
	}
	return appendFrame(nil, http2.FrameHeaders, flags, stream, http2Client(fields...))
}

func dataFrame(stream uint32, flags http2.Flags, data string) []byte {
	return appendFrame(nil, http2.FrameData, flags, stream, []byte(data))
}

// http2Attacks are requests of which none may pass.
var http2Attacks = map[string][]byte{
	"absolute path":        headersFrame(1, true, ":method", "GET", ":scheme", "http", ":path", "http://other.example/", ":authority", "good.example"),
	"path without slash":   headersFrame(1, true, ":method", "GET", ":scheme", "http", ":path", "other.example/", ":authority", "good.example"),
	"empty path":           headersFrame(1, true, ":method", "GET", ":scheme", "http", ":path", "", ":authority", "good.example"),
	"no path":              headersFrame(1, true, ":method", "GET", ":scheme", "http", ":authority", "good.example"),
	"asterisk":             headersFrame(1, true, ":method", "GET", ":scheme", "http", ":path", "*", ":authority", "good.example"),
	"blank in the path":    headersFrame(1, true, ":method", "GET", ":scheme", "http", ":path", "/ HTTP/1.1", ":authority", "good.example"),
	"line end in the path": headersFrame(1, true, ":method", "GET", ":scheme", "http", ":path", "/\r\nHost: other.example", ":authority", "good.example"),
	"another scheme":       headersFrame(1, true, ":method", "GET", ":scheme", "ftp", ":path", "/", ":authority", "good.example"),
	"an address as scheme": headersFrame(1, true, ":method", "GET", ":scheme", "http://other.example/?", ":path", "/", ":authority", "good.example"),
	"https in the clear":   headersFrame(1, true, ":method", "GET", ":scheme", "https", ":path", "/", ":authority", "good.example"),
	"no scheme":            headersFrame(1, true, ":method", "GET", ":path", "/", ":authority", "good.example"),
	"no method":            headersFrame(1, true, ":scheme", "http", ":path", "/", ":authority", "good.example"),
	"blank in the method":  headersFrame(1, true, ":method", "GET http://other.example/", ":scheme", "http", ":path", "/", ":authority", "good.example"),
	"two methods":          headersFrame(1, true, pseudo(":method", "POST")...),
	"two paths":            headersFrame(1, true, append([]string{":path", "/a"}, pseudo()...)...),
	"two authorities":      headersFrame(1, true, append([]string{":authority", "good.example"}, pseudo()...)...),
	"pseudo-field behind":  headersFrame(1, true, ":method", "GET", ":scheme", "http", ":path", "/", "x", "y", ":authority", "good.example"),
	"unknown pseudo-field": headersFrame(1, true, append([]string{":status", "200"}, pseudo()...)...),
	"extended CONNECT":     headersFrame(1, false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/", ":authority", "good.example"),
	"connect-udp":          headersFrame(1, false, ":method", "CONNECT", ":protocol", "connect-udp", ":scheme", "http", ":path", "/.well-known/masque/udp/other.example/53/", ":authority", "good.example"),
	"GET with a protocol":  headersFrame(1, true, append([]string{":protocol", "x"}, pseudo()...)...),
	"transfer-encoding":    headersFrame(1, false, pseudo("transfer-encoding", "chunked")...),
	"transfer_encoding":    headersFrame(1, false, pseudo("transfer_encoding", "chunked")...),
	"connection":           headersFrame(1, true, pseudo("connection", "host")...),
	"upgrade":              headersFrame(1, true, pseudo("upgrade", "h2c")...),
	"keep-alive":           headersFrame(1, true, pseudo("keep-alive", "x")...),
	"te":                   headersFrame(1, true, pseudo("te", "gzip")...),
	"line end in a value":  headersFrame(1, true, pseudo("x", "y\r\nhost: other.example")...),
	"NUL in a value":       headersFrame(1, true, pseudo("x", "\x00")...),
	"line end in a name":   headersFrame(1, true, pseudo("x: y\r\nhost", "other.example")...),
	"upper-case name":      headersFrame(1, true, pseudo("Host", "other.example")...),
	"blank in a name":      headersFrame(1, true, pseudo("host ", "other.example")...),
	"empty name":           headersFrame(1, true, pseudo("", "x")...),
	"another host field":   headersFrame(1, true, pseudo("host", "other.example")...),
	"two host fields":      headersFrame(1, true, pseudo("host", "good.example", "host", "good.example")...),
	"two lengths":          headersFrame(1, false, pseudo("content-length", "1", "content-length", "1")...),
	"signed length":        headersFrame(1, false, pseudo("content-length", "+1")...),
	"length, and the end":  headersFrame(1, true, pseudo("content-length", "1")...),
	"body longer than its length": append(headersFrame(1, false, pseudo("content-length", "1")...),
		dataFrame(1, 0, "xGET / HTTP/1.1\r\nHost: other.example\r\n\r\n")...),
	"body shorter than its length": append(headersFrame(1, false, pseudo("content-length", "5")...), dataFrame(1, http2.FlagDataEndStream, "x")...),
	"padding for the body": append(headersFrame(1, false, pseudo("content-length", "5")...),
		dataFrame(1, http2.FlagDataEndStream|http2.FlagDataPadded, "\x04xyyyy")...),
	"trailer for the body":     append(headersFrame(1, false, pseudo("content-length", "5")...), headersFrame(1, true, "x", "y")...),
	"trailer with host":        append(headersFrame(1, false, pseudo()...), headersFrame(1, true, "host", "other.example")...),
	"trailer with a method":    append(headersFrame(1, false, pseudo()...), headersFrame(1, true, ":method", "GET")...),
	"trailer with a length":    append(headersFrame(1, false, pseudo()...), headersFrame(1, true, "content_length", "7")...),
	"trailer without an end":   append(headersFrame(1, false, pseudo()...), headersFrame(1, false, "x", "y")...),
	"a stream without request": headersFrame(1, true, "x", "y"),
	"a stream only of host":    headersFrame(1, true, "host", "good.example"),
	"even stream":              headersFrame(2, true, pseudo()...),
	"stream 0":                 headersFrame(0, true, pseudo()...),
	"many fields":              headersFrame(1, true, pseudo(bytesOf("x", 2*httpwire.MaxFields+2)...)...),
}

func bytesOf(s string, n int) (list []string) {
	for range n {
		list = append(list, s)
	}
	return list
}

func TestAttackHTTP2Fields(t *testing.T) {
	f := testFlow(t)
	for name, in := range http2Attacks {
		_, err := passHTTP2(f, in)
		var he *httpwire.Error
		if !errors.As(err, &he) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, in := range map[string][]byte{
		"plain":                   headersFrame(1, true, pseudo()...),
		"host and authority":      headersFrame(1, true, pseudo("host", "good.example")...),
		"host alone":              headersFrame(1, true, ":method", "GET", ":scheme", "http", ":path", "/", "host", "good.example:80"),
		"OPTIONS *":               headersFrame(1, true, ":method", "OPTIONS", ":scheme", "http", ":path", "*", ":authority", "good.example"),
		"gRPC":                    append(headersFrame(1, false, pseudo("te", "trailers", "content-type", "application/grpc", "grpc-timeout", "1S")...), dataFrame(1, http2.FlagDataEndStream, "\x00\x00\x00\x00\x00")...),
		"cookies":                 headersFrame(1, true, pseudo("cookie", "a=b", "cookie", "c=d; \t")...),
		"length and body":         bytes.Join([][]byte{headersFrame(1, false, pseudo("content-length", "5")...), dataFrame(1, 0, "abc"), dataFrame(1, http2.FlagDataPadded|http2.FlagDataEndStream, "\x02de\x00\x00")}, nil),
		"length, body and reset":  bytes.Join([][]byte{headersFrame(1, false, pseudo("content-length", "5")...), appendFrame(nil, http2.FrameRSTStream, 0, 1, []byte{0, 0, 0, 8}), headersFrame(3, true, pseudo()...)}, nil),
		"length 0":                headersFrame(1, true, pseudo("content-length", "0")...),
		"two streams, interwoven": bytes.Join([][]byte{headersFrame(1, false, pseudo("content-length", "2")...), headersFrame(3, false, pseudo("content-length", "1")...), dataFrame(3, 1, "x"), dataFrame(1, 1, "yz")}, nil),
	} {
		out, err := passHTTP2(f, in)
		if !errors.Is(err, io.EOF) || !bytes.Equal(out, in) {
			t.Errorf("%s: %d of %d bytes passed, %v", name, len(out), len(in), err)
		}
	}
}

// TestAttackHTTP2Node: the same against a server that takes what it gets.
func TestAttackHTTP2Node(t *testing.T) {
	addr := freePort(t)
	port := addr[strings.LastIndexByte(addr, ':')+1:]
	out := start(t, "node", "-e", `
		require('http2').createServer((q, a) => { console.log('REQUEST', JSON.stringify(q.headers)); a.end('ok') })
		.on('sessionError', () => {}).listen(`+port+`, '127.0.0.1', () => console.log('ready'))`)
	waitFor(t, "node", func() bool { return strings.Contains(out.String(), "ready") })
	l := newLab(t, testRules{"good.example:80", "good.example:50051"})
	begin := append(bytes.Clone(http2Preface), appendFrame(nil, http2.FrameSettings, 0, 0)...)
	for _, port := range []uint16{80, 50051} {
		l.serve("good.example", fmt.Sprintf("203.0.113.1:%d", port), addr)
		for name, in := range http2Attacks {
			if len(in) > 400 || strings.HasPrefix(name, "trailer ") || strings.HasPrefix(name, "body ") || strings.HasPrefix(name, "padding ") {
				continue // a first request passes, or needs no server
			}
			c := l.mustDial("good.example", port)
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			_, _ = c.Write(append(bytes.Clone(begin), in...))
			if _, err := io.ReadAll(c); isTimeout(err) {
				t.Errorf("%s: no end", name)
			}
			c.Close()
		}
	}
	if strings.Contains(out.String(), "REQUEST") {
		t.Errorf("requests arrived:\n%s", out)
	}
	c := l.mustDial("good.example", 80)
	_, _ = c.Write(append(bytes.Clone(begin), headersFrame(1, true, ":method", "GET", ":scheme", "http", ":path", "/fine", ":authority", "good.example")...))
	waitFor(t, "the request", func() bool { return strings.Contains(out.String(), "/fine") })
}

// TestAttackEndlessHeaderBlock: a header block that never ends has its time, and what
// it makes the host keep is little more than what was sent of it.
func TestAttackEndlessHeaderBlock(t *testing.T) {
	l := newLab(t, testRules{"good.example:80"})
	l.headTime = 50 * time.Millisecond
	s := newCounter(t, false, nil)
	l.serve("good.example", "203.0.113.1:80", s.addr())
	begin := append(bytes.Clone(http2Preface), appendFrame(nil, http2.FrameSettings, 0, 0)...)
	block := http2Client(pseudo("x", strings.Repeat("y", 15_000))...)
	claim := []byte{0, 0xf0, 0, byte(http2.FrameHeaders), 4, 0, 0, 0, 1} // 60 KiB that do not come
	for name, in := range map[string][]byte{
		"no CONTINUATION":    appendFrame(nil, http2.FrameHeaders, 0, 1, block),
		"no rest of a frame": append(bytes.Clone(claim), "abc"...),
		"no contents":        claim,
		"cut in the second":  append(appendFrame(nil, http2.FrameHeaders, 0, 1, block[:5]), 0, 0xf0),
	} {
		c := l.mustDial("good.example", 80)
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		_, _ = c.Write(append(bytes.Clone(begin), in...))
		if b, err := io.ReadAll(c); isTimeout(err) {
			t.Errorf("%s: no end: %q", name, b)
		}
	}
	if d := l.Denials(); len(d) != 1 || !strings.Contains(d[0].Reason, "does not end") {
		t.Errorf("%+v", d)
	}

	l.headTime = time.Hour
	const n = 50
	big := appendFrame(nil, http2.FrameHeaders, 0, 1, http2Client(pseudo("x", strings.Repeat("\x01", 7_000))...)) // not shorter in Huffman's code
	for i := range 5 {
		big = append(big, appendFrame(nil, http2.FrameContinuation, 0, 1, http2Client("x", strings.Repeat("\x01", 10_000+i)))...)
	}
	use := func(in []byte) int64 {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		var conns []net.Conn
		for range n {
			sent := l.sent.Load()
			c := l.mustDial("good.example", 80)
			_, _ = c.Write(append(append(bytes.Clone(begin), in...), claim[:2]...))
			waitFor(t, "the preface", func() bool { return l.sent.Load() >= sent+int64(len(begin)) })
			conns = append(conns, c)
		}
		time.Sleep(50 * time.Millisecond)
		runtime.GC()
		runtime.ReadMemStats(&after)
		for _, c := range conns {
			c.Close()
		}
		return (int64(after.HeapInuse) - int64(before.HeapInuse)) / n
	}
	idle, held := use(nil), use(big)
	t.Logf("%d bytes for an idle connection, %d with %d of a header block", idle, held, len(big))
	if held-idle > int64(2*len(big)) {
		t.Errorf("%d bytes are held for %d", held-idle, len(big))
	}
}
