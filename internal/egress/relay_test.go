package egress

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"testing"

	"bawn.dev/bawn/internal/egress/tunnel/tunneltest"
)

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
	addr := tunneltest.Serve(b, func(c net.Conn) {
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
	})
	real := netip.MustParseAddrPort(addr)
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
