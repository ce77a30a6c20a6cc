package egress

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"time"

	"bawn.dev/bawn/internal/egress/audit"
)

// Attribution: which process in the guest began a flow, only the guest can tell. Its
// answer is a hint for the user who reads the log and nothing else: no decision
// sees it or waits for it. The question is asked when the flow arrives. Lines about
// the flow go through the pendingLog, a queue in the order of time, where each waits
// until the answer is here or hintTime is over.

const (
	// hintTime is how long a line of the log waits for the name of its process.
	hintTime = 300 * time.Millisecond
	// maxHints bounds the questions without an answer. Beyond, none is asked: a
	// guest that never answers is asked so many times and no more.
	maxHints = 64
	// maxProcessName bounds a name, in bytes.
	maxProcessName = 64
	// pendingQueue bounds the lines that wait. Beyond, they do not.
	pendingQueue = 1024
)

// ProcessFunc returns the name of the process in the guest that sends from src to
// dst, or "". It may return whatever the guest answers, and may take its time; it
// returns when ctx ends. It may run concurrently.
type ProcessFunc func(ctx context.Context, proto string, src, dst netip.AddrPort) string

// processHint is the name of a process, once the guest has told it. nil is a hint
// that never comes.
type processHint struct {
	done chan struct{}
	name string // once done is closed
}

// attribute asks which process began a flow; nil without Config.Process, when the
// log has no line of its own for the flow, and while maxHints questions are
// unanswered.
func (g *Gateway) attribute(proto string, src, dst netip.AddrPort) *processHint {
	if g.cfg.Process == nil || !g.cfg.Log.Room() {
		return nil
	}
	select {
	case g.asked <- struct{}{}:
	default:
		return nil
	}
	if !g.enter() {
		<-g.asked
		return nil
	}
	h := &processHint{done: make(chan struct{})}
	go func() {
		defer g.wg.Done()
		h.name = processName(g.cfg.Process(g.ctx, proto, src, dst))
		close(h.done)
		<-g.asked
	}()
	return h
}

// wait returns the name, or "" when it is not here at the time until or when hurry
// is closed.
func (h *processHint) wait(until time.Time, hurry <-chan struct{}) string {
	if h == nil {
		return ""
	}
	late := time.NewTimer(time.Until(until))
	defer late.Stop()
	select {
	case <-h.done:
	case <-late.C:
	case <-hurry:
	}
	return h.known()
}

// known returns the name if it is here already.
func (h *processHint) known() string {
	if h == nil {
		return ""
	}
	select {
	case <-h.done:
		return h.name
	default:
		return ""
	}
}

// processName makes the guest's answer safe: short, and of printable ASCII without
// spaces, so that it cannot look like the next column.
func processName(s string) string {
	if len(s) > maxProcessName {
		s = s[:maxProcessName]
	}
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7f {
			return '?'
		}
		return r
	}, s)
}

// pendingLog hands entries to the log in the order of their times, each when its
// process is known. A crash loses the entries that wait: those of hintTime. Safe for
// concurrent use.
type pendingLog struct {
	log   *audit.Log
	lines chan pendingLine
	hurry chan struct{} // closed: no line waits any more
	done  chan struct{} // closed: all lines are written
	time  time.Duration // hintTime; tests have more

	mu     sync.RWMutex
	closed bool
}

// pendingLine is an entry that waits for its hint, or a mark in the queue.
type pendingLine struct {
	e       audit.Entry
	hint    *processHint
	settled chan struct{} // of a mark: closed when all lines before are written
}

// newPendingLog starts a pendingLog, which does not own the log.
func newPendingLog(log *audit.Log) *pendingLog {
	p := &pendingLog{
		log: log, lines: make(chan pendingLine, pendingQueue),
		hurry: make(chan struct{}), done: make(chan struct{}), time: hintTime,
	}
	go p.run()
	return p
}

func (p *pendingLog) run() {
	defer close(p.done)
	for l := range p.lines {
		if l.settled != nil {
			close(l.settled)
			continue
		}
		l.e.Process = l.hint.wait(l.e.Time.Add(p.time), p.hurry)
		p.log.Write(l.e)
	}
}

// write adds an entry with the time of now. It never waits.
func (p *pendingLog) write(e audit.Entry, h *processHint) {
	e.Time = time.Now()
	p.mu.RLock()
	defer p.mu.RUnlock()
	if !p.closed {
		select {
		case p.lines <- pendingLine{e: e, hint: h}:
			return
		default: // a flood
		}
	}
	e.Process = h.known()
	p.log.Write(e)
}

// settle returns when the entries that wait now are written, or ctx ends.
func (p *pendingLog) settle(ctx context.Context) {
	if settled := p.mark(ctx); settled != nil {
		select { // without the lock: a reader of the log must not hold up a flow
		case <-settled:
		case <-ctx.Done():
		}
	}
}

// mark puts a mark behind the lines that wait and returns its channel; nil if there
// is nothing to wait for.
func (p *pendingLog) mark(ctx context.Context) <-chan struct{} {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.closed {
		return nil
	}
	settled := make(chan struct{})
	select {
	case p.lines <- pendingLine{settled: settled}:
		return settled
	case <-ctx.Done():
		return nil
	}
}

// close writes the entries that wait. Later ones are written at once.
func (p *pendingLog) close() {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		close(p.hurry)
		close(p.lines)
	}
	p.mu.Unlock()
	<-p.done
}
