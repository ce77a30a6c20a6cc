package vhostuser

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// haltLimit is how long a queue's end waits for the request being answered; the
// answer of one that takes longer is lost.
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

	mu   sync.Mutex
	call *os.File
	run  *run
}

// run is a queue at work, from its start to GET_VRING_BASE.
type run struct {
	queue *queue
	ring  *ring
	kick  *os.File
	done  chan struct{}
	stop  atomic.Bool // take no more

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
	q.run = &run{queue: q, ring: r, kick: q.kick, done: make(chan struct{})}
	_ = q.kick.SetReadDeadline(time.Time{})
	go q.run.work()
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
	n := h.Handle(c.in, c.out)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.over && r.ring.give(c.head, n) {
		r.queue.tell()
	}
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
