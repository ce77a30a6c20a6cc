package nameserver

import (
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/dns"
)

// recordTypes are the types besides addresses that are answered from the host. Not among
// them are HTTPS and SVCB (RFC 9460), which carry addresses and the keys of Encrypted
// Client Hello, CNAME, because bawn resolves an alias itself, and those of DNSSEC.
var recordTypes = []uint16{
	dns.TypeSRV, dns.TypeTXT, dns.TypeMX, dns.TypeCAA, dns.TypeNS, dns.TypeSOA,
	dns.TypeNAPTR, dns.TypeTLSA, dns.TypeSSHFP, dns.TypeURI,
}

// wantsAddress reports whether a question is for an address.
func wantsAddress(qtype uint16) bool {
	return qtype == dns.TypeA || qtype == dns.TypeAAAA || qtype == dns.TypeANY
}

// records answers a question about an allowed name that is not for an address of it. It
// returns what the log says about the answer.
func (r *Resolver) records(out *dns.Msg, q dns.Question, name string) (note string) {
	var found Found
	var err error
	switch {
	case wantsAddress(q.Qtype):
		note = "answered empty: the name of a service has no address"
	case !slices.Contains(recordTypes, q.Qtype) || r.Records == nil:
		note = "answered empty: records of this type are not looked up"
	default:
		found, err = r.Records(name, q.Qtype)
		note = counted(len(found.List))
		if alias := r.forbidden(found.Aliases); alias != "" {
			found.List, note = nil, "answered empty: it is an alias of "+alias+", which no rule allows"
		}
	}
	switch {
	case errors.Is(err, errRecordsPinned): // by the user's choice, not by a failure
		note = "answered empty: " + err.Error()
	case err != nil:
		out.Rcode = dns.RcodeServerFailure
		return "not answered: " + err.Error()
	}
	for _, rr := range found.List {
		rr = dns.Copy(rr)
		h := rr.Header()
		h.Name, h.Ttl = q.Name, min(h.Ttl, answerTTL) // as the name that was asked for, also behind an alias
		out.Answer = append(out.Answer, rr)
	}
	if len(out.Answer) == 0 {
		out.Ns = []dns.RR{soa()}
	}
	return note
}

// forbidden returns the first of the names that the policy in force does not allow, or "". Whoever owns an allowed name can
// make it an alias of any other one, also of one that only the host's resolver knows.
func (r *Resolver) forbidden(names []string) string {
	for _, n := range names {
		if plain, ok := plainName(n); !ok || !r.allows(plain) {
			return n
		}
	}
	return ""
}

// allows reports whether the policy in force allows a name, or one of which it names a service.
func (r *Resolver) allows(name string) bool {
	return r.Resolves(name) || r.IsService != nil && r.IsService(name)
}

// counted says how many records were answered.
func counted(n int) string {
	switch n {
	case 0:
		return "answered empty: the name has no such record"
	case 1:
		return "1 record"
	}
	return fmt.Sprintf("%d records", n)
}
