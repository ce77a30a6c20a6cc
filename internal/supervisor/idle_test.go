package supervisor

import (
	"os"
	"testing"
	"time"
)

func TestWhatCountsAsUse(t *testing.T) {
	before := usage{at: time.Now(), traffic: 100, work: time.Second}
	later := func(change func(*usage)) usage {
		u := before
		u.at = u.at.Add(10 * time.Second)
		change(&u)
		return u
	}
	for name, c := range map[string]struct {
		now  usage
		busy bool
	}{
		"nothing":                {later(func(*usage) {}), false},
		"an idle kernel":         {later(func(u *usage) { u.work += time.Second }), false},
		"a processor that works": {later(func(u *usage) { u.work += 3 * time.Second }), true},
		"a byte":                 {later(func(u *usage) { u.traffic++ }), true},
		"somebody there":         {later(func(u *usage) { u.attached = true }), true},
	} {
		if got := c.now.busySince(before); got != c.busy {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestProcessorTime(t *testing.T) {
	was, err := processorTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; {
		now, err := processorTime(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if now >= was+3*tick {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("it stays at %v", now)
		}
	}
}
