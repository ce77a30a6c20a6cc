package audit

import (
	"time"

	"golang.org/x/time/rate"
)

// Theory of operation: what a flood cannot do
//
// Each entry is of one kind, and each kind has a budget of lines and of bytes. A
// guest that floods one kind spends only that kind's budget. Entries beyond it are
// counted: those that look alike become one line, with their number and the sum of
// their bytes; when too many differ, the smallest are counted in a single line for
// the kind.
//
// Kinds that decide what the log is worth have files of their own: the connections
// that were let through, what was denied, the DNS queries, the requests on inspected
// connections, and what was signed. A file is rotated by its own size only. Its size and the budgets of its
// kinds give the time for which it holds everything that was written to it, at any rate of
// entries (fullFor).

// kind is a sort of entry.
type kind int

const (
	connections    kind = iota // allowed: their open and their close
	deniedFlows                // TCP and UDP
	deniedPackets              // what the link layer does not let through
	deniedLookups              // DNS queries
	allowedLookups             // DNS queries
	requests                   // that were let through, on inspected connections
	asks                       // rules that the guest asks for
	signatures                 // commits and tags that were signed
	kinds                      // how many there are
)

// Budgets. A kind may write its burst at once, and after it linesPerSecond and the
// bytes a second of its row in budgets.
const (
	// linesAtOnce and linesPerSecond bound the lines of a kind.
	linesAtOnce    = 500
	linesPerSecond = 10
	// countedKeys bounds the different entries of a kind that are counted at a time.
	countedKeys = 64
	// logFlush is how often counted entries are written, as far as the budget allows.
	logFlush = 2 * time.Second
	// maxText bounds a name, reason, rule, method or path in an entry of any kind but
	// connections, in bytes; a suggestion has room for twice as much.
	maxText = 128
)

// allowance is what one kind may write.
type allowance struct {
	file  string // the suffix of its file: see paths
	burst int    // bytes at once
	bytes int    // bytes a second, in the long run
	lines int    // lines at once
	what  string // names the kind in the line that counts the rest
}

var budgets = [kinds]allowance{
	connections:    {"", 2 << 20, 512, 4 * linesAtOnce, "more connections, not logged one by one"},
	deniedFlows:    {fileDenied, 1 << 20, 384, linesAtOnce, "more denied connections, not logged one by one"},
	deniedPackets:  {fileDenied, 128 << 10, 128, linesAtOnce, "more denied packets, not logged one by one"},
	deniedLookups:  {fileLookups, 1 << 20, 384, linesAtOnce, "more denied lookups, not logged one by one"},
	allowedLookups: {fileLookups, 512 << 10, 128, linesAtOnce, "more lookups, not logged one by one"},
	requests:       {fileRequests, 1 << 20, 512, linesAtOnce, "more requests, not logged one by one"},
	asks:           {fileDenied, 64 << 10, 128, linesAtOnce, "more requests for access, not logged one by one"},
	signatures:     {fileSignatures, 512 << 10, 640, 2 * linesAtOnce, "more signatures, not logged one by one"},
}

// Suffixes of the log's files.
const (
	fileDenied   = ".denied"
	fileLookups  = ".lookups"
	fileRequests = ".requests"

	fileSignatures = ".signatures"
)

// suffixes lists the log's files. The first, without a suffix, is also where older
// builds wrote entries of all kinds.
var suffixes = []string{"", fileDenied, fileLookups, fileRequests, fileSignatures}

// fullFor returns how long a file of max bytes holds every line that was written to
// it, whatever the guest does: the full older file alone has max bytes.
func fullFor(suffix string, max int64) time.Duration {
	burst, perSecond := 0, 0
	for _, b := range budgets {
		if b.file == suffix {
			burst += b.burst
			perSecond += b.bytes
		}
	}
	return time.Duration((max-int64(burst))/int64(perSecond)) * time.Second
}

// kindOf returns the kind of an entry.
func kindOf(e *Entry) kind {
	switch lookup := e.Proto == "dns"; {
	case lookup && e.Verdict == Denied:
		return deniedLookups
	case lookup:
		return allowedLookups
	case e.Verdict == Asked:
		return asks
	case e.Verdict != Denied && e.Proto == ProtoSign:
		return signatures
	case e.Verdict != Denied && e.Event == EventRequest:
		return requests
	case e.Verdict != Denied:
		return connections
	case e.Proto == "tcp" || e.Proto == "udp" || e.Proto == ProtoSign:
		return deniedFlows
	}
	return deniedPackets
}

// shorten cuts the texts of an entry that is not of the kind connections. A suggestion is
// left out rather than cut: half a rule is another rule. Requests for a rule are bounded by the gateway.
func shorten(e *Entry) {
	if e.Verdict == Asked {
		return
	}
	e.Name, e.Reason, e.Rule = short(e.Name), short(e.Reason), short(e.Rule)
	e.Method, e.Path = short(e.Method), short(e.Path)
	if len(e.Suggest) > 2*maxText {
		e.Suggest = ""
	}
}

// short returns s with its middle left out if it is longer than maxText. The end of
// a name is the domain, so most of what is kept is from there.
func short(s string) string {
	if len(s) <= maxText {
		return s
	}
	const head = 32
	return s[:head] + "..." + s[len(s)-(maxText-head-3):]
}

// meter is the budget of one kind, and what of it is counted.
type meter struct {
	allowance
	byteRate, lineRate *rate.Limiter
	counted            map[Entry]sum
	rest               sum // of entries that have no place in counted
}

// sum is what is known of entries that look alike.
type sum struct {
	n         int
	sent, got int64
}

func (s *sum) add(o sum) {
	s.n += o.n
	s.sent += o.sent
	s.got += o.got
}

// less orders by what is worth more: bytes that passed, then number.
func (s sum) less(o sum) bool {
	if a, b := s.sent+s.got, o.sent+o.got; a != b {
		return a < b
	}
	return s.n < o.n
}

func newMeter(b allowance) *meter {
	return &meter{
		allowance: b, counted: map[Entry]sum{},
		byteRate: rate.NewLimiter(rate.Limit(b.bytes), b.burst), lineRate: rate.NewLimiter(linesPerSecond, b.lines),
	}
}

// allow takes a line of n bytes out of the budget.
func (m *meter) allow(now time.Time, n int) bool {
	return m.byteRate.TokensAt(now) >= float64(n) && m.lineRate.AllowN(now, 1) && m.byteRate.AllowN(now, n)
}

// room reports whether a line would be written now.
func (m *meter) room(now time.Time) bool {
	return m.lineRate.TokensAt(now) >= 1 && m.byteRate.TokensAt(now) >= maxText
}

// count adds an entry to those that look alike. When too many differ, the one with
// the least traffic goes to the rest: a transfer keeps its name among many small
// ones.
func (m *meter) count(e Entry) {
	one := sum{1, e.Sent, e.Got}
	k := alike(e)
	if s, ok := m.counted[k]; ok || len(m.counted) < countedKeys {
		s.add(one)
		m.counted[k] = s
		return
	}
	least, at := one, Entry{}
	for o, s := range m.counted {
		if s.less(least) {
			least, at = s, o
		}
	}
	m.rest.add(least)
	if least != one {
		delete(m.counted, at)
		m.counted[k] = one
	}
}

// alike returns an entry without what differs from one connection to the next.
func alike(e Entry) Entry {
	return Entry{Verdict: e.Verdict, Event: e.Event, Proto: e.Proto, App: e.App, Name: e.Name, Addr: e.Addr, Port: e.Port, Via: e.Via, Rule: e.Rule, Reason: e.Reason, Suggest: e.Suggest,
		Method: e.Method, Path: e.Path, Status: e.Status, Object: e.Object, Of: e.Of}
}

// largest returns the counted entry with the most traffic.
func (m *meter) largest() (at Entry, most sum, ok bool) {
	for e, s := range m.counted {
		if !ok || most.less(s) {
			at, most, ok = e, s, true
		}
	}
	return at, most, ok
}

// line returns the entry that stands for several that look alike.
func (s sum) line(e Entry, now time.Time) Entry {
	e.Time, e.Count, e.Sent, e.Got = now, s.n, s.sent, s.got
	return e
}

// restLine returns the entry that stands for the rest.
func (m *meter) restLine(k kind, now time.Time) Entry {
	e := Entry{Verdict: Denied, Reason: m.what}
	switch k {
	case connections:
		e.Verdict, e.Event = Allowed, EventClose
	case requests:
		e.Verdict, e.Event = Allowed, EventRequest
	case allowedLookups, signatures:
		e.Verdict = Allowed
	case asks:
		e.Verdict = Asked
	}
	switch k {
	case deniedLookups, allowedLookups:
		e.Proto = "dns"
	case connections, deniedFlows, requests:
		e.Proto = "tcp"
	case deniedPackets:
		e.Proto = "link"
	case signatures:
		e.Proto = ProtoSign
	}
	return m.rest.line(e, now)
}
