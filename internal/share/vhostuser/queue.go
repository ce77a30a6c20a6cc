package vhostuser

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// haltLimit is how long a queue's end waits for the requests being answered.
const haltLimit = 2 * time.Second

// queue is one virtqueue. Its fields belong to the connection's goroutine; what
// a run of it uses is handed over in run.
type queue struct {
	index   int
	backend *backend

	size    uint32
	base    uint16 // where to go on
	address address
	enabled bool
	kick    *os.File
	resumed bool // where to go on is in the used ring
	run     *run

	mu   sync.Mutex
	call *os.File
	live *run    // run, for answers that come late
	late []given // answers that came when no run was live
}

// given is an answer that was not yet given: a descriptor's number, and bytes.
type given struct {
	address address
	head    uint16
	n       int
}

// run is a queue at work, from its start to GET_VRING_BASE.
type run struct {
	queue   *queue
	ring    *ring
	kick    *os.File
	address address
	done    chan struct{}
	stop    atomic.Bool // take no more

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

// tryStart starts the queue if all that it needs is known.
func (q *queue) tryStart() {
	if q.run != nil || !q.enabled || q.kick == nil || q.size == 0 || q.backend.memory == nil {
		return
	}
	r, err := newRing(q.backend.memory, q.address, q.size, q.base, q.backend.features&featureEventIdx != 0)
	if err != nil {
		q.backend.fail(err)
		return
	}
	q.backend.memory.acquire()
	q.run = &run{queue: q, ring: r, kick: q.kick, address: q.address, done: make(chan struct{})}
	_ = q.kick.SetReadDeadline(time.Time{})
	if q.resumed {
		q.resumed = false
		r.lastAvail = r.lastUsed
		q.tell() // an interrupt may have been lost; one too many does no harm
	}
	q.goLive(q.run)
	go q.run.work()
}

// goLive gives what came late to the run that has just begun.
func (q *queue) goLive(r *run) {
	q.mu.Lock()
	late := q.late
	q.late, q.live = nil, r
	q.mu.Unlock()
	for _, g := range late {
		r.give(g)
	}
}

// give hands an answer to the guest, or keeps it if the run is over.
func (r *run) give(g given) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		r.queue.keep(g)
		return
	}
	r.queue.backend.device.unanswered.Add(-1)
	if g.address == r.address && r.ring.give(g.head, g.n) { // else it is another ring by now
		r.queue.tell()
	}
}

// keep gives an answer to the run that has begun meanwhile, or the next.
func (q *queue) keep(g given) {
	q.mu.Lock()
	r := q.live
	if r == nil {
		q.late = append(q.late, g)
	}
	q.mu.Unlock()
	if r != nil {
		r.give(g)
	}
}

// halt stops the queue, if it runs, and notes where it was.
func (q *queue) halt() (ran bool) {
	r := q.run
	if r == nil {
		return false
	}
	q.run = nil
	r.stop.Store(true)
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
	q.base = r.ring.lastAvail
	return true
}

// work answers requests until the queue halts.
func (r *run) work() {
	defer r.ring.memory.release()
	defer close(r.done)
	event := make([]byte, 8)
	for {
		if err := r.drain(); err != nil {
			r.queue.backend.fail(err)
			return
		}
		if r.stop.Load() {
			return
		}
		if r.listen() {
			continue
		}
		if _, err := r.kick.Read(event); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, os.ErrClosed) {
				r.queue.backend.fail(err)
			}
			return
		}
	}
}

func (r *run) listen() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ring.listen()
}

// drain answers what is in the queue.
func (r *run) drain() error {
	r.mu.Lock()
	r.ring.quiet()
	r.mu.Unlock()
	for !r.stop.Load() {
		c, ok, err := r.ring.take()
		if err != nil || !ok {
			return err
		}
		r.queue.backend.device.unanswered.Add(1)
		h := r.queue.backend.device.Handler
		if !h.Blocks(c.in) {
			r.answer(h, c)
			continue
		}
		r.pending.Add(1)
		r.ring.memory.acquire()
		go func() {
			defer r.pending.Done()
			defer r.ring.memory.release()
			r.answer(h, c)
		}()
	}
	return nil
}

func (r *run) answer(h Handler, c chain) {
	r.give(given{r.address, c.head, h.Handle(c.in, c.out)})
}

// one is what is written to an eventfd (eventfd(2)).
var one = []byte{1, 0, 0, 0, 0, 0, 0, 0}

// tell tells the guest that there are answers.
func (q *queue) tell() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.call == nil {
		return // the guest polls
	}
	raw, err := q.call.SyscallConn()
	if err != nil {
		return
	}
	// EAGAIN means that the counter is full: it has been told.
	_ = raw.Write(func(fd uintptr) bool { _, _ = unix.Write(int(fd), one); return true })
}
