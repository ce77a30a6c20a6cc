// Package budget reports how much of each limit of a sandbox is in use.
//
// A package that bounds what a guest can make it keep has its own counter and its own
// limit, which hold whether or not anybody asks; it adds them to the sandbox's
// Account, which a person reads with `bawn inspect`. docs/limits.md lists the limits.
package budget

import (
	"slices"
	"strings"
	"sync"
)

// Use is how much of one limit is in use.
type Use struct {
	Kind  string `json:"kind"`
	Used  int64  `json:"used"`
	Limit int64  `json:"limit"` // in the same unit: a number, or bytes where Kind says so
}

// Account lists the limits of one sandbox. The zero value is empty. Safe for
// concurrent use.
type Account struct {
	mu   sync.Mutex
	list []entry
}

type entry struct {
	kind  string
	limit int64
	used  func() int64
}

// Add adds a limit. used returns what is in use now; it may be called at any time, by
// several goroutines at once.
func (a *Account) Add(kind string, limit int64, used func() int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.list = append(a.list, entry{kind, limit, used})
}

// List returns the present use of each limit, in the order of their kinds.
func (a *Account) List() []Use {
	a.mu.Lock()
	list := slices.Clone(a.list)
	a.mu.Unlock()
	out := make([]Use, 0, len(list))
	for _, e := range list {
		out = append(out, Use{Kind: e.kind, Used: e.used(), Limit: e.limit})
	}
	slices.SortFunc(out, func(x, y Use) int { return strings.Compare(x.Kind, y.Kind) })
	return out
}
