package watch

import (
	"log"
	"sync"
	"time"

	"bawn.dev/bawn/internal/guest/tracefs"
)

// instance is ours of the tracer. Its function adds each mark of inotify(7) and fanotify(7) to a file
// (fs/notify/mark.c). What an event says is not read, so that events may be lost.
var instance = tracefs.Instance{
	Dir: "instances/bawn-watch", RingKiB: 8,
	Probes: []tracefs.Probe{{Event: "mark", Function: "fsnotify_add_mark_locked"}},
}

// marks announces new watches. The zero value announces none.
type marks struct {
	mu    sync.Mutex
	ready bool // the probe is set
	out   chan time.Time
}

// begin sets the probe. It patches the kernel's code, so in a machine that becomes a template it is called
// before other CPUs start (docs/adr/0013).
func (m *marks) begin() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ready {
		return
	}
	if err := setProbe(); err != nil {
		log.Print(err)
		return
	}
	m.ready = true
}

func setProbe() error {
	fs, err := tracefs.Mount()
	if err != nil {
		return err
	}
	defer fs.Close()
	if err := fs.Start(instance); err != nil {
		return err
	}
	return fs.Write(tracefs.Setting{File: instance.Dir + "/buffer_percent", Value: "0"}) // wake the reader at the first event
}

// listen returns the channel on which the time of the first new watch since the last receipt is sent,
// nil where the kernel announces none, or not yet. All callers get the same channel, which is closed when
// the announcements end.
func (m *marks) listen() <-chan time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.out != nil || !m.ready {
		return m.out
	}
	rings, err := openRings()
	if err != nil {
		log.Print(err)
		m.ready = false
		return nil
	}
	m.out = make(chan time.Time, 1)
	go m.read(rings)
	return m.out
}

// openRings opens the ring buffers of the CPUs that are there now.
func openRings() (*tracefs.Rings, error) {
	fs, err := tracefs.Mount()
	if err != nil {
		return nil, err
	}
	defer fs.Close()
	return fs.Rings(instance)
}

// read announces new watches as long as the machine lives. It waits in a thread, and not in the runtime's
// poller, which would wake up at each of a thousand watches.
func (m *marks) read(rings *tracefs.Rings) {
	for {
		if err := rings.Wait(); err != nil {
			log.Printf("new watches are not announced any more: %v", err)
			m.mu.Lock()
			defer m.mu.Unlock()
			close(m.out)
			m.out, m.ready = nil, false
			return
		}
		first := time.Duration(-1)
		rings.Drain(func(at time.Duration, _ []byte) {
			if first < 0 || at < first {
				first = at
			}
		})
		if first < 0 {
			continue // another CPU's events were read before
		}
		m.announce(tracefs.Time(first))
		time.Sleep(lookSoon)
	}
}

// announce sends the time of the first new watch since the last receipt.
func (m *marks) announce(at time.Time) {
	select {
	case was := <-m.out: // not received yet
		if was.Before(at) {
			at = was
		}
	default:
	}
	m.out <- at // has room: nobody else sends
}
