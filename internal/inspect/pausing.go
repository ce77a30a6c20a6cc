package inspect

import (
	"io"
	"time"
)

// readSize is the read buffer of an answer, in bytes.
const readSize = 32 << 10

// pausing reads from src, and returns also when nothing comes for a while. It is used by one goroutine.
type pausing struct {
	src     io.Reader
	buf     []byte
	reading chan readResult // of a read that was not waited for; nil: there is none
}

type readResult struct {
	n   int
	err error
}

// next returns the next bytes, which are valid until the next call. late: none came within patience;
// 0 waits for as long as it takes.
func (p *pausing) next(patience time.Duration) (b []byte, late bool, err error) {
	if p.buf == nil {
		p.buf = make([]byte, readSize)
	}
	if patience == 0 && p.reading == nil {
		n, err := p.src.Read(p.buf)
		return p.buf[:n], false, err
	}
	if p.reading == nil {
		reading := make(chan readResult, 1)
		p.reading = reading
		go func() {
			n, err := p.src.Read(p.buf)
			reading <- readResult{n, err}
		}()
	}
	var over <-chan time.Time
	if patience > 0 {
		t := time.NewTimer(patience)
		defer t.Stop()
		over = t.C
	}
	select {
	case r := <-p.reading:
		p.reading = nil
		return p.buf[:r.n], false, r.err
	case <-over:
		return nil, true, nil
	}
}

// wait returns when no read of src is under way. What the last one read is lost.
func (p *pausing) wait() {
	if p.reading != nil {
		<-p.reading
		p.reading = nil
	}
}
