// Package nameserver is the only DNS server that the guest has. A name that the policy
// allows gets a synthetic address out of a table, any other name does not exist. So no
// query for an address, and none about another name, carries a bit past the host; the
// real address is looked up when a connection is dialled. Records of other types, of
// allowed names and of their services, come from the host by way of Resolver.Records,
// which bounds the questions.
//
// Queries are hostile bytes; their framing and parsing are miekg/dns's.
package nameserver

import (
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"bawn.dev/bawn/internal/policy"
)

const (
	// maxQuery is the longest query taken, in bytes. Ours are far shorter.
	maxQuery = 4096
	// udpSize is the payload size that answers announce (RFC 9715), in bytes.
	udpSize = 1232
	// dnsHeader is the length of a DNS header, in bytes (RFC 1035, 4.1.1).
	dnsHeader = 12
	// negativeTTL is how long a guest may remember a refusal, in seconds: a
	// rule that the user adds works at once.
	negativeTTL = 1
)

// Question is a query of one question, as the log shows it.
type Question struct {
	Name string // in lower case without a final dot; it may be no host name
	Type string // "A", "AAAA", ...; empty for a type without a name
	Note string // of an allowed question for no address: what was answered
}

// Resolver answers the guest's queries. Safe for concurrent use; the fields must not
// change.
type Resolver struct {
	Table    *Table
	Resolves func(name string) bool // whether a name gets addresses; may run concurrently
	Info     []netip.Addr           // of policy.InfoName; none: it is a name like any other

	// IsService reports whether a name is that of a service of an allowed name, which has
	// records and no address; nil: none is. It may run concurrently.
	IsService func(name string) bool
	// Records returns the records of a type in recordTypes that an allowed name has; nil:
	// none has any. It may run concurrently.
	Records func(name string, qtype uint16) (Found, error)
}

// Answer returns the reply to one query over UDP, or nil to drop it. seen is called for a
// question about a name that is allowed or denied.
func (r *Resolver) Answer(query []byte, seen func(q Question, allowed bool)) []byte {
	return r.answer(query, 0, seen)
}

// AnswerStream is Answer for a query over TCP, whose reply may be longer.
func (r *Resolver) AnswerStream(query []byte, seen func(q Question, allowed bool)) []byte {
	return r.answer(query, dns.MaxMsgSize, seen)
}

// packetSize returns how long a reply over UDP may be (RFC 6891, section 6.2.3).
func packetSize(opt *dns.OPT) int {
	if opt == nil {
		return dns.MinMsgSize
	}
	return min(max(int(opt.UDPSize()), dns.MinMsgSize), udpSize)
}

// answer makes a reply of at most size bytes; 0: as many as a datagram may have.
func (r *Resolver) answer(query []byte, size int, seen func(q Question, allowed bool)) []byte {
	if len(query) > maxQuery || !isQuery(query) {
		return nil // answering could loop
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
		r.fill(out, in.Question[0], seen)
	}
	if size == 0 {
		size = packetSize(opt)
	}
	out.Truncate(size)
	reply, err := out.Pack()
	if err != nil {
		return bareReply(query, dns.RcodeServerFailure)
	}
	return reply
}

// isQuery reports whether the header is whole and that of a query.
func isQuery(b []byte) bool { return len(b) >= dnsHeader && b[2]&0x80 == 0 }

// Refuse returns the reply REFUSED, made from the header of a query alone; nil for
// what is no query.
func Refuse(query []byte) []byte {
	if !isQuery(query) {
		return nil
	}
	return bareReply(query, dns.RcodeRefused)
}

// fill answers one question of class IN.
func (r *Resolver) fill(out *dns.Msg, q dns.Question, seen func(Question, bool)) {
	name, ok := plainName(q.Name)
	question := Question{Name: name, Type: dns.TypeToString[q.Qtype]}
	if addr, reverse := reverseAddr(name); ok && reverse {
		r.reverse(out, q, addr)
		return
	}
	var addrs []netip.Addr
	switch {
	case ok && name == policy.InfoName && len(r.Info) > 0:
		addrs = r.Info
	case ok && r.Resolves(name) && wantsAddress(q.Qtype):
		v4, v6, err := r.Table.Addresses(name)
		if err != nil {
			out.Rcode = dns.RcodeServerFailure
			question.Note = "not answered: " + err.Error()
			seen(question, true)
			return
		}
		addrs = []netip.Addr{v4, v6}
		seen(question, true)
	case ok && r.allows(name):
		question.Note = r.records(out, q, name)
		seen(question, true)
		return
	default:
		out.Rcode = dns.RcodeNameError
		out.Ns = []dns.RR{soa()}
		seen(question, false)
		return
	}
	out.Answer = records(q, addrs)
	if len(out.Answer) == 0 {
		out.Ns = []dns.RR{soa()}
	}
}

// records returns those of the addresses that a question asks for.
func records(q dns.Question, addrs []netip.Addr) (out []dns.RR) {
	head := dns.RR_Header{Name: q.Name, Class: dns.ClassINET, Ttl: answerTTL}
	for _, a := range addrs {
		switch {
		case a.Is4() && (q.Qtype == dns.TypeA || q.Qtype == dns.TypeANY):
			head.Rrtype = dns.TypeA
			out = append(out, &dns.A{Hdr: head, A: a.AsSlice()})
		case a.Is6() && (q.Qtype == dns.TypeAAAA || q.Qtype == dns.TypeANY):
			head.Rrtype = dns.TypeAAAA
			out = append(out, &dns.AAAA{Hdr: head, AAAA: a.AsSlice()})
		}
	}
	return out
}

// reverse answers PTR for synthetic addresses.
func (r *Resolver) reverse(out *dns.Msg, q dns.Question, a netip.Addr) {
	known := r.Table.Name(a)
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
		Ns:  policy.InfoName + ".", Mbox: "nobody." + policy.InfoName + ".",
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

// plainName returns a name in lower case without its final dot; not ok if it is
// empty or a label has bytes that no host name has (they come escaped).
func plainName(fqdn string) (string, bool) {
	s := strings.ToLower(strings.TrimSuffix(fqdn, "."))
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		default:
			return s, false
		}
	}
	return s, s != ""
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
