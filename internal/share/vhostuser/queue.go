package vhostuser

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// haltLimit is how long halt waits for requests that are being answered.
const haltLimit = 2 * time.Second

// queue is one virtqueue. Only the connection's goroutine uses its fields, except those
// below mu; a run has copies of what it needs.
type queue struct {
	index   int
	backend *backend

	size    uint32
	base    uint16 // index in the available ring of the next request
	address address
	enabled bool
	kick    *os.File
	resumed bool // base is unknown: the used ring has it
	run     *run

	mu   sync.Mutex
	call *os.File
	live *run         // the run that takes completions, nil while the queue is halted
	late []completion // those that came while it was halted
}

// completion is a request that has been answered: the number of its first descriptor,
// and of the bytes written. It belongs to the ring at address.
type completion struct {
	address address
	head    uint16
	n       int
}

// run is the working time of a queue, from its start to its halt.
type run struct {
	queue   *queue
	ring    *ring
	kick    *os.File
	address address
	done    chan struct{}
	stop    atomic.Bool   // take no more requests
	stopped chan struct{} // closed with stop

	turns   uint64        // requests answered by the queue's goroutine itself
	turn    atomic.Uint64 // the one under way, 0 if none is
	overdue *time.Timer   // takes the queue over from that goroutine

	mu      sync.Mutex // guards the ring's used side and over
	over    bool
	pending sync.WaitGroup // requests that may block
}

func (q *queue) setKick(f *os.File) {
	if q.kick != nil {
		q.kick.Close()
	}
	q.kick = f
}

func (q *queue) setCall(f *os.File) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.call != nil {
		q.call.Close()
	}
	q.call = f
}

// tryStart starts the queue if everything that it needs is known.
func (q *queue) tryStart() {
	if q.run != nil || !q.enabled || q.kick == nil || q.size == 0 || q.backend.memory == nil {
		return
	}
	if q.backend.device.runs.Add(1) > maxRuns {
		q.backend.device.runs.Add(-1)
		q.backend.fail(errors.New("queues were halted too often while requests were being answered"))
		return
	}
	r, err := newRing(q.backend.memory, q.address, q.size, q.base, q.backend.features&featureEventIdx != 0)
	if err != nil {
		q.backend.device.runs.Add(-1)
		q.backend.fail(err)
		return
	}
	q.backend.memory.acquire()
	q.run = &run{queue: q, ring: r, kick: q.kick, address: q.address, done: make(chan struct{}), stopped: make(chan struct{})}
	q.run.overdue = time.AfterFunc(time.Hour, q.run.takeOver)
	q.run.overdue.Stop()
	_ = q.kick.SetReadDeadline(time.Time{})
	if q.resumed {
		q.resumed = false
		r.setLastAvail(r.lastUsed)
		q.notifyGuest() // a notification may have been lost; one too many does no harm
	}
	q.publishLate(q.run)
	go q.run.work()
}

// publishLate publishes late completions in the run that has just begun.
func (q *queue) publishLate(r *run) {
	q.mu.Lock()
	late := q.late
	q.late, q.live = nil, r
	q.mu.Unlock()
	for _, c := range late {
		r.complete(c)
	}
}

// complete publishes a completion to the guest, or passes it to the next run if this one is
// over.
func (r *run) complete(c completion) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		r.queue.completeLater(c)
		return
	}
	r.queue.backend.device.unanswered.Add(-1)
	if c.address == r.address && r.ring.put(c.head, c.n) { // else it is another ring by now
		r.queue.notifyGuest()
	}
}

// completeLater passes a completion to the run that has begun meanwhile, or to the next.
func (q *queue) completeLater(c completion) {
	q.mu.Lock()
	r := q.live
	if r == nil {
		q.late = append(q.late, c)
	}
	q.mu.Unlock()
	if r != nil {
		r.complete(c)
	}
}

// halt stops the queue, if it runs, and sets base. It waits at most haltLimit for requests
// that are being answered.
func (q *queue) halt() (ran bool) {
	r := q.run
	if r == nil {
		return false
	}
	q.run = nil
	r.stop.Store(true)
	close(r.stopped)
	_ = r.kick.SetReadDeadline(time.Unix(1, 0))
	idle := make(chan struct{})
	go func() {
		<-r.done
		r.pending.Wait()
		close(idle)
	}()
	limit := time.NewTimer(haltLimit)
	defer limit.Stop()
	select {
	case <-idle:
	case <-limit.C:
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	q.mu.Lock()
	q.live = nil
	q.mu.Unlock()
	q.base = uint16(r.ring.taken.Load())
	return true
}

// work answers requests until the queue halts, or until another goroutine takes over.
func (r *run) work() {
	if r.loop() {
		return
	}
	close(r.done)
	r.ring.memory.release()
	r.queue.backend.device.runs.Add(-1)
}

// loop is work without its end. It reports whether another goroutine goes on.
func (r *run) loop() (takenOver bool) {
	event := make([]byte, 8)
	for {
		takenOver, err := r.drain()
		if takenOver {
			return true
		}
		if err != nil {
			r.queue.backend.fail(err)
			return false
		}
		if r.stop.Load() {
			return false
		}
		if r.askForKick() {
			continue
		}
		if _, err := r.kick.Read(event); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, os.ErrClosed) {
				r.queue.backend.fail(err)
			}
			return false
		}
	}
}

// askForKick asks the guest for a kick, and reports whether a request has come meanwhile.
func (r *run) askForKick() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ring.enableKicks()
}

// drain answers the requests in the queue. It reports whether another goroutine has taken
// the queue over meanwhile.
func (r *run) drain() (takenOver bool, err error) {
	r.mu.Lock()
	r.ring.disableKicks()
	r.mu.Unlock()
	for !r.stop.Load() {
		c, ok, err := r.ring.take()
		if err != nil || !ok {
			return false, err
		}
		d := r.queue.backend.device
		if !d.Handler.Blocks(c.in) {
			d.unanswered.Add(1)
			if !r.answerInTurn(d.Handler, c) {
				return true, nil
			}
			continue
		}
		select {
		case d.blocking <- struct{}{}:
		case <-r.stopped:
			r.ring.putBack(c)
			return false, nil
		}
		d.unanswered.Add(1)
		r.pending.Add(1)
		r.ring.memory.acquire()
		go func() {
			defer func() { <-d.blocking }()
			defer r.pending.Done()
			defer r.ring.memory.release()
			r.answer(d.Handler, c)
		}()
	}
	return false, nil
}

// turnLimit is how long the queue's goroutine may be busy with one request before another
// goroutine takes the queue over: most take some microseconds, but any may wait for a disk or
// for a network mount that hangs.
const turnLimit = 5 * time.Millisecond

// answerInTurn answers a request. It reports false if that took so long that another goroutine
// has taken the queue over.
func (r *run) answerInTurn(h Handler, c chain) (ours bool) {
	r.turns++
	turn := r.turns
	r.turn.Store(turn)
	r.overdue.Reset(turnLimit)
	n := h.Handle(c.in, c.out)
	ours = r.turn.CompareAndSwap(turn, 0)
	if ours {
		r.overdue.Stop()
	}
	r.complete(completion{r.address, c.head, n})
	if !ours { // it has become a request that blocks (takeOver)
		r.ring.memory.release()
		r.pending.Done()
		<-r.queue.backend.device.blocking
	}
	return ours
}

// takeOver starts another goroutine for the queue while the one that it has is busy with a
// request, if fewer than maxBlocking are.
func (r *run) takeOver() {
	turn := r.turn.Load()
	if turn == 0 {
		return
	}
	d := r.queue.backend.device
	select {
	case d.blocking <- struct{}{}:
	default:
		r.overdue.Reset(turnLimit) // later, when one of them is done
		return
	}
	r.pending.Add(1)
	r.ring.memory.acquire()
	if !r.turn.CompareAndSwap(turn, 0) {
		r.ring.memory.release()
		r.pending.Done()
		<-d.blocking
		return
	}
	go r.work()
}

func (r *run) answer(h Handler, c chain) {
	r.complete(completion{r.address, c.head, h.Handle(c.in, c.out)})
}

// one is the number that is written to an eventfd (eventfd(2)).
var one = []byte{1, 0, 0, 0, 0, 0, 0, 0}

// notifyGuest interrupts the guest, because there are new completions.
func (q *queue) notifyGuest() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.call == nil {
		return // the guest polls
	}
	raw, err := q.call.SyscallConn()
	if err != nil {
		return
	}
	// EAGAIN means that the counter is full: the guest was notified before.
	_ = raw.Write(func(fd uintptr) bool { _, _ = unix.Write(int(fd), one); return true })
}
