package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/time/rate"
)

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
		if out := l.reply(b, nil, l.dns.Answer); out[3]&0xf != want {
			t.Errorf("query %d: %x", i, out)
		}
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
