package nameserver

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

var (
	testPool4 = netip.MustParsePrefix("198.18.0.0/16")
	testPool6 = netip.MustParsePrefix("fd62:6177:6e00:1::/64")
)

func testResolver() (r *Resolver, seen func(Question, bool), denied *int) {
	denied = new(int)
	return &Resolver{
			Table:    NewTable(testPool4, testPool6),
			Resolves: func(name string) bool { return name == "good.example" || strings.HasSuffix(name, ".wild.example") },
			Info:     []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fd00::1")},
		}, func(_ Question, allowed bool) {
			if !allowed {
				*denied++
			}
		}, denied
}

func ask(t testing.TB, r *Resolver, seen func(Question, bool), name string, qtype uint16) *dns.Msg {
	t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(name, qtype)
	q.SetEdns0(4096, true)
	b, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	var out dns.Msg
	if err := out.Unpack(r.Answer(b, seen)); err != nil {
		t.Fatal(err)
	}
	if out.Id != q.Id || !out.Response || len(out.Question) != 1 || out.Question[0].Name != name {
		t.Fatalf("a wrong reply: %v", &out)
	}
	return &out
}

func TestDNSAllowed(t *testing.T) {
	r, seen, denied := testResolver()
	a := ask(t, r, seen, "Good.eXample.", dns.TypeA).Answer[0].(*dns.A)
	aaaa := ask(t, r, seen, "good.example.", dns.TypeAAAA).Answer[0].(*dns.AAAA)
	v4, _ := netip.AddrFromSlice(a.A.To4())
	v6, _ := netip.AddrFromSlice(aaaa.AAAA)
	if !testPool4.Contains(v4) || !testPool6.Contains(v6) || r.Table.Name(v4) != "good.example" || r.Table.Name(v6) != "good.example" {
		t.Fatalf("%v %v", v4, v6)
	}
	if again := ask(t, r, seen, "good.example.", dns.TypeA).Answer[0].(*dns.A); !again.A.Equal(a.A) {
		t.Fatal("the address changed")
	}
	if other := ask(t, r, seen, "x.wild.example.", dns.TypeA).Answer[0].(*dns.A); other.A.Equal(a.A) {
		t.Fatal("two names, one address")
	}
	for _, qtype := range []uint16{dns.TypeTXT, dns.TypeMX, dns.TypeHTTPS, dns.TypeSVCB, dns.TypeCNAME, dns.TypeNULL, dns.TypeNS, dns.TypeSRV, dns.TypeAXFR, 65280} {
		m := ask(t, r, seen, "good.example.", qtype)
		if m.Rcode != dns.RcodeSuccess || len(m.Answer) != 0 || len(m.Ns) != 1 {
			t.Errorf("type %d: %v", qtype, m)
		}
	}
	if m := ask(t, r, seen, "good.example.", dns.TypeANY); len(m.Answer) != 2 {
		t.Errorf("ANY: %v", m)
	}
	for _, a := range []netip.Addr{v4, v6} {
		arpa, _ := dns.ReverseAddr(a.String())
		m := ask(t, r, seen, arpa, dns.TypePTR)
		if len(m.Answer) != 1 || m.Answer[0].(*dns.PTR).Ptr != "good.example." {
			t.Errorf("PTR of %s: %v", a, m)
		}
	}
	if m := ask(t, r, seen, "bawn.internal.", dns.TypeA); len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != "192.0.2.1" {
		t.Errorf("info: %v", m)
	}
	if *denied != 0 {
		t.Errorf("%d denials", *denied)
	}
}

func TestDNSDenied(t *testing.T) {
	r, seen, denied := testResolver()
	n := 0
	for _, name := range []string{
		"evil.example.", "wild.example.", "good.example.evil.", "xgood.example.", "localhost.", ".",
		strings.Repeat("a", 63) + "." + strings.Repeat("b", 63) + ".t.evil.example.",
		`a\000b.wild.example.`, `a\.b.wild.example.`, `é.wild.example.`,
	} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeTXT, dns.TypeNULL, dns.TypeCNAME, dns.TypeHTTPS, dns.TypeANY} {
			q := new(dns.Msg)
			q.SetQuestion(name, qtype)
			b, err := q.Pack()
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			var m dns.Msg
			if err := m.Unpack(r.Answer(b, seen)); err != nil {
				t.Fatal(err)
			}
			if m.Rcode != dns.RcodeNameError || len(m.Answer) != 0 {
				t.Errorf("%s %d: %v", name, qtype, &m)
			}
			n++
		}
	}
	if *denied != n {
		t.Errorf("%d of %d denials were told", *denied, n)
	}
	if len(r.Table.byName) != 0 {
		t.Error("a denied name got an address")
	}
	for _, name := range []string{"1.2.3.4.in-addr.arpa.", "9.9.18.198.in-addr.arpa.", "x.in-addr.arpa.", "1.ip6.arpa."} {
		if m := ask(t, r, seen, name, dns.TypePTR); m.Rcode != dns.RcodeNameError {
			t.Errorf("%s: %v", name, m)
		}
	}
}

func TestDNSMalformed(t *testing.T) {
	r, seen, _ := testResolver()
	q := new(dns.Msg)
	q.SetQuestion("good.example.", dns.TypeA)
	good, _ := q.Pack()
	for name, tc := range map[string]struct {
		change func([]byte) []byte
		rcode  int // -1: dropped
	}{
		"short":         {func(b []byte) []byte { return b[:11] }, -1},
		"empty":         {func(b []byte) []byte { return nil }, -1},
		"a response":    {func(b []byte) []byte { b[2] |= 0x80; return b }, -1},
		"too long":      {func(b []byte) []byte { return append(b, make([]byte, maxQuery)...) }, -1},
		"truncated":     {func(b []byte) []byte { return b[:len(b)-3] }, dns.RcodeFormatError},
		"no question":   {func(b []byte) []byte { b[5] = 0; return b[:dnsHeader] }, dns.RcodeFormatError},
		"many promised": {func(b []byte) []byte { b[4] = 0xff; return b }, dns.RcodeFormatError},
		"pointer loop":  {func(b []byte) []byte { b[12], b[13] = 0xc0, 12; return b }, dns.RcodeFormatError},
		"update":        {func(b []byte) []byte { b[2] |= 5 << 3; return b }, dns.RcodeNotImplemented},
		"chaos":         {func(b []byte) []byte { b[len(b)-1] = 3; return b }, dns.RcodeRefused},
	} {
		b := tc.change(append([]byte(nil), good...))
		out := r.Answer(b, seen)
		if tc.rcode < 0 {
			if out != nil {
				t.Errorf("%s: %x", name, out)
			}
			continue
		}
		if len(out) < dnsHeader || int(out[3]&0x0f) != tc.rcode || out[2]&0x80 == 0 || out[0] != b[0] {
			t.Errorf("%s: %x", name, out)
		}
	}
}

func TestDNSVersion(t *testing.T) {
	r, seen, _ := testResolver()
	q := new(dns.Msg)
	q.SetQuestion("good.example.", dns.TypeA)
	q.SetEdns0(4096, false)
	q.IsEdns0().SetVersion(1)
	b, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	var m dns.Msg
	if err := m.Unpack(r.Answer(b, seen)); err != nil || m.Rcode != dns.RcodeBadVers || len(m.Answer) != 0 {
		t.Fatal(&m, err)
	}
}

func TestNamesBounded(t *testing.T) {
	n := NewTable(netip.MustParsePrefix("198.18.0.0/29"), testPool6)
	now := time.Unix(1, 0)
	n.now = func() time.Time { return now }
	seen := map[netip.Addr]bool{}
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		v4, _, err := n.Addresses(name)
		if err != nil || seen[v4] || !n.Contains(v4) {
			t.Fatal(name, v4, err)
		}
		seen[v4] = true
		now = now.Add(time.Second)
	}
	if seen[netip.MustParseAddr("198.18.0.0")] || seen[netip.MustParseAddr("198.18.0.7")] {
		t.Error("network or broadcast address given out")
	}
	if _, _, err := n.Addresses("g"); err == nil {
		t.Fatal("a seventh address out of six")
	}
	a, _, _ := n.Addresses("a")
	now = now.Add(nameRest)
	name, release := n.Hold(at(n.pool4, 2))
	if name != "b" {
		t.Fatal(name)
	}
	g, _, err := n.Addresses("g") // takes c's: a was asked for again, b is held
	if err != nil || n.Name(g) != "g" || n.byName["c"] != nil || n.Name(a) != "a" || n.byName["b"] == nil {
		t.Fatal(g, err)
	}
	release()
	if got := n.Name(netip.MustParseAddr("fd62:6177:6e00:1:1::1")); got != "" {
		t.Fatal(got)
	}
	if got := n.Name(netip.MustParseAddr("198.18.0.0")); got != "" {
		t.Fatal(got)
	}
}

func FuzzDNS(f *testing.F) {
	r, seen, _ := testResolver()
	q := new(dns.Msg)
	q.SetQuestion("good.example.", dns.TypeA)
	q.SetEdns0(4096, true)
	b, _ := q.Pack()
	f.Add(b)
	q.SetQuestion("1.0.18.198.in-addr.arpa.", dns.TypePTR)
	b, _ = q.Pack()
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		out := r.Answer(b, seen)
		if out == nil {
			return
		}
		if len(out) > udpSize || out[0] != b[0] || out[1] != b[1] || out[2]&0x80 == 0 {
			t.Fatalf("a wrong reply %x", out)
		}
		var m dns.Msg
		if err := m.Unpack(out); err != nil {
			t.Fatalf("a reply that cannot be read: %v", err)
		}
		if len(m.Answer) > 0 && m.Rcode != dns.RcodeSuccess {
			t.Fatalf("a refusal with an answer: %v", &m)
		}
		if len(r.Table.byName) > maxNames {
			t.Fatal("the names are not bounded")
		}
	})
}

// TestDNSOutOfAddresses: the log says why a name that is allowed is not answered.
func TestDNSOutOfAddresses(t *testing.T) {
	r, _, _ := testResolver()
	r.Table = NewTable(netip.MustParsePrefix("198.18.0.0/30"), testPool6)
	var notes []string
	seen := func(q Question, _ bool) { notes = append(notes, q.Note) }
	for _, name := range []string{"a", "b", "c"} {
		ask(t, r, seen, name+".wild.example.", dns.TypeA)
	}
	if m := ask(t, r, seen, "d.wild.example.", dns.TypeA); m.Rcode != dns.RcodeServerFailure || len(notes) != 4 || notes[1] != "" || !strings.Contains(notes[3], ErrFull.Error()) {
		t.Errorf("%v, logged %q", m, notes)
	}
}
