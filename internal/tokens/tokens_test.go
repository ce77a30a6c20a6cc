package tokens

import (
	"fmt"
	"sync"
	"testing"
)

// TestLedger sums up by host, within its bounds.
func TestLedger(t *testing.T) {
	var l Ledger
	if l.Totals() != nil {
		t.Error("it is not empty")
	}
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			l.Add("b.test", Usage{Input: 1, CacheRead: 2, CacheWrite: 3, Output: 4}, true)
			l.Add("a.test", Usage{}, false)
			_ = l.Totals()
		})
	}
	all.Wait()
	got := l.Totals()
	if len(got) != 2 || got[0] != (Total{Host: "a.test", Requests: 10, Unreported: 10}) ||
		got[1] != (Total{Host: "b.test", Requests: 10, Usage: Usage{Input: 10, CacheRead: 20, CacheWrite: 30, Output: 40}}) {
		t.Errorf("%+v", got)
	}
	for i := range 100 {
		l.Add(fmt.Sprintf("c%d.test", i), Usage{Output: maxTotal}, true)
		l.Add("b.test", Usage{Output: maxTotal}, true)
	}
	others, list := 0, l.Totals()
	for _, s := range list {
		if s.Output > maxTotal || s.Output < 0 {
			t.Errorf("%+v", s)
		}
		if s.Host == OtherHosts {
			others++
		}
	}
	if len(list) != maxHosts+1 || others != 1 {
		t.Errorf("%d hosts, %d others", len(list), others)
	}
}
