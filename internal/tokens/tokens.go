// Package tokens reads, from the answers of the APIs of language models, how many tokens a server
// says that a request took, and sums these numbers up by host.
//
// Theory of operation. Find recognises an API by the path of a request (apis.go), on whatever host,
// since agents also use gateways and servers of their own. A Reader takes the answer's bytes as
// they pass, as JSON or as server-sent events (events.go), and keeps nothing of them but the numbers
// at the API's known paths (scanner.go): its memory does not depend on the answer, and what is not
// as expected is skipped. At the end of the answer the numbers are added to a Ledger.
//
// In a stream the numbers are cumulative, and some servers repeat them in each event, or repeat
// them as 0 at the end. So of each number the largest counts, not the sum. APIs differ in whether the
// cached part of a prompt is within its number or beside it (Field.Within); Usage has each token once.
//
// A guest can send any request, but the numbers are those of the server: they are worth as much as
// the server is trusted, and are no bill.
package tokens

import (
	"cmp"
	"slices"
	"sync"
)

const (
	// maxTokens bounds each number of an answer. A larger one is ignored.
	maxTokens = 1 << 30
	// maxTotal bounds the sums: the largest integer that every reader of JSON has exactly (RFC
	// 8259, section 6).
	maxTotal = 1<<53 - 1
	// maxHosts bounds the hosts of a Ledger. Others are counted together as OtherHosts.
	maxHosts = 64
)

// OtherHosts is the name under which a Ledger counts the hosts for which it has no room.
const OtherHosts = "other hosts"

// Usage is the tokens of one request, as the server says; each is counted once.
type Usage struct {
	Input      int64 `json:"input"`      // of the prompt, that no cache was used for
	CacheRead  int64 `json:"cacheRead"`  // of the prompt, read from the server's cache
	CacheWrite int64 `json:"cacheWrite"` // of the prompt, written to the server's cache
	Output     int64 `json:"output"`     // generated, reasoning included
}

// Total is the tokens of all requests to one host since the start.
type Total struct {
	Host     string `json:"host"`     // with :PORT unless that is 443
	Requests int64  `json:"requests"` // that were answered with success
	// Unreported are those of Requests whose answers had no numbers, or could not be read.
	Unreported int64 `json:"unreported,omitempty"`
	Usage
}

// Ledger sums up the tokens of requests by host. The zero value is empty. Safe for concurrent use.
type Ledger struct {
	mu    sync.Mutex
	hosts []Total // in the order of their names
}

// Add adds one request. reported is false if its answer had no numbers.
func (l *Ledger) Add(host string, u Usage, reported bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.total(host)
	t.Requests = plus(t.Requests, 1)
	if !reported {
		t.Unreported = plus(t.Unreported, 1)
	}
	t.Input, t.Output = plus(t.Input, u.Input), plus(t.Output, u.Output)
	t.CacheRead, t.CacheWrite = plus(t.CacheRead, u.CacheRead), plus(t.CacheWrite, u.CacheWrite)
}

// total returns the place of a host.
func (l *Ledger) total(host string) *Total {
	find := func(name string) (int, bool) {
		return slices.BinarySearchFunc(l.hosts, name, func(t Total, name string) int { return cmp.Compare(t.Host, name) })
	}
	at, ok := find(host)
	if !ok && len(l.hosts) >= maxHosts {
		host = OtherHosts
		at, ok = find(host)
	}
	if !ok {
		l.hosts = slices.Insert(l.hosts, at, Total{Host: host})
	}
	return &l.hosts[at]
}

// Totals returns the sums in the order of the hosts' names.
func (l *Ledger) Totals() []Total {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.hosts)
}

// plus adds two numbers that are not negative, up to maxTotal.
func plus(a, b int64) int64 { return min(a+b, maxTotal) }
