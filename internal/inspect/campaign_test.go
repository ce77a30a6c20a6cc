package inspect

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/secret"
	"bawn.dev/bawn/internal/sys/accept"
)

// campaign is a server that fails in the way that the path names (/FAULT/ID), and keeps what it was asked.
type campaign struct {
	alien atomic.Int64 // requests that are not for hostName or lack the secret
	over  chan struct{}
}

// ServeHTTP implements http.Handler.
func (s *campaign) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Host != hostName || r.Header.Get("X-Api-Key") != realValue {
		s.alien.Add(1)
	}
	_, fault, _ := strings.Cut(r.URL.Path, "/")
	fault, id, _ := strings.Cut(fault, "/")
	flush := http.NewResponseController(w).Flush
	switch fault {
	case "ok":
		_, _ = io.WriteString(w, strings.Repeat(id+" ", 4000))
	case "echo":
		b, _ := io.ReadAll(r.Body)
		_, _ = w.Write(b)
	case "reset":
		_, _ = io.WriteString(w, "the beginning")
		_ = flush()
		panic(http.ErrAbortHandler)
	case "half":
		w.Header().Set("Content-Length", "100000")
		_, _ = io.WriteString(w, "the beginning")
	case "gzip":
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = io.WriteString(w, gzipped(strings.Repeat("a long text ", 10_000))[:40])
	case "head":
		w.Header().Set("X-Large", strings.Repeat("x", maxAnswerHead+(64<<10)))
	case "last": // HTTP/1.1: the connection ends, HTTP/2: GOAWAY
		w.Header().Set("Connection", "close")
		_, _ = io.WriteString(w, strings.Repeat(id+" ", 4000))
	case "silent":
		s.wait(r, time.Hour)
	case "drip":
		for s.wait(r, 20*time.Millisecond) {
			if _, err := io.WriteString(w, "."); err != nil || flush() != nil {
				return
			}
		}
	case "endless":
		for s.wait(r, 0) {
			if _, err := w.Write(make([]byte, 32<<10)); err != nil {
				return
			}
		}
	case "raw":
		s.raw(w, id)
	}
}

// wait returns false when the request or the test is over.
func (s *campaign) wait(r *http.Request, d time.Duration) bool {
	select {
	case <-r.Context().Done():
		return false
	case <-s.over:
		return false
	case <-time.After(d):
		return true
	}
}

// raw breaks off the answer's head, by the connection's end or by a reset.
func (s *campaign) raw(w http.ResponseWriter, id string) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // HTTP/2: the stream is reset without a head
	}
	_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Le")
	if n, _ := strconv.Atoi(id); n%2 == 0 {
		if c, ok := conn.(*tls.Conn).NetConn().(*net.TCPConn); ok {
			_ = c.SetLinger(0)
		}
		_ = conn.(*tls.Conn).NetConn().Close()
	}
	_ = conn.Close()
}

// descriptors returns the number of open ones.
func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(list)
}

// settle waits until a number is at most as large as at the beginning, and reports it if it does not become so.
func settle(t *testing.T, what string, limit int, now func() int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); now() > limit; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			buf := make([]byte, 1<<20)
			t.Errorf("%s: %d, at the beginning there were %d\n%s", what, now(), limit, buf[:runtime.Stack(buf, true)])
			return
		}
	}
}

// TestFaultCampaign: 1,000 connections at once, of HTTP/1.1 and HTTP/2, to servers and from clients that fail
// in every way. Each client gets its own answer, an error page or the end of the connection; no request
// goes elsewhere or without the secret; the memory is bounded; and when it is over nothing is left.
func TestFaultCampaign(t *testing.T) {
	const n, each = 1000, 700 << 10
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < 5*n {
		t.Skipf("%d open files are too few (%v)", limit.Cur, err)
	}
	server := &campaign{over: make(chan struct{})}
	p := newPlace(t, server, bothProtocols, bound(secret.Place{Where: secret.InHeader, Arg: "X-Api-Key"}))
	p.do(p.client("h2"), request(t, "GET", "/ok/0", nil, "X-Api-Key", standIn)) // what is made once is made
	settled := p.client("http/1.1")
	p.do(settled, request(t, "GET", "/ok/0", nil, "X-Api-Key", standIn))
	settled.CloseIdleConnections()
	before, goroutines, files := inUse(), runtime.NumGoroutine(), descriptors(t)

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c := &clients{place: p, ctx: ctx, counts: map[string]int{}, ready: make(chan struct{})}
	for i := range n {
		c.running.Go(func() { c.run(i) })
	}
	close(c.ready)
	most := uint64(0)
	over := make(chan struct{})
	go func() { c.running.Wait(); close(over) }()
	for watching := true; watching; {
		select {
		case <-over:
			watching = false
		case <-time.After(200 * time.Millisecond):
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapInuse+m.StackInuse)
		}
	}
	if ctx.Err() != nil {
		t.Error("some clients got neither an answer nor an end")
	}
	close(server.over)
	t.Logf("%v; at most %d MiB above the beginning", c.counts, (most-min(before, most))>>20)
	for what, count := range c.counts {
		if strings.HasPrefix(what, "WRONG") {
			t.Error(what, count)
		}
	}
	if most > before+n*each {
		t.Errorf("%d MiB for %d connections", (most-before)>>20, n)
	}
	if a := server.alien.Load(); a > 0 {
		t.Errorf("%d requests for another host or without the secret", a)
	}
	if c.counts["ok"] == 0 || c.counts["cut"] == 0 {
		t.Error("nothing was tested")
	}
	settle(t, "connections", 1, func() int { return len(p.i.sessions) }) // the first client's
	settle(t, "requests", 0, func() int { return len(p.i.requests) })
	settle(t, "goroutines", goroutines+5, runtime.NumGoroutine)
	settle(t, "descriptors", files+5, func() int { return descriptors(t) })
	runtime.GC() // the second one empties pools
	if after := inUse(); after > before+64<<20 {
		t.Errorf("%d MiB are left", (after-before)>>20)
	}
	for _, proto := range bothProtocols {
		if res, _ := p.do(p.client(proto), request(t, "GET", "/ok/1", nil, "X-Api-Key", standIn)); res.StatusCode != 200 {
			t.Error("afterwards:", res.Status)
		}
	}
}

// clients are those of a campaign.
type clients struct {
	*place
	ctx     context.Context
	ready   chan struct{} // closed when all begin
	running sync.WaitGroup

	mu     sync.Mutex
	counts map[string]int // of outcomes
}

// faults are what one client after the other meets or does. The ones behind the empty one are the client's.
var faults = []string{"ok", "reset", "half", "gzip", "head", "last", "silent", "drip", "raw", "endless", "echo", "", "no hello", "half head", "half body", "leaves", "does not read"}

func (c *clients) run(i int) {
	<-c.ready
	fault, proto := faults[i%len(faults)], bothProtocols[i/len(faults)%2]
	var outcome string
	switch fault {
	case "":
		outcome = c.fetch(proto, "ok", i)
	case "no hello", "half head", "half body", "leaves", "does not read":
		outcome = c.misbehave(fault, i)
	default:
		outcome = c.fetch(proto, fault, i)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[outcome]++
}

// fetch sends a request, and returns what became of it. A client that waits for what does not come gives up.
func (c *clients) fetch(proto, fault string, i int) string {
	client, end := c.ownClient(proto)
	defer end()
	ctx, cancel := context.WithTimeout(c.ctx, time.Minute)
	defer cancel()
	method, body := "GET", []byte(nil)
	if fault == "echo" {
		method, body = "POST", bytes.Repeat([]byte(strconv.Itoa(i)+" "), 4000)
	}
	r, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("https://%s/%s/%d", hostName, fault, i), bytes.NewReader(body))
	if err != nil {
		return "WRONG " + err.Error()
	}
	r.Header.Set("X-Api-Key", standIn)
	if fault == "silent" || fault == "drip" || fault == "endless" {
		defer time.AfterFunc(5*time.Second, cancel).Stop()
	}
	res, err := client.Do(r)
	if err != nil {
		return cutOr(fault, err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(io.LimitReader(res.Body, 4<<20))
	whole := strings.Repeat(strconv.Itoa(i)+" ", 4000)
	switch {
	case res.StatusCode == http.StatusBadGateway && fault != "ok" && fault != "echo" && fault != "last":
		return "page"
	case err != nil:
		return cutOr(fault, err)
	case fault == "ok" || fault == "echo" || fault == "last":
		if res.StatusCode != 200 || string(got) != whole {
			return fmt.Sprintf("WRONG answer to %s %s: %s %.80q", proto, fault, res.Status, got)
		}
		return "ok"
	case fault == "endless":
		return "cut"
	}
	return fmt.Sprintf("WRONG: a whole answer to %s %s: %s, %d bytes, X-Large %d", proto, fault, res.Status, len(got), len(res.Header.Get("X-Large")))
}

// cutOr is the outcome of an error. One of a good server is right only if there were too many connections:
// this one is ended before its handshake.
func cutOr(fault string, err error) string {
	if fault == "ok" || fault == "echo" || fault == "last" {
		var op *net.OpError
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &op) {
			return "too many"
		}
		return "WRONG: " + fault + ": " + err.Error()
	}
	return "cut"
}

// ownClient returns a client whose connections end with the function that it returns, also those that are dialled
// behind that: a transport keeps a connection whose request was given up meanwhile.
func (c *clients) ownClient(proto string) (*http.Client, func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	client := c.client(proto)
	ctx, cancel := context.WithCancel(context.Background())
	tr := client.Transport.(*http.Transport)
	dial := tr.DialContext
	tr.DialContext = func(_ context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err == nil {
			context.AfterFunc(ctx, func() { conn.Close() })
		}
		return conn, err
	}
	return client, cancel
}

// misbehave is a client that does so for a while, and leaves.
func (c *clients) misbehave(how string, i int) string {
	conn, err := net.Dial("tcp", c.guest.Addr().String())
	if err != nil {
		return "WRONG " + err.Error()
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if how == "no hello" {
		_, _ = conn.Write([]byte{22, 3, 1, 2})
		return linger(conn)
	}
	tc := tls.Client(conn, &tls.Config{RootCAs: c.trusted, ServerName: hostName, NextProtos: []string{"http/1.1"}})
	if err := tc.HandshakeContext(c.ctx); err != nil {
		return "too many"
	}
	head := "X-Api-Key: " + standIn + "\r\nHost: " + hostName + "\r\n"
	switch how {
	case "half head":
		_, _ = io.WriteString(tc, "GET /ok/1 HTTP/1.1\r\n"+head[:20])
	case "half body":
		_, _ = io.WriteString(tc, "POST /echo/1 HTTP/1.1\r\n"+head+"Content-Length: 100000\r\n\r\nthe beginning")
	case "leaves":
		_, _ = io.WriteString(tc, "GET /drip/1 HTTP/1.1\r\n"+head+"\r\n")
		if i%2 == 0 {
			_ = conn.(*net.TCPConn).SetLinger(0)
		}
		return "left"
	case "does not read":
		_, _ = io.WriteString(tc, "GET /endless/1 HTTP/1.1\r\n"+head+"\r\n")
		time.Sleep(3 * time.Second)
		return "left"
	}
	return linger(tc)
}

// linger writes slowly for a while.
func linger(conn net.Conn) string {
	for range 10 {
		time.Sleep(300 * time.Millisecond)
		if _, err := conn.Write([]byte("x")); err != nil {
			return "too many" // ended by the gateway
		}
	}
	return "left"
}

// TestDeadlines: a peer that stops before a request is under way is given up, on both sides and in each state.
func TestDeadlines(t *testing.T) {
	short := times{client: time.Second, head: time.Second, idle: time.Second, handshake: time.Second}
	p := newPlace(t, &seen{}, bothProtocols, bound(secret.Place{}))
	p.stop()
	p.i.times = short
	p.serve(p.server)
	head := func(end bool) func(net.Conn) {
		return func(c net.Conn) {
			_ = startHTTP2(c).WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: headBlock(":method", "GET"), EndHeaders: end, EndStream: true})
		}
	}
	writes := func(text string) func(net.Conn) {
		return func(c net.Conn) { _, _ = io.WriteString(c, text) }
	}
	for name, one := range map[string]struct {
		proto string // with which it shakes hands; empty: it does not
		does  func(net.Conn)
	}{
		"no ClientHello":              {"", writes("")},
		"half a ClientHello":          {"", writes("\x16\x03\x01\x00\xc8\x01\x00\x00")},
		"no request":                  {"http/1.1", writes("")},
		"half a head":                 {"http/1.1", writes("GET / HTTP/1.1\r\nHost: " + hostName + "\r\nX-A: ")},
		"idle":                        {"http/1.1", writes("GET / HTTP/1.1\r\nHost: " + hostName + "\r\n\r\n")},
		"HTTP/2, no preface":          {"h2", writes("")},
		"HTTP/2, idle":                {"h2", func(c net.Conn) { startHTTP2(c) }},
		"HTTP/2, half a head":         {"h2", head(false)},
		"HTTP/2, a head that is none": {"h2", head(true)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var c net.Conn
			if one.proto != "" {
				c = p.dial(t, one.proto)
			} else {
				var err error
				if c, err = net.Dial("tcp", p.guest.Addr().String()); err != nil {
					t.Fatal(err)
				}
			}
			defer c.Close()
			one.does(c)
			_ = c.SetReadDeadline(time.Now().Add(time.Minute))
			if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection is still there after a minute")
			}
		})
	}
	t.Run("a server that does not shake hands", func(t *testing.T) {
		t.Parallel()
		mute, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer mute.Close()
		q := newPlace(t, &seen{}, bothProtocols, bound(secret.Place{}))
		q.i.times = short
		q.i.times.client = time.Minute
		q.stop()
		q.serve(mute.Addr().String())
		if res, _ := q.do(q.client("http/1.1"), request(t, "GET", "/", nil)); res.StatusCode != http.StatusBadGateway {
			t.Error(res.Status)
		}
	})
}

// TestServerThatEndsAnUnusedConnection: a client that connects before it needs to (browsers do) gets its answer, though the
// server has ended the connection meanwhile.
func TestServerThatEndsAnUnusedConnection(t *testing.T) {
	everyProtocol(t, func(t *testing.T, proto string) {
		p := newPlace(t, &seen{}, bothProtocols, bound(secret.Place{}))
		ended := make(chan struct{})
		var once sync.Once
		target := p.target(p.server)
		dial := target.Dial
		target.Dial = func() (conn net.Conn, err error) {
			conn, err = dial()
			once.Do(func() {
				time.AfterFunc(unusedTime, func() { conn.(*net.TCPConn).CloseRead(); conn.(*net.TCPConn).CloseWrite(); close(ended) })
			})
			return conn, err
		}
		client, guest := net.Pipe()
		t.Cleanup(func() { client.Close() }) // HTTP/2's transport may not count it as idle yet
		p.serving.Go(func() { p.i.Serve(context.Background(), guest, target) })
		tc := tls.Client(client, &tls.Config{RootCAs: p.trusted, ServerName: hostName, NextProtos: []string{proto}})
		if err := tc.HandshakeContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-ended
		var protocols http.Protocols
		protocols.SetHTTP1(proto != "h2")
		protocols.SetHTTP2(proto == "h2")
		tr := &http.Transport{Protocols: &protocols, DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return tc, nil }}
		defer tr.CloseIdleConnections()
		res, err := tr.RoundTrip(request(t, "POST", "/", strings.NewReader("a body that cannot be sent again"), "Authorization", "Bearer "+standIn))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 200 {
			t.Error(res.Status)
		}
	})
}

// rawServer is a server of HTTP/2 that does for each connection what it is told.
func rawServer(t *testing.T, p *place, serve func(f *http2.Framer, c net.Conn)) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: p.upstreamTLS.Certificates, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	connections := accept.NewGroup()
	t.Cleanup(connections.Close)
	connections.Serve(l, maxDials, func(_ context.Context, c net.Conn) {
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		f := http2.NewFramer(c, c)
		_ = f.WriteSettings()
		serve(f, c)
	})
	p.stop()
	p.serve(l.Addr().String())
}

// nextHead reads frames up to the next request's head, and returns its stream; 0: the connection is over.
func nextHead(f *http2.Framer) uint32 {
	for {
		switch frame, err := f.ReadFrame(); h := frame.(type) {
		case *http2.HeadersFrame:
			return h.StreamID
		default:
			if err != nil {
				return 0
			}
		}
	}
}

// respond writes the head of an answer.
func respond(f *http2.Framer, stream uint32, end bool) {
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: headBlock(":status", "200"), EndHeaders: true, EndStream: end})
}

// TestFaultsOfHTTP2: servers that go away, reset, flood or break the protocol. A request with a body is sent once
// at most after a server may have begun with it, and each client gets an answer or an end.
func TestFaultsOfHTTP2(t *testing.T) {
	for name, c := range map[string]struct {
		serve func(n int64, f *http2.Framer, c net.Conn)
		want  int // status of the answer; 0: an error page or an end
	}{
		"GOAWAY before the request is looked at, then a good server": {func(n int64, f *http2.Framer, _ net.Conn) {
			s := nextHead(f)
			if n == 1 {
				_ = f.WriteGoAway(0, http2.ErrCodeNo, nil)
				return
			}
			respond(f, s, true)
		}, 200},
		"GOAWAY in the middle of the answer": {func(_ int64, f *http2.Framer, _ net.Conn) {
			s := nextHead(f)
			respond(f, s, false)
			_ = f.WriteData(s, false, []byte("the beginning"))
			_ = f.WriteGoAway(s, http2.ErrCodeInternal, nil)
		}, 0},
		"GOAWAY, and the answer goes on": {func(_ int64, f *http2.Framer, _ net.Conn) {
			s := nextHead(f)
			_ = f.WriteGoAway(s, http2.ErrCodeNo, nil)
			respond(f, s, false)
			_ = f.WriteData(s, true, []byte("whole"))
			nextHead(f)
		}, 200},
		"reset": {func(_ int64, f *http2.Framer, _ net.Conn) {
			s := nextHead(f)
			respond(f, s, false)
			_ = f.WriteRSTStream(s, http2.ErrCodeInternal)
			nextHead(f)
		}, 0},
		"half a head": {func(_ int64, f *http2.Framer, _ net.Conn) {
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: nextHead(f), BlockFragment: []byte{0x88}, EndHeaders: false})
		}, 0},
		"an endless head": {func(_ int64, f *http2.Framer, _ net.Conn) {
			s := nextHead(f)
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: s, BlockFragment: []byte{0x88}, EndHeaders: false})
			var block bytes.Buffer
			_ = hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: "x-large", Value: strings.Repeat("x", 8000), Sensitive: true})
			for f.WriteContinuation(s, false, block.Bytes()) == nil {
			}
		}, 0},
		"no HTTP/2 at all": {func(_ int64, f *http2.Framer, c net.Conn) {
			nextHead(f)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}, 0},
		"frames of a stream that is not open": {func(_ int64, f *http2.Framer, _ net.Conn) {
			s := nextHead(f)
			_ = f.WriteData(s+100, false, []byte("x"))
			respond(f, s+100, true)
			nextHead(f)
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, &seen{}, bothProtocols, bound(secret.Place{}))
			var n atomic.Int64
			rawServer(t, p, func(f *http2.Framer, conn net.Conn) { c.serve(n.Add(1), f, conn) })
			client := p.client("h2")
			client.Timeout = time.Minute
			res, err := client.Do(request(t, "GET", "/", nil, "Authorization", "Bearer "+standIn))
			status := 0
			if err == nil {
				_, err = io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if status = res.StatusCode; err != nil || status == http.StatusBadGateway {
					status = 0
				}
			}
			var late net.Error
			if status != c.want || errors.As(err, &late) && late.Timeout() {
				t.Error(status, err)
			}
			if n.Load() > 10 {
				t.Errorf("%d connections to the server for one request", n.Load())
			}
		})
	}
}
