package nameserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/time/rate"
)

// Records other than addresses (SRV, TXT, MX and others) of names that the rules allow
// are looked up on the host, when the guest asks for them. Such a question leaves the
// host, unlike one for an address. It tells the owner of an allowed name no more than a
// connection to that name would, and the bounds here keep it far narrower than that:
// new questions are few, and answers short.

const (
	// recordBurst questions may be asked at once, and one each recordEvery after that.
	recordBurst, recordEvery = 60, 2 * time.Second
	// maxRecordLookups bounds the questions that wait for the host's resolver.
	maxRecordLookups = 8
	// recordTTL is how long an answer is used again, recordRetry how long a failure is.
	recordTTL, recordRetry = time.Minute, 10 * time.Second
	// maxRecordsKept bounds the answers that are kept.
	maxRecordsKept = 256
	// recordTimeout bounds one lookup, serverTimeout one resolver's answer to it.
	recordTimeout, serverTimeout = 4 * time.Second, 2 * time.Second
	// maxResolvers is how many of the host's resolvers are asked (resolv.conf(5), MAXNS).
	maxResolvers = 3
	// maxRecords and maxRecordBytes bound an answer.
	maxRecords, maxRecordBytes = 32, 4000
	// maxAliases bounds the aliases before the records.
	maxAliases = 8
	// resolvConf names the host's resolvers.
	resolvConf = "/etc/resolv.conf"
)

type recordKey struct {
	name  string
	qtype uint16
}

type recordAnswer struct {
	found Found
	err   error
	until time.Time
}

// Found is an answer about records.
type Found struct {
	List []dns.RR // as they came
	// Aliases are the names, in lower case without a final dot, that the name asked for is an alias of, one by way of the
	// other. The records are those of the last one.
	Aliases []string
}

// AskFunc asks for the records of exactly this name; the answer may hold others, such as
// aliases. It may run concurrently.
type AskFunc func(ctx context.Context, name string, qtype uint16) (*dns.Msg, error)

// Lookup looks records up within the bounds. Safe for concurrent use.
type Lookup struct {
	ctx   context.Context
	ask   AskFunc
	hosts map[string][]netip.Addr // names with a fixed address, about which nobody is asked
	rate  *rate.Limiter
	slots chan struct{}

	mu   sync.Mutex
	kept map[recordKey]recordAnswer
}

// NewLookup returns a Lookup that asks until ctx ends. Nobody is asked about the names in
// hosts.
func NewLookup(ctx context.Context, ask AskFunc, hosts map[string][]netip.Addr) *Lookup {
	return &Lookup{
		ctx: ctx, ask: ask, hosts: hosts, rate: rate.NewLimiter(rate.Every(recordEvery), recordBurst),
		slots: make(chan struct{}, maxRecordLookups), kept: map[recordKey]recordAnswer{},
	}
}

// Why records are not looked up.
var (
	errRecordsPinned = errors.New("--add-host gives the name its address, so that its records are not looked up")
	errRecordsRate   = errors.New("too many different questions for records: one each two seconds is looked up")
)

// Records returns the records of a type that a name has.
func (l *Lookup) Records(name string, qtype uint16) (Found, error) {
	for n, ok := name, true; ok; _, n, ok = strings.Cut(n, ".") {
		if len(l.hosts[n]) > 0 {
			return Found{}, errRecordsPinned
		}
	}
	key := recordKey{name, qtype}
	l.mu.Lock()
	known := l.kept[key]
	l.mu.Unlock()
	if time.Now().Before(known.until) {
		return known.found, known.err
	}
	select {
	case l.slots <- struct{}{}:
		defer func() { <-l.slots }()
	default:
		return Found{}, errRecordsRate
	}
	if !l.rate.Allow() {
		return Found{}, errRecordsRate
	}
	ctx, cancel := context.WithTimeout(l.ctx, recordTimeout)
	defer cancel()
	answer := recordAnswer{until: time.Now().Add(recordTTL)}
	m, err := l.ask(ctx, name, qtype)
	if err != nil {
		answer.err, answer.until = fmt.Errorf("look up %s %s on the host: %w", name, dns.TypeToString[qtype], err), time.Now().Add(recordRetry)
	} else {
		answer.found = recordsOf(m, name, qtype)
	}
	l.keep(key, answer)
	return answer.found, answer.err
}

func (l *Lookup) keep(k recordKey, a recordAnswer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.kept) >= maxRecordsKept {
		clear(l.kept)
	}
	l.kept[k] = a
}

// recordsOf returns the records of a type that a name has by an answer, within the bounds. Those of names that it is no
// alias of are left out.
func recordsOf(m *dns.Msg, name string, qtype uint16) (found Found) {
	owner := dns.Fqdn(name)
	for target := aliasOf(m, owner); target != ""; target = aliasOf(m, owner) {
		if len(found.Aliases) == maxAliases {
			return Found{}
		}
		owner = target
		plain, _ := plainName(owner)
		found.Aliases = append(found.Aliases, plain)
	}
	size := 0
	for _, r := range m.Answer {
		if h := r.Header(); h.Rrtype != qtype || h.Class != dns.ClassINET || !strings.EqualFold(h.Name, owner) {
			continue
		}
		if size += dns.Len(r); len(found.List) == maxRecords || size > maxRecordBytes {
			break
		}
		found.List = append(found.List, r)
	}
	return found
}

// aliasOf returns the name that a name is an alias of by an answer, or "".
func aliasOf(m *dns.Msg, owner string) string {
	for _, r := range m.Answer {
		if c, ok := r.(*dns.CNAME); ok && strings.EqualFold(c.Hdr.Name, owner) {
			return c.Target
		}
	}
	return ""
}

// AskHost asks the host's resolvers, one after the other, for records of exactly this
// name. That there are none is an answer without records.
func AskHost(ctx context.Context, name string, qtype uint16) (*dns.Msg, error) {
	conf, err := dns.ClientConfigFromFile(resolvConf)
	if err != nil {
		return nil, err
	}
	err = errors.New(resolvConf + " names no resolver")
	for _, server := range conf.Servers[:min(len(conf.Servers), maxResolvers)] {
		var m *dns.Msg
		if m, err = AskServer(ctx, name, qtype, net.JoinHostPort(server, conf.Port)); err == nil {
			return m, nil
		}
	}
	return nil, err
}

// AskServer asks one resolver, at HOST:PORT, over TCP if the answer is too long for a datagram.
func AskServer(ctx context.Context, name string, qtype uint16, server string) (*dns.Msg, error) {
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype).SetEdns0(udpSize, false)
	m, _, err := (&dns.Client{Timeout: serverTimeout}).ExchangeContext(ctx, q, server)
	if err == nil && m.Truncated {
		m, _, err = (&dns.Client{Net: "tcp", Timeout: serverTimeout}).ExchangeContext(ctx, q, server)
	}
	switch {
	case err != nil:
		return nil, err
	case m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError:
		return nil, fmt.Errorf("%s answered %s", server, dns.RcodeToString[m.Rcode])
	case len(m.Question) != 1 || !strings.EqualFold(m.Question[0].Name, q.Question[0].Name) || m.Question[0].Qtype != q.Question[0].Qtype:
		return nil, fmt.Errorf("%s answered another question", server)
	}
	return m, nil
}
