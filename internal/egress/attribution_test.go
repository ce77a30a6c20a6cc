package egress

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"bawn.dev/bawn/internal/egress/audit"
)

// TestProcess: queries, denials and connections carry the name that the guest
// tells, made safe; no decision waits for it.
func TestProcess(t *testing.T) {
	answer := make(chan struct{})
	l := newLab(t, testRules{"good.example:443"}, func(c *Config) {
		c.Process = func(ctx context.Context, proto string, src, dst netip.AddrPort) string {
			<-answer
			if src != testGuest || dst.Port() == 0 {
				t.Errorf("asked about %s to %s", src, dst)
			}
			return "cu\x1b rl[7]" + strings.Repeat("x", 1000)
		}
	})
	l.pending.time = time.Minute
	if _, err := l.dialAddr(netip.MustParseAddrPort("203.0.113.9:443")); err == nil {
		t.Fatal("not denied")
	}
	if got := readAll(t, l.path); len(got) != 0 {
		t.Errorf("before the answer: %+v", got)
	}
	close(answer) // only now: the denial did not wait
	l.Settle(t.Context())
	want := "cu??rl[7]" + strings.Repeat("x", maxProcessName-9)
	if got := readAll(t, l.path); len(got) != 1 || got[0].Verdict != audit.Denied || got[0].Process != want {
		t.Errorf("%+v", got)
	}
}

// TestProcessOfAllowed: a query, and both lines of a connection.
func TestProcessOfAllowed(t *testing.T) {
	l := newLab(t, testRules{"udp time.example:123"}, func(c *Config) {
		c.Process = func(_ context.Context, proto string, _, dst netip.AddrPort) string {
			return fmt.Sprintf("%s%d[7]", proto, dst.Port())
		}
	})
	l.pending.time = time.Minute
	s, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l.serve("time.example", "203.0.113.2:123", s.LocalAddr().String())
	r, err := l.packets(testDNS)
	if err != nil {
		t.Fatal(err)
	}
	q := new(dns.Msg)
	q.SetQuestion("time.example.", dns.TypeA)
	b, _ := q.Pack()
	if _, err := r.Write(b); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 512)); err != nil {
		t.Fatal(err)
	}
	clock, _, _ := l.names.Addresses("time.example")
	if _, err := l.packets(netip.AddrPortFrom(clock, 123)); err != nil {
		t.Fatal(err)
	}
	for len(readAll(t, l.path)) < 2 {
		time.Sleep(time.Millisecond)
	}
	l.Close()
	got := ""
	for _, e := range readAll(t, l.path) {
		got += e.Proto + " " + e.Event + " " + e.Process + "\n"
	}
	if want := "dns  udp53[7]\nudp open udp123[7]\nudp close udp123[7]\n"; got != want {
		t.Errorf("%s, want\n%s", got, want)
	}
}

// TestProcessNeverTold: a guest that does not answer is asked maxHints times, and
// the log says all the rest in order.
func TestProcessNeverTold(t *testing.T) {
	var asked atomic.Int32
	l := newLab(t, testRules{}, func(c *Config) {
		c.Process = func(ctx context.Context, _ string, _, _ netip.AddrPort) string {
			asked.Add(1)
			<-ctx.Done()
			return "too late"
		}
	})
	const n = 3 * maxHints
	for i := range n {
		if _, err := l.dialAddr(netip.AddrPortFrom(netip.MustParseAddr("203.0.113.9"), uint16(1+i))); err == nil {
			t.Fatal("not denied")
		}
	}
	// Written without a name, though nobody closed anything and none came.
	for until := time.Now().Add(time.Minute); len(readAll(t, l.path)) < n; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("%d lines of %d", len(readAll(t, l.path)), n)
		}
	}
	for i, e := range readAll(t, l.path) {
		if e.Process != "" || e.Port != uint16(1+i) {
			t.Errorf("line %d: %+v", i, e)
		}
	}
	if got := asked.Load(); got != maxHints {
		t.Errorf("asked %d times, want %d", got, maxHints)
	}
}

// TestSuggestOnlyHosts: no rule is suggested for what is not a host's name.
func TestSuggestOnlyHosts(t *testing.T) {
	l := newLab(t, testRules{})
	l.ask("_http._tcp.deb.example.", dns.TypeSRV)
	l.ask("_http._tcp.deb.example.", dns.TypeA)
	l.ask("deb.example.", dns.TypeTXT)
	l.ask("deb.example.", dns.TypeA)
	l.Close()
	all := readAll(t, l.path)
	if len(all) != 4 {
		t.Fatalf("%+v", all)
	}
	for i, e := range all {
		if e.Verdict != audit.Denied || (e.Suggest != "") != (i == 3) {
			t.Errorf("%+v", e)
		}
	}
}

// TestProcessOfFlood: in a flood, attribute lines only say how many were alike, nobody
// is asked.
func TestProcessOfFlood(t *testing.T) {
	l := newLab(t, testRules{}, func(c *Config) {
		c.Process = func(context.Context, string, netip.AddrPort, netip.AddrPort) string { return "flood[7]" }
	})
	dst := netip.MustParseAddrPort("203.0.113.9:443")
	if l.attribute("tcp", testGuest, dst) == nil {
		t.Error("no question before the flood")
	}
	for range 1000 {
		for l.cfg.Log.Room() {
			for _, verdict := range []string{audit.Denied, audit.Allowed} { // of both kinds of connections
				l.cfg.Log.Write(audit.Entry{Verdict: verdict, Proto: "tcp", Name: "flood.example"})
			}
		}
		asked := l.attribute("tcp", testGuest, dst) != nil
		if l.cfg.Log.Room() {
			continue // there is room again for a line: nothing is shown
		}
		if asked {
			t.Error("asked for a line that is not written")
		}
		return
	}
	t.Error("there is room for a line after each of a thousand floods")
}
