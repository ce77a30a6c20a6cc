package control_test

import (
	"testing"
	"time"

	"bawn.dev/bawn/internal/control"
)

// TestAStatusWaitsForSenders: a status waits for a lock whose holder sends an event (the network
// log reports a denial under its lock, and the status counts the log's lines). A guest that
// floods the log must not stop the supervisor so.
func TestAStatusWaitsForSenders(t *testing.T) {
	var b control.Broadcaster
	for _, c := range []struct {
		events int
		lagged bool
		end    bool
	}{{0, false, false}, {3, false, false}, {1000, true, false}, {2, false, true}} {
		s := b.Subscribe(func() control.Status {
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				for range c.events {
					b.Send(control.Event{Kind: control.KindDenial})
				}
				if c.end {
					b.Close()
				}
			}()
			select {
			case <-sent:
			case <-time.After(20 * time.Second):
				t.Fatal("an event cannot be sent while a status is made")
			}
			return control.Status{Name: "a"}
		})
		if first := <-s.Events(); first.Kind != control.KindStatus || first.Status.Name != "a" {
			t.Errorf("%d events: the first is %+v", c.events, first)
		}
		if !c.lagged && !c.end {
			b.Send(control.Event{Kind: control.KindPhase})
			s.Close()
		}
		var kinds []control.Kind
		for e := range s.Events() {
			kinds = append(kinds, e.Kind)
		}
		want := c.events + 1
		if c.end {
			want = c.events
		}
		if s.Lagged() != c.lagged || !c.lagged && len(kinds) != want || c.lagged && len(kinds) > 256 {
			t.Errorf("%d events: got %d, lagged %v", c.events, len(kinds), s.Lagged())
		}
	}
}
