package watch

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestAnnouncedWatches: the agent looks soon after a watch is announced and once more, then seldom; and not
// more often than lookPause says while more are announced.
func TestAnnouncedWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		announced := make(chan time.Time, 1)
		s := &server{scanner: newScanner(t.TempDir(), nil), marks: &marks{}, announced: announced, soon: make(chan struct{}, 1), closed: make(chan struct{})}
		waits := func(what string, want time.Duration) {
			t.Helper()
			start := time.Now()
			if more := s.wait(0); !more || time.Since(start) != want {
				t.Errorf("%s: %v after %s, want %s", what, more, time.Since(start), want)
			}
		}
		waits("nothing happens", lookAtAll)
		at := time.Now()
		announced <- at
		waits("a watch", lookSoon)
		if s.marked != [2]time.Time{at, {}} {
			t.Errorf("%v", s.marked)
		}
		if pause := s.wholePause(0); pause != wholeOften {
			t.Errorf("%s", pause)
		}
		announced <- time.Now()
		waits("another one at once", lookOften)
		waits("nothing more", lookOften)
		if !s.marked[0].IsZero() || s.marked[1].IsZero() || s.wholePause(0) != lookOften {
			t.Errorf("the last look is not one at all descriptors: %v", s.marked)
		}
		waits("nothing more", lookAtAll)
		s.soon <- struct{}{}
		waits("a directory that the host made", lookSoon)
		close(announced)
		waits("the announcements end", 0)
		if s.announced != nil {
			t.Error("they are still waited for")
		}
		close(s.closed)
		if s.wait(0) {
			t.Error("the stream has ended")
		}
	})
}

// TestSinceWhenItWasWatched: not before it was announced, nor before it was looked for in vain.
func TestSinceWhenItWasWatched(t *testing.T) {
	now := time.Now()
	at := func(second int) time.Time {
		if second == 0 {
			return time.Time{}
		}
		return now.Add(time.Duration(second) * time.Second)
	}
	for _, test := range []struct{ looked, mark, before, want int }{
		{1, 0, 0, 1}, {1, 5, 0, 5}, {1, 5, 3, 3}, {1, 0, 3, 3}, {4, 5, 3, 4}, {6, 5, 0, 6},
	} {
		s := &server{scanner: &scanner{since: at(test.looked)}, marked: [2]time.Time{at(test.mark), at(test.before)}}
		if got := s.since(); !got.Equal(at(test.want)) {
			t.Errorf("%+v: %s", test, got.Sub(now))
		}
	}
}

// TestFirstAnnouncement: who was busy hears of the first watch since.
func TestFirstAnnouncement(t *testing.T) {
	m := &marks{out: make(chan time.Time, 1)}
	now := time.Now()
	for _, at := range []time.Time{now.Add(time.Second), now, now.Add(2 * time.Second)} {
		m.announce(at)
	}
	if at := <-m.listen(); !at.Equal(now) {
		t.Error(at.Sub(now))
	}
	if (&marks{}).listen() != nil {
		t.Error("announced without a probe")
	}
}
