package egress

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Which process began a flow only the guest can tell. Its word is a hint for the
// person who reads the log and nothing else: no decision sees it or waits for
// it. The question goes out when the flow arrives; what is written about the
// flow stands in a queue, in order, until the answer is here or whoTime is over.

const (
	// whoTime is how long a line of the log waits for the name.
	whoTime = 300 * time.Millisecond
	// maxWho bounds the questions without an answer. Beyond, nobody asks: a
	// guest that never answers is asked so many times and no more.
	maxWho = 64
	// maxWhoName bounds a name, in bytes.
	maxWhoName = 64
	// journalQueue bounds the lines that wait. Beyond, they do not.
	journalQueue = 1024
)

// ProcessFunc names the process in the guest that talks from src to dst, or "".
// It may return whatever the guest says, and may take its time.
type ProcessFunc func(ctx context.Context, proto string, src, dst netip.AddrPort) string

// who is the answer to come. nil is none.
type who struct {
	done chan struct{}
	name string // once done is closed
}

// whose asks, if there is someone to ask, a line to put the answer in, and not
// too much to answer already.
func (g *Gateway) whose(proto string, src, dst netip.AddrPort) *who {
	if g.cfg.Process == nil || !g.cfg.Log.room() {
		return nil
	}
	select {
	case g.asked <- struct{}{}:
	default:
		return nil
	}
	w := &who{done: make(chan struct{})}
	go func() {
		w.name = processName(g.cfg.Process(g.ctx, proto, src, dst))
		close(w.done)
		<-g.asked
	}()
	return w
}

// wait gives the name, or "" when it is not here in time.
func (w *who) wait(until time.Time, hurry <-chan struct{}) string {
	if w == nil {
		return ""
	}
	late := time.NewTimer(time.Until(until))
	defer late.Stop()
	select {
	case <-w.done:
	case <-late.C:
	case <-hurry:
	}
	return w.known()
}

// known is the name if it is here already.
func (w *who) known() string {
	if w == nil {
		return ""
	}
	select {
	case <-w.done:
		return w.name
	default:
		return ""
	}
}

// processName makes the guest's word safe: short, and of printable ASCII without
// spaces, so that it cannot look like the next column.
func processName(s string) string {
	if len(s) > maxWhoName {
		s = s[:maxWhoName]
	}
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7f {
			return '?'
		}
		return r
	}, s)
}

// journal hands entries to the log in the order of their times, each when its
// process is known. A crash loses what waits: whoTime's worth.
type journal struct {
	log   *Log
	lines chan line
	hurry chan struct{} // closed: nobody waits any more
	done  chan struct{}
	time  time.Duration // whoTime; tests have more

	mu     sync.RWMutex
	closed bool
}

type line struct {
	e       Entry
	who     *who
	settled chan struct{} // no entry: closed when all before are written
}

func newJournal(log *Log) *journal {
	j := &journal{log: log, lines: make(chan line, journalQueue), hurry: make(chan struct{}), done: make(chan struct{}), time: whoTime}
	go func() {
		defer close(j.done)
		for l := range j.lines {
			if l.settled != nil {
				close(l.settled)
				continue
			}
			l.e.Process = l.who.wait(l.e.Time.Add(j.time), j.hurry)
			j.log.Write(l.e)
		}
	}()
	return j
}

// write never waits.
func (j *journal) write(e Entry, w *who) {
	e.Time = time.Now()
	j.mu.RLock()
	defer j.mu.RUnlock()
	if !j.closed {
		select {
		case j.lines <- line{e: e, who: w}:
			return
		default: // a flood
		}
	}
	e.Process = w.known()
	j.log.Write(e)
}

// settle returns when what waits now is written.
func (j *journal) settle(ctx context.Context) {
	if settled := j.mark(ctx); settled != nil {
		select { // without the lock: nobody shall wait for who reads the log
		case <-settled:
		case <-ctx.Done():
		}
	}
}

// mark puts a line without an entry behind those that wait; nil if there is none to
// wait for.
func (j *journal) mark(ctx context.Context) <-chan struct{} {
	j.mu.RLock()
	defer j.mu.RUnlock()
	if j.closed {
		return nil
	}
	settled := make(chan struct{})
	select {
	case j.lines <- line{settled: settled}:
		return settled
	case <-ctx.Done():
		return nil
	}
}

// close writes what waits.
func (j *journal) close() {
	j.mu.Lock()
	if !j.closed {
		j.closed = true
		close(j.hurry)
		close(j.lines)
	}
	j.mu.Unlock()
	<-j.done
}
