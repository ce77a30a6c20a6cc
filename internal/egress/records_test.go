package egress

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/egress/nameserver"
)

// recordServer is a resolver that answers from a zone file, and counts.
type recordServer struct {
	mu    sync.Mutex
	zone  []dns.RR
	asked []string
}

func (s *recordServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	question := q.Question[0]
	s.asked = append(s.asked, strings.ToLower(question.Name)+" "+dns.TypeToString[question.Qtype])
	m := new(dns.Msg).SetReply(q)
	name := question.Name
	for _, r := range s.zone {
		if !strings.EqualFold(r.Header().Name, name) {
			continue
		}
		if alias, ok := r.(*dns.CNAME); ok {
			name = alias.Target
			m.Answer = append(m.Answer, r)
		} else if r.Header().Rrtype == question.Qtype {
			m.Answer = append(m.Answer, r)
		}
	}
	if len(m.Answer) == 0 {
		m.Rcode = dns.RcodeNameError
	}
	size := dns.MaxMsgSize
	if _, packet := w.RemoteAddr().(*net.UDPAddr); packet {
		size = 1232
	}
	m.Truncate(size)
	_ = w.WriteMsg(m)
}

func (s *recordServer) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

// serveRecords serves a zone over UDP and TCP on a free port of loopback.
func serveRecords(t *testing.T, zone string) (s *recordServer, addr string) {
	t.Helper()
	s = &recordServer{}
	parser := dns.NewZoneParser(strings.NewReader(zone), ".", "")
	for r, ok := parser.Next(); ok; r, ok = parser.Next() {
		s.zone = append(s.zone, r)
	}
	if err := parser.Err(); err != nil {
		t.Fatal(err)
	}
	packets, streams := listenBoth(t)
	addr = packets.LocalAddr().String()
	for _, server := range []*dns.Server{{PacketConn: packets, Handler: s}, {Listener: streams, Handler: s}} {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		go func() { _ = server.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = server.Shutdown() })
	}
	return s, addr
}

// listenBoth listens on a port that is free for UDP and for TCP.
func listenBoth(t *testing.T) (net.PacketConn, net.Listener) {
	for range 100 {
		packets, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		streams, err := net.Listen("tcp", packets.LocalAddr().String())
		if err == nil {
			return packets, streams
		}
		packets.Close() // another program has the port for TCP
	}
	t.Fatal("no port is free for both")
	return nil, nil
}

// recordLab is a lab whose records come from a real resolver.
func recordLab(t *testing.T, zone string, rules testRules) (*lab, *recordServer) {
	s, addr := serveRecords(t, zone)
	return newLab(t, rules, func(c *Config) {
		c.Records = func(ctx context.Context, name string, qtype uint16) (*dns.Msg, error) {
			return nameserver.AskServer(ctx, name, qtype, addr)
		}
		c.Hosts = map[string][]netip.Addr{"pinned.test": addrs("198.51.100.9")}
	}), s
}

const recordZone = `
alias.test. 60 IN CNAME mail.test.
_mongodb._tcp.cluster.test. 60 IN SRV 0 0 27017 shard0.cluster.test.
_mongodb._tcp.cluster.test. 60 IN SRV 0 0 27017 shard1.elsewhere.test.
cluster.test. 60 IN TXT "authSource=admin&replicaSet=rs0"
mail.test. 60 IN MX 10 mx.mail.test.
mail.test. 60 IN CAA 0 issue "ca.test"
_ldap._tcp.dc._msdcs.corp.test. 60 IN SRV 0 0 389 dc1.corp.test.
_acme-challenge.mail.test. 60 IN TXT "token"
web.test. 60 IN HTTPS 1 . alpn=h2 ech=AEX+DQBB
`

// TestRecords: what mongodb+srv, mail, LDAP and ACME ask for is answered for allowed
// names, and the target of a record needs a rule of its own.
func TestRecords(t *testing.T) {
	l, _ := recordLab(t, recordZone, testRules{"cluster.test:27017", "shard0.cluster.test:27017", "mail.test:25", "alias.test:25", "corp.test:389", "web.test:443"})
	for _, c := range []struct {
		name  string
		qtype uint16
		want  int
	}{
		{"_mongodb._tcp.cluster.test.", dns.TypeSRV, 2}, {"cluster.test.", dns.TypeTXT, 1}, {"mail.test.", dns.TypeMX, 1}, {"mail.test.", dns.TypeCAA, 1},
		{"alias.test.", dns.TypeMX, 1}, {"_ldap._tcp.dc._msdcs.corp.test.", dns.TypeSRV, 1}, {"_acme-challenge.mail.test.", dns.TypeTXT, 1},
		{"cluster.test.", dns.TypeMX, 0}, {"web.test.", dns.TypeHTTPS, 0}, {"web.test.", dns.TypeSVCB, 0}, {"_mongodb._tcp.cluster.test.", dns.TypeA, 0},
	} {
		m := l.ask(c.name, c.qtype)
		if m.Rcode != dns.RcodeSuccess || len(m.Answer) != c.want || c.want == 0 && len(m.Ns) != 1 {
			t.Errorf("%s %s: %v", c.name, dns.TypeToString[c.qtype], m)
		}
		for _, r := range m.Answer {
			if r.Header().Name != c.name || r.Header().Rrtype != c.qtype {
				t.Errorf("%s %s: %v", c.name, dns.TypeToString[c.qtype], r)
			}
		}
	}
	if m := l.ask("shard0.cluster.test.", dns.TypeA); len(m.Answer) != 1 {
		t.Errorf("an allowed target: %v", m)
	}
	if m := l.ask("shard1.elsewhere.test.", dns.TypeA); m.Rcode != dns.RcodeNameError {
		t.Errorf("a target without a rule: %v", m)
	}
	logged := map[string]string{}
	for _, e := range readAll(t, l.path) {
		logged[e.Name+" "+e.App] = e.Reason
	}
	for what, note := range map[string]string{
		"_mongodb._tcp.cluster.test SRV": "2 records", "cluster.test TXT": "1 record", "cluster.test MX": "answered empty: the name has no such record",
		"web.test HTTPS": "answered empty: records of this type are not looked up", "_mongodb._tcp.cluster.test A": "answered empty: the name of a service has no address",
	} {
		if logged[what] != note {
			t.Errorf("the log has of %s: %q, want %q", what, logged[what], note)
		}
	}
}

// TestAttackRecordsBehindAnAlias: whoever owns an allowed name makes it an alias of one that the guest may not ask about,
// as of the host's own network, whose resolver answers for that too.
func TestAttackRecordsBehindAnAlias(t *testing.T) {
	zone := `
corp.evil.test. 60 IN CNAME _ldap._tcp.dc._msdcs.corp.test.
chain.evil.test. 60 IN CNAME good.test.
good.test. 60 IN CNAME secret.corp.test.
secret.corp.test. 60 IN TXT "password"
loop.evil.test. 60 IN CNAME loop.evil.test.
fine.evil.test. 60 IN CNAME FINE.good.test.
FINE.good.test. 60 IN TXT "fine"
service.evil.test. 60 IN CNAME _x._tcp.good.test.
_x._tcp.good.test. 60 IN SRV 0 0 443 good.test.
` + recordZone
	l, _ := recordLab(t, zone, testRules{"**.evil.test:443", "good.test:443", "fine.good.test:443", "-denied.test:*"})
	for _, c := range []struct {
		name  string
		qtype uint16
		want  int
	}{
		{"corp.evil.test.", dns.TypeSRV, 0}, {"chain.evil.test.", dns.TypeTXT, 0}, {"loop.evil.test.", dns.TypeTXT, 0},
		{"fine.evil.test.", dns.TypeTXT, 1}, {"service.evil.test.", dns.TypeSRV, 1}, {"fine.evil.test.", dns.TypeTXT, 1},
	} {
		if m := l.ask(c.name, c.qtype); m.Rcode != dns.RcodeSuccess || len(m.Answer) != c.want {
			t.Errorf("%s %s: %v", c.name, dns.TypeToString[c.qtype], m)
		}
	}
	found := false
	for _, e := range readAll(t, l.path) {
		found = found || e.Name == "corp.evil.test" && strings.Contains(e.Reason, "it is an alias of _ldap._tcp.dc._msdcs.corp.test, which no rule allows")
	}
	if !found {
		t.Error("the log does not say why")
	}
	// A rule that goes takes effect at once, also on what is kept.
	l.SetPolicy(rulesFrom(t, "allow **.evil.test:443"))
	if m := l.ask("fine.evil.test.", dns.TypeTXT); len(m.Answer) != 0 {
		t.Errorf("without the rule: %v", m)
	}
	// Records of another name that a resolver adds are not taken for those of the alias.
	stray := newLab(t, testRules{"a.test:443"}, func(c *Config) {
		c.Records = func(context.Context, string, uint16) (*dns.Msg, error) {
			rr, err := dns.NewRR(`secret.corp.test. 60 IN TXT "password"`)
			return &dns.Msg{Answer: []dns.RR{rr}}, err
		}
	})
	if m := stray.ask("a.test.", dns.TypeTXT); len(m.Answer) != 0 {
		t.Errorf("a stray record: %v", m)
	}
}

// TestRecordsLeakNothing: no question about a name without a rule, or with much in its
// labels, leaves the host.
func TestRecordsLeakNothing(t *testing.T) {
	l, s := recordLab(t, recordZone, testRules{"cluster.test:27017", "pinned.test:443", "-_bad._tcp.cluster.test:*", "-denied.test:*", "**.wild.test:443", "-**.secret.wild.test:*", "host:5432"})
	for _, name := range []string{
		"evil.test.", "x.cluster.test.", "_tcp.evil.test.", "_bad._tcp.cluster.test.", "_x._tcp.denied.test.", "_x._tcp.x.secret.wild.test.", "secret.wild.test.",
		"_" + strings.Repeat("a", 16) + ".cluster.test.", "_a._b._c._d._e.cluster.test.", "data._tcp.cluster.test.", "_a.data._b.cluster.test.", "dc.cluster.test.", "_a.dc._tcp.cluster.test.",
		"_tcp.", "_x._tcp.host.bawn.internal.", "_x.bawn.internal.", `_a\000b.cluster.test.`, "_a b.cluster.test.",
	} {
		for _, qtype := range []uint16{dns.TypeTXT, dns.TypeSRV, dns.TypeMX, dns.TypeNS} {
			if m := l.ask(name, qtype); m.Rcode != dns.RcodeNameError {
				t.Errorf("%s: %v", name, m)
			}
		}
	}
	for _, qtype := range []uint16{dns.TypeHTTPS, dns.TypeSVCB, dns.TypeNULL, dns.TypeCNAME, dns.TypeDS, dns.TypeDNSKEY, dns.TypeAXFR, dns.TypeANY, 65280} {
		l.ask("cluster.test.", qtype)
	}
	if m := l.ask("pinned.test.", dns.TypeTXT); m.Rcode != dns.RcodeSuccess || len(m.Answer) > 0 {
		t.Error(m)
	}
	l.ask("_x._tcp.pinned.test.", dns.TypeSRV)
	if s.count() != 0 {
		t.Errorf("the resolver was asked %q", s.asked)
	}
}

// TestRecordsAreBounded: endless new names are not looked up, equal questions are once,
// and long answers are cut to their bound and to the size of a datagram.
func TestRecordsAreBounded(t *testing.T) {
	zone := recordZone
	for range 100 {
		zone += `long.test. 60 IN TXT "` + strings.Repeat("x", 200) + `"` + "\n"
	}
	l, s := recordLab(t, zone, testRules{"**.test:443"})
	for range 5 {
		if m := l.ask("cluster.test.", dns.TypeTXT); len(m.Answer) != 1 {
			t.Fatal(m)
		}
	}
	if s.count() != 1 {
		t.Errorf("asked %q", s.asked)
	}
	if m := l.ask("long.test.", dns.TypeTXT); !m.Truncated || m.Len() > 1232 {
		t.Errorf("%d bytes in a datagram", m.Len())
	}
	q := new(dns.Msg).SetQuestion("long.test.", dns.TypeTXT)
	b, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	var m dns.Msg
	if err := m.Unpack(l.reply(b, nil, l.dns.AnswerStream)); err != nil || len(m.Answer) < 5 || m.Len() > 8000 {
		t.Errorf("%d records in %d bytes over TCP, %v", len(m.Answer), m.Len(), err)
	}
	before, refused := s.count(), 0
	for i := range 180 {
		if m := l.ask("n"+strings.Repeat("x", i%40)+string(rune('a'+i/40))+".test.", dns.TypeTXT); m.Rcode == dns.RcodeServerFailure {
			refused++
		}
	}
	if asked := s.count() - before; asked > 80 || refused < 60 {
		t.Errorf("%d new questions were asked, %d refused", asked, refused)
	}
	// A lookup that fails is a failure for the guest, and is logged with its reason.
	l = newLab(t, testRules{"a.test:443"}, func(c *Config) {
		c.Records = func(context.Context, string, uint16) (*dns.Msg, error) { return nil, errors.New("no route") }
	})
	if m := l.ask("a.test.", dns.TypeTXT); m.Rcode != dns.RcodeServerFailure {
		t.Error(m)
	}
	if e := readAll(t, l.path); len(e) != 1 || !strings.Contains(e[0].Reason, "not answered: look up a.test TXT on the host: no route") {
		t.Errorf("%+v", e)
	}
}

// TestHostRecords: the host's resolvers are asked for the very name, in their order.
func TestHostRecords(t *testing.T) {
	if !ownNamespaces(t) {
		return
	}
	loopbackUp(t)
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		t.Fatal(err)
	}
	resolv := cover(t, "/etc/resolv.conf", "nameserver 127.0.0.52\nnameserver 127.0.0.53\nsearch corp.test\noptions ndots:5\n")
	company := &nameServer{zone: map[string][]string{"mail.test.": {"203.0.113.1"}}}
	defer serveNames(t, "127.0.0.53:53", company).Shutdown()
	for _, name := range []string{"mail.test", "gone.test", "wiki"} {
		if m, err := nameserver.AskHost(t.Context(), name, dns.TypeMX); err != nil || len(m.Answer) != 0 {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
	company.mu.Lock()
	if want := []string{"mail.test.", "gone.test.", "wiki."}; !slices.Equal(company.asked, want) {
		t.Errorf("asked %q, want %q", company.asked, want)
	}
	company.mu.Unlock()
	if err := os.WriteFile(resolv, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := nameserver.AskHost(t.Context(), "mail.test", dns.TypeMX); err == nil {
		t.Error("no resolver, and no error", filepath.Base(resolv))
	}
}
