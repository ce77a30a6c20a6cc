package process

import "testing"

func TestStatusOfAChildThatIsReapedEarly(t *testing.T) {
	ps := NewTable(nil)
	ps.ended(7, 0) // nobody starts anything: an orphan
	ps.starting = 1
	ps.ended(8, 256)
	if len(ps.early) != 1 || ps.early[8] != 256 {
		t.Errorf("kept %v", ps.early)
	}
	p := &Process{PID: 9, Done: make(chan struct{})}
	ps.running[9] = p
	ps.ended(9, 512)
	<-p.Done
	if p.Status.ExitStatus() != 2 || len(ps.running) != 0 {
		t.Errorf("status %v, %d left", p.Status, len(ps.running))
	}
}

func TestProcStatWithAStrangeName(t *testing.T) {
	if sid, state := statSession("12 (a) b) (c) S 1 2 345 6"); sid != 345 || state != "S" {
		t.Errorf("got %d, %q", sid, state)
	}
	if sid, _ := statSession("garbage"); sid != 0 {
		t.Error(sid)
	}
	if !(Member{ignores: ignored("Name:\tx\nSigIgn:\t0000000000000001\n")}).IgnoresHangup() {
		t.Error("HUP is ignored")
	}
}
