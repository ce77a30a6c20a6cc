package supervisor

import (
	"testing"
	"time"

	"bawn.dev/bawn/internal/wire"
)

// TestChangesOfASlowGuest: a report that is long on its way, from a guest whose clock is ahead, loses no change.
func TestChangesOfASlowGuest(t *testing.T) {
	looked := time.Now()
	for _, test := range []struct{ ahead, way time.Duration }{
		{0, 0}, {0, time.Second}, {250 * time.Millisecond, time.Second}, {time.Minute, 100 * time.Millisecond}, {-time.Minute, time.Second},
	} {
		reported := 40 * time.Millisecond // after the look
		r := report{WatchReply: wire.WatchReply{Since: reported.Milliseconds(), Looked: looked.Add(test.ahead)}, at: looked.Add(reported + test.way)}
		if since := r.since(looked.Add(-time.Hour)); since.After(looked) {
			t.Errorf("%+v: changes count %v late", test, since.Sub(looked))
		}
	}
	if opened := looked.Add(time.Second); !(report{WatchReply: wire.WatchReply{Since: 1, Looked: looked}, at: looked}).since(opened).Equal(opened) {
		t.Error("changes from before the stream count")
	}
}
