package vhostuser

import (
	"encoding/binary"
	"strings"
	"sync"
	"testing"
	"time"
)

// indirect writes an indirect table of n descriptors for the same page at dataAt, which
// descriptor 0 names. The flags are those of each.
func (d *driver) indirect(n int, flags uint16) {
	const tableAt = dataAt + 0x2000
	for i := range n {
		b := d.mem[tableAt+i*descLen:]
		binary.LittleEndian.PutUint64(b, guestBase+dataAt)
		binary.LittleEndian.PutUint32(b[8:], 4096)
		next := flags | descNext
		if i == n-1 {
			next = flags
		}
		binary.LittleEndian.PutUint16(b[12:], next)
		binary.LittleEndian.PutUint16(b[14:], uint16(i+1))
	}
	d.desc(0, guestBase+tableAt, uint32(n*descLen), descIndirect, 0)
}

// TestARequestHasNoMoreBytesThanAnyRequest is an attack: a chain that names few pages many
// times states a size that has nothing to do with the guest's memory, and what answers it
// would allocate that, or write as much to the host's disk.
func TestARequestHasNoMoreBytesThanAnyRequest(t *testing.T) {
	for name, set := range map[string]func(*driver){
		"one page a thousand times, in":  func(d *driver) { d.indirect(1000, 0) },
		"one page a thousand times, out": func(d *driver) { d.indirect(1000, descWrite) },
		"a page beyond the bound":        func(d *driver) { d.indirect(maxBytes/4096+1, descWrite) },
		"all memory twice, in": func(d *driver) {
			d.desc(0, guestBase, memSize, descNext, 1)
			d.desc(1, guestBase, memSize, 0, 0)
		},
		"all memory twice, out": func(d *driver) {
			d.desc(0, guestBase, memSize, descWrite|descNext, 1)
			d.desc(1, guestBase, memSize, descWrite, 0)
		},
		"all memory by every descriptor": func(d *driver) {
			for i := range ringSize {
				d.desc(i, guestBase, memSize, descWrite|descNext, uint16(i+1))
			}
			d.desc(ringSize-1, guestBase, memSize, descWrite, 0)
		},
		"a length that wraps": func(d *driver) {
			d.desc(0, guestBase, ^uint32(0), descNext, 1)
			d.desc(1, guestBase, ^uint32(0), 0, 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := &echo{}
			d := newDriver(t, e)
			set(d)
			d.submit(0)
			if err := <-d.served; err == nil {
				t.Fatal("served on")
			}
			e.mu.Lock()
			defer e.mu.Unlock()
			if len(e.seen) != 0 {
				t.Error("it was answered")
			}
		})
	}
	d := newDriver(t, &echo{}) // what is within the bound works
	d.indirect(maxBytes/4096, 0)
	d.submit(0)
	d.answered(1)
}

// TestADescriptorSubmittedTwiceEndsTheConnection is an attack: a request that has not been
// answered is submitted again, so that a ring of eight has more than eight under way.
func TestADescriptorSubmittedTwiceEndsTheConnection(t *testing.T) {
	for name, heads := range map[string][]uint16{
		"at once":         {0, 0},
		"after another":   {0, 1, 0},
		"all of the ring": {0, 1, 2, 3, 4, 5, 6, 7, 3},
		"outside":         {ringSize},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // a halt waits for requests
			h := &counting{release: make(chan struct{})}
			d := newDriver(t, h)
			for i := range ringSize {
				d.desc(i, guestBase+dataAt, 1, 0, 0)
			}
			for i, head := range heads {
				waitFor(t, func() bool { return h.begun() == i })
				d.submit(head)
			}
			defer close(h.release)
			if err := <-d.served; err == nil {
				t.Fatal("served on")
			}
		})
	}
}

// waitFor waits until a condition is true.
func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen")
		}
	}
}

// counting counts the requests that are being answered, each of which waits.
type counting struct {
	release chan struct{}
	inline  bool

	mu            sync.Mutex
	now, most, in int
}

func (c *counting) Blocks([][]byte) bool { return !c.inline }

func (c *counting) Handle(in, out [][]byte) int {
	c.mu.Lock()
	c.in++
	c.now++
	c.most = max(c.most, c.now)
	c.mu.Unlock()
	<-c.release
	c.mu.Lock()
	c.now--
	c.mu.Unlock()
	return 0
}

func (c *counting) begun() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.in
}

// TestRequestsThatBlockAreBounded is an attack: requests that take long, from a whole ring
// and again after each reset of the device, get no thread each. Those that wait for their
// turn are answered in the end.
func TestRequestsThatBlockAreBounded(t *testing.T) {
	t.Parallel() // a halt waits for requests
	const bound = 3
	h := &counting{release: make(chan struct{})}
	d := newDriverOf(t, &Device{Queues: 1, Handler: h, blocking: make(chan struct{}, bound)})
	for i := range ringSize {
		d.desc(i, guestBase+dataAt, 1, 0, 0)
		d.submit(uint16(i))
	}
	waitFor(t, func() bool { return h.begun() == bound })
	base := binary.NativeEndian.Uint32(d.ask(reqGetVringBase, statePayload(0, 0))[4:])
	if base != bound {
		t.Fatalf("halted at %d, not at %d", base, bound)
	}
	d.start(base) // the guest goes on, with as many that wait as before
	if n := h.begun(); n != bound {
		t.Errorf("%d requests were begun, not %d", n, bound)
	}
	close(h.release)
	d.answered(ringSize)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.most > bound || h.in != ringSize {
		t.Errorf("%d requests were answered, %d at once", h.in, h.most)
	}
}

// TestHaltedQueuesAreBounded is an attack: a request that hangs holds the goroutine of its
// queue, and each reset of the device begins another.
func TestHaltedQueuesAreBounded(t *testing.T) {
	t.Parallel() // a halt waits for requests
	h := &counting{release: make(chan struct{}), inline: true}
	// As many others hang as may: none of the queue's own is taken over.
	device := &Device{Queues: 1, Handler: h, blocking: make(chan struct{})}
	device.runs.Store(maxRuns - 2) // of earlier resets
	d := newDriverOf(t, device)
	defer close(h.release)
	for i := range 3 {
		d.desc(i, guestBase+dataAt, 1, 0, 0)
	}
	d.submit(0)
	waitFor(t, func() bool { return h.begun() == 1 })
	base := binary.NativeEndian.Uint32(d.ask(reqGetVringBase, statePayload(0, 0))[4:])
	d.start(base)
	d.submit(1)
	waitFor(t, func() bool { return h.begun() == 2 })
	base = binary.NativeEndian.Uint32(d.ask(reqGetVringBase, statePayload(0, 0))[4:])
	d.start(base)
	if err := <-d.served; err == nil || !strings.Contains(err.Error(), "halted too often") {
		t.Errorf("served on: %v", err)
	}
}

// TestARequestThatHangsUnexpectedlyHoldsUpNobody: one that seemed to be short waits for a
// mount that hangs. Others are answered, until as many hang as may be.
func TestARequestThatHangsUnexpectedlyHoldsUpNobody(t *testing.T) {
	t.Parallel()
	const bound = 3
	h := &counting{release: make(chan struct{}), inline: true}
	d := newDriverOf(t, &Device{Queues: 1, Handler: h, blocking: make(chan struct{}, bound)})
	for i := range ringSize {
		d.desc(i, guestBase+dataAt, 1, 0, 0)
		d.submit(uint16(i))
	}
	waitFor(t, func() bool { return h.begun() == bound+1 })
	close(h.release)
	d.answered(ringSize)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.most > bound+1 || h.in != ringSize {
		t.Errorf("%d requests were answered, %d at once", h.in, h.most)
	}
}
