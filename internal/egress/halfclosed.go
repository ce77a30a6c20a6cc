package egress

import (
	"fmt"
	"time"
)

// A client that ended its half may still wait for the answer, for as long as it takes;
// or it is gone, and a server that ignores the end would keep the flow for good. The
// guest's side tells by a reset that it is gone (netstack probes for it). As a last
// bound, a flow whose client has ended and on which nothing passes is cut.

// halfClosedTime is how long a flow may be idle after its client ended.
const halfClosedTime = 30 * time.Minute

// resetter is a connection that tells when its peer reset it or is gone, also while
// nobody reads: netstack.Conn.
type resetter interface{ OnReset(f func()) }

// reset ends a flow whose guest is gone.
func (f *flow) reset() {
	f.mu.Lock()
	f.gone = true
	f.mu.Unlock()
	f.cut("")
}

// halfClosed notes that the client has ended.
func (f *flow) halfClosed() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.idle == nil {
		f.watchIdle()
	}
}

// watchIdle looks again after halfClosedTime. f.mu is held.
func (f *flow) watchIdle() {
	seen := f.moved()
	f.idle = time.AfterFunc(f.g.halfClosedTime, func() { f.checkIdle(seen) })
}

// moved returns how many bytes have passed.
func (f *flow) moved() int64 { return f.sent.Load() + f.got.Load() }

// checkIdle cuts the flow if nothing has passed since seen.
func (f *flow) checkIdle(seen int64) {
	if f.moved() == seen {
		f.cut(fmt.Sprintf("the client has ended, and nothing passed for %v", f.g.halfClosedTime))
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ctx.Err() == nil {
		f.watchIdle()
	}
}
