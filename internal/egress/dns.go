package egress

import (
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"bawn.dev/bawn/internal/policy"
)

// bawn is the only resolver the guest has, and it never asks anyone: an allowed
// name gets a synthetic address out of a table, any other name does not exist.
// So no query, whatever its labels or type, carries a bit past the host. The
// real address is looked up when bawn dials (dial.go).

const (
	// maxQuery is the longest query taken, in bytes. Ours are far shorter.
	maxQuery = 4096
	// udpSize is the payload size that answers announce (RFC 9715), in bytes.
	udpSize = 1232
	// dnsHeader is the length of a DNS header, in bytes (RFC 1035, 4.1.1).
	dnsHeader = 12
	// negativeTTL is how long a guest may remember a refusal, in seconds: a
	// rule that the person adds works at once.
	negativeTTL = 1
)

// Names that bawn answers for itself.
const (
	InfoName = policy.InfoName
	HostName = policy.HostName
)

// resolver answers the guest's queries. Safe for concurrent use.
type resolver struct {
	names    *names
	resolves func(name string) bool
	info     []netip.Addr                                    // of InfoName; none: it is a name like any other
	seen     func(q dns.Question, name string, allowed bool) // each query of one question
}

// answer gives the reply to one query, or nil to drop it.
func (r *resolver) answer(query []byte) []byte {
	if len(query) < dnsHeader || len(query) > maxQuery || query[2]&0x80 != 0 {
		return nil // not a query: answering could loop
	}
	var in dns.Msg
	if err := in.Unpack(query); err != nil {
		return bareReply(query, dns.RcodeFormatError)
	}
	out := new(dns.Msg)
	out.SetReply(&in)
	out.RecursionAvailable = true
	out.Compress = true
	opt := in.IsEdns0()
	if opt != nil {
		out.SetEdns0(udpSize, false)
	}
	switch {
	case in.Opcode != dns.OpcodeQuery:
		return bareReply(query, dns.RcodeNotImplemented)
	case len(in.Question) != 1 || len(in.Answer) != 0:
		return bareReply(query, dns.RcodeFormatError)
	case opt != nil && opt.Version() != 0:
		out.SetRcode(&in, dns.RcodeBadVers)
	case in.Question[0].Qclass != dns.ClassINET && in.Question[0].Qclass != dns.ClassANY:
		out.Rcode = dns.RcodeRefused
	default:
		r.fill(out, in.Question[0])
	}
	reply, err := out.Pack()
	if err != nil {
		return bareReply(query, dns.RcodeServerFailure)
	}
	return reply
}

// fill answers one question of class IN.
func (r *resolver) fill(out *dns.Msg, q dns.Question) {
	name, ok := plainName(q.Name)
	if !ok {
		r.deny(out, q, strings.ToLower(strings.TrimSuffix(q.Name, ".")))
		return
	}
	if addr, ok := reverseAddr(name); ok {
		r.reverse(out, q, addr)
		return
	}
	var v4, v6 []netip.Addr
	switch {
	case name == InfoName && len(r.info) > 0:
		for _, a := range r.info {
			if a.Is4() {
				v4 = append(v4, a)
			} else {
				v6 = append(v6, a)
			}
		}
	case r.resolves(name):
		a4, a6, err := r.names.addresses(name)
		if err != nil {
			out.Rcode = dns.RcodeServerFailure
			return
		}
		v4, v6 = append(v4, a4), append(v6, a6)
		r.seen(q, name, true)
	default:
		r.deny(out, q, name)
		return
	}
	head := dns.RR_Header{Name: q.Name, Class: dns.ClassINET, Ttl: answerTTL}
	if q.Qtype == dns.TypeA || q.Qtype == dns.TypeANY {
		for _, a := range v4 {
			if head.Rrtype = dns.TypeA; a.IsValid() {
				out.Answer = append(out.Answer, &dns.A{Hdr: head, A: a.AsSlice()})
			}
		}
	}
	if q.Qtype == dns.TypeAAAA || q.Qtype == dns.TypeANY {
		for _, a := range v6 {
			if head.Rrtype = dns.TypeAAAA; a.IsValid() {
				out.Answer = append(out.Answer, &dns.AAAA{Hdr: head, AAAA: a.AsSlice()})
			}
		}
	}
	// Any other type has no data: no HTTPS or SVCB record (they carry ECH keys
	// and other addresses), no TXT, no MX.
	if len(out.Answer) == 0 {
		out.Ns = []dns.RR{soa()}
	}
}

func (r *resolver) deny(out *dns.Msg, q dns.Question, name string) {
	out.Rcode = dns.RcodeNameError
	out.Ns = []dns.RR{soa()}
	r.seen(q, name, false)
}

// reverse answers PTR for synthetic addresses.
func (r *resolver) reverse(out *dns.Msg, q dns.Question, a netip.Addr) {
	known := r.names.name(a)
	if known == "" {
		out.Rcode = dns.RcodeNameError
		out.Ns = []dns.RR{soa()}
		return // not logged: many programs look up every address they see
	}
	if q.Qtype == dns.TypePTR || q.Qtype == dns.TypeANY {
		head := dns.RR_Header{Name: q.Name, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: answerTTL}
		out.Answer = []dns.RR{&dns.PTR{Hdr: head, Ptr: dns.Fqdn(known)}}
		return
	}
	out.Ns = []dns.RR{soa()}
}

// soa goes with answers that have no data, so that clients forget them soon
// (RFC 2308).
func soa() dns.RR {
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: negativeTTL},
		Ns:  InfoName + ".", Mbox: "nobody." + InfoName + ".",
		Serial: 1, Refresh: 1, Retry: 1, Expire: 1, Minttl: negativeTTL,
	}
}

// bareReply is a header alone, made without reading further.
func bareReply(query []byte, rcode byte) []byte {
	b := make([]byte, dnsHeader)
	copy(b, query[:4])
	b[2] = b[2]&0x79 | 0x80 // QR; opcode and RD as asked
	b[3] = 0x80 | rcode&0x0f
	return b
}

// plainName gives a host name in lower case without its final dot; not ok if a
// label has bytes that no host name has (they come escaped).
func plainName(fqdn string) (string, bool) {
	s := strings.ToLower(strings.TrimSuffix(fqdn, "."))
	if s == "" {
		return "", false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		default:
			return s, false
		}
	}
	return s, true
}

// reverseAddr reads a name below in-addr.arpa or ip6.arpa.
func reverseAddr(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		l := strings.Split(rest, ".")
		if len(l) != 4 {
			return netip.Addr{}, true
		}
		a, _ := netip.ParseAddr(l[3] + "." + l[2] + "." + l[1] + "." + l[0])
		return a, true
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok {
		return netip.Addr{}, false
	}
	l := strings.Split(rest, ".")
	if len(l) != 32 {
		return netip.Addr{}, true
	}
	var b strings.Builder
	for i := 31; i >= 0; i-- {
		if len(l[i]) != 1 {
			return netip.Addr{}, true
		}
		b.WriteString(l[i])
		if i%4 == 0 && i > 0 {
			b.WriteByte(':')
		}
	}
	a, _ := netip.ParseAddr(b.String())
	return a, true
}
