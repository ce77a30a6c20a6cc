package vhostuser

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// driver plays QEMU and the guest: it has the memory, the socket and one queue.
type driver struct {
	t          *testing.T
	conn       *net.UnixConn
	mem        []byte
	kick, call *os.File
	next       uint16
	served     chan error
}

// Where things lie in the driver's memory; QEMU sees it at userBase, the guest
// at guestBase.
const (
	userBase  = 0x7f0000000000
	guestBase = 0x40000000
	memSize   = 1 << 20
	ringSize  = 8

	descAt  = 0
	availAt = 0x1000
	usedAt  = 0x2000
	dataAt  = 0x10000
)

func eventfd(t *testing.T) *os.File {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "eventfd")
	t.Cleanup(func() { f.Close() })
	return f
}

func newDriver(t *testing.T, h Handler) *driver {
	t.Helper()
	return newDriverOf(t, &Device{Queues: 1, Handler: h})
}

func newDriverOf(t *testing.T, device *Device) *driver {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	mine, theirs := os.NewFile(uintptr(fds[0]), "front"), os.NewFile(uintptr(fds[1]), "back")
	c, err := net.FileConn(mine)
	mine.Close()
	if err != nil {
		t.Fatal(err)
	}
	d := &driver{t: t, conn: c.(*net.UnixConn), served: make(chan error, 1), kick: eventfd(t), call: eventfd(t)}
	go func() { d.served <- Serve(t.Context(), theirs, device) }()
	t.Cleanup(func() { d.conn.Close() })

	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	memory := os.NewFile(uintptr(fd), "guest")
	t.Cleanup(func() { memory.Close() })
	if err := memory.Truncate(memSize); err != nil {
		t.Fatal(err)
	}
	if d.mem, err = unix.Mmap(fd, 0, memSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(d.mem) })

	if got := d.ask(reqGetFeatures, nil); binary.NativeEndian.Uint64(got) != features {
		t.Fatalf("features %x", got)
	}
	d.send(reqSetFeatures, u64(features))
	table := binary.NativeEndian.AppendUint32(nil, 1)
	table = binary.NativeEndian.AppendUint32(table, 0)
	for _, v := range []uint64{guestBase, memSize, userBase, 0} {
		table = binary.NativeEndian.AppendUint64(table, v)
	}
	d.send(reqSetMemTable, table, memory)
	d.start(0)
	return d
}

// start sets the queue up from an index on.
func (d *driver) start(base uint32) {
	d.send(reqSetVringNum, statePayload(0, ringSize))
	d.send(reqSetVringBase, statePayload(0, base))
	addr := statePayload(0, 0)
	for _, v := range []uint64{userBase + descAt, userBase + usedAt, userBase + availAt, 0} {
		addr = binary.NativeEndian.AppendUint64(addr, v)
	}
	d.send(reqSetVringAddr, addr)
	d.send(reqSetVringKick, u64(0), d.kick)
	d.send(reqSetVringCall, u64(0), d.call)
	d.send(reqSetVringEnable, statePayload(0, 1))
}

func (d *driver) send(r request, payload []byte, files ...*os.File) {
	d.t.Helper()
	b := binary.NativeEndian.AppendUint32(nil, uint32(r))
	b = binary.NativeEndian.AppendUint32(b, version)
	b = binary.NativeEndian.AppendUint32(b, uint32(len(payload)))
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if _, _, err := d.conn.WriteMsgUnix(append(b, payload...), oob, nil); err != nil {
		d.t.Fatal(err)
	}
}

func (d *driver) ask(r request, payload []byte) []byte {
	d.t.Helper()
	d.send(r, payload)
	head := make([]byte, headerLen)
	if _, err := io.ReadFull(d.conn, head); err != nil {
		d.t.Fatal(err)
	}
	if got := request(binary.NativeEndian.Uint32(head)); got != r {
		d.t.Fatalf("answer to %v, not %v", got, r)
	}
	body := make([]byte, binary.NativeEndian.Uint32(head[8:]))
	if _, err := io.ReadFull(d.conn, body); err != nil {
		d.t.Fatal(err)
	}
	return body
}

// desc writes a descriptor.
func (d *driver) desc(i int, addr uint64, n uint32, flags, next uint16) {
	b := d.mem[descAt+i*descLen:]
	binary.LittleEndian.PutUint64(b, addr)
	binary.LittleEndian.PutUint32(b[8:], n)
	binary.LittleEndian.PutUint16(b[12:], flags)
	binary.LittleEndian.PutUint16(b[14:], next)
}

// submit makes the chain that begins at a descriptor available, and kicks.
func (d *driver) submit(head uint16) {
	d.t.Helper()
	binary.LittleEndian.PutUint16(d.mem[availAt+ringHead+int(d.next%ringSize)*2:], head)
	d.next++
	binary.LittleEndian.PutUint16(d.mem[availAt+2:], d.next)
	if _, err := d.kick.Write(one); err != nil {
		d.t.Fatal(err)
	}
}

// answered waits until the used ring has come to an index.
func (d *driver) answered(idx uint16) {
	d.t.Helper()
	event := make([]byte, 8)
	for {
		if binary.LittleEndian.Uint16(d.mem[usedAt+2:]) == idx {
			return
		}
		// The guest wants to be told of the next one.
		binary.LittleEndian.PutUint16(d.mem[availAt+ringHead+ringSize*2:], binary.LittleEndian.Uint16(d.mem[usedAt+2:]))
		_ = d.call.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := d.call.Read(event); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			d.t.Fatal(err)
		}
	}
}

// echo answers with the request's bytes, and blocks when told to.
type echo struct {
	block chan struct{}
	mu    sync.Mutex
	seen  [][]byte
}

func (e *echo) Blocks(in [][]byte) bool { return e.block != nil && in[0][0] == 'B' }

func (e *echo) Handle(in, out [][]byte) int {
	if e.Blocks(in) {
		<-e.block
	}
	all := bytes.Join(in, nil)
	e.mu.Lock()
	e.seen = append(e.seen, all)
	e.mu.Unlock()
	n := 0
	for _, o := range out {
		n += copy(o, all[n:])
	}
	return n
}

func TestRequestsAreAnswered(t *testing.T) {
	d := newDriver(t, &echo{})
	copy(d.mem[dataAt:], "hello, ")
	copy(d.mem[dataAt+100:], "host")
	// An indirect table with two parts in and one out.
	table := d.mem[dataAt+0x1000:]
	for i, p := range []struct {
		at    uint64
		n     uint32
		flags uint16
	}{{dataAt, 7, descNext}, {dataAt + 100, 4, descNext}, {dataAt + 0x2000, 64, descWrite}} {
		binary.LittleEndian.PutUint64(table[i*16:], guestBase+p.at)
		binary.LittleEndian.PutUint32(table[i*16+8:], p.n)
		binary.LittleEndian.PutUint16(table[i*16+12:], p.flags)
		binary.LittleEndian.PutUint16(table[i*16+14:], uint16(i+1))
	}
	d.desc(3, guestBase+dataAt+0x1000, 48, descIndirect, 0)
	for round := uint16(1); round <= 3*ringSize; round++ { // around the ring
		d.submit(3)
		d.answered(round)
		if got := string(d.mem[dataAt+0x2000:][:11]); got != "hello, host" {
			t.Fatalf("round %d: %q", round, got)
		}
		clear(d.mem[dataAt+0x2000:][:11])
		at := usedAt + ringHead + int((round-1)%ringSize)*usedLen
		if head, n := binary.LittleEndian.Uint32(d.mem[at:]), binary.LittleEndian.Uint32(d.mem[at+4:]); head != 3 || n != 11 {
			t.Fatalf("round %d: used %d, %d", round, head, n)
		}
	}
	d.conn.Close()
	if err := <-d.served; err != nil {
		t.Fatal(err)
	}
}

func TestABlockedRequestHoldsUpNobody(t *testing.T) {
	e := &echo{block: make(chan struct{})}
	d := newDriver(t, e)
	copy(d.mem[dataAt:], "B")
	copy(d.mem[dataAt+1:], "x")
	d.desc(0, guestBase+dataAt, 1, 0, 0)
	d.desc(1, guestBase+dataAt+1, 1, 0, 0)
	d.submit(0)
	d.submit(1)
	d.answered(1) // the second
	if got := d.ask(reqGetVringBase, statePayload(0, 0)); binary.NativeEndian.Uint32(got[4:]) != 2 {
		t.Fatalf("stopped at %v", got)
	}
	close(e.block) // its answer is given once the queue goes on
	d.start(2)
	d.submit(1)
	d.answered(3)
	heads := map[uint32]int{}
	for i := range 3 {
		heads[binary.LittleEndian.Uint32(d.mem[usedAt+ringHead+i*usedLen:])]++
	}
	if heads[0] != 1 || heads[1] != 2 {
		t.Fatalf("answered, by head: %v", heads)
	}
	d.conn.Close()
	if err := <-d.served; err != nil {
		t.Fatal(err)
	}
}

func TestBrokenRingsEndTheConnection(t *testing.T) {
	for name, set := range map[string]func(*driver){
		"outside":             func(d *driver) { d.desc(0, guestBase+memSize-1, 2, 0, 0) },
		"wraps":               func(d *driver) { d.desc(0, ^uint64(0)-1, 16, 0, 0) },
		"circle":              func(d *driver) { d.desc(0, guestBase, 1, descNext, 1); d.desc(1, guestBase, 1, descNext, 0) },
		"next outside":        func(d *driver) { d.desc(0, guestBase, 1, descNext, ringSize) },
		"in after out":        func(d *driver) { d.desc(0, guestBase, 1, descWrite|descNext, 1); d.desc(1, guestBase, 1, 0, 0) },
		"indirect in itself":  func(d *driver) { d.desc(0, guestBase+descAt, 16, descIndirect, 0) },
		"indirect of a third": func(d *driver) { d.desc(0, guestBase+dataAt, 5, descIndirect, 0) },
		"too many":            func(d *driver) { d.next = 99 },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDriver(t, &echo{})
			set(d)
			d.submit(0)
			if err := <-d.served; err == nil {
				t.Fatal("served on")
			}
		})
	}
}

func TestBadMessagesEndTheConnection(t *testing.T) {
	for name, send := range map[string]func(*driver){
		"unknown":        func(d *driver) { d.send(99, nil) },
		"queue":          func(d *driver) { d.send(reqSetVringNum, statePayload(7, 8)) },
		"size":           func(d *driver) { d.send(reqSetVringNum, statePayload(0, 7)) },
		"short":          func(d *driver) { d.send(reqSetVringAddr, make([]byte, 39)) },
		"no file":        func(d *driver) { d.send(reqSetVringKick, u64(0)) },
		"features":       func(d *driver) { d.send(reqSetFeatures, u64(1<<63)) },
		"memory, nofile": func(d *driver) { d.send(reqSetMemTable, append(u64(1), make([]byte, 32)...)) },
		"memory, beyond": func(d *driver) {
			table := u64(1)
			for _, v := range []uint64{guestBase, 1 << 40, userBase, 0} {
				table = binary.NativeEndian.AppendUint64(table, v)
			}
			f, err := os.Open("device_test.go")
			if err != nil {
				d.t.Fatal(err)
			}
			defer f.Close()
			d.send(reqSetMemTable, table, f)
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDriver(t, &echo{})
			send(d)
			if err := <-d.served; err == nil {
				t.Fatal("served on")
			}
		})
	}
}

// FuzzRing lets a guest write anything into its rings.
func FuzzRing(f *testing.F) {
	f.Add(make([]byte, 256))
	f.Fuzz(func(t *testing.T, b []byte) {
		mem := make([]byte, 1<<16)
		copy(mem, b)
		m := &memory{regions: []region{{guest: 0, user: 0, data: mem}}}
		r, err := newRing(m, address{desc: 0, avail: 128, used: 256}, 8, 0, true)
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			c, ok, err := r.take()
			if err != nil || !ok {
				return
			}
			n := 0
			for _, s := range c.in {
				n += len(s)
			}
			r.put(c.head, n)
		}
	})
}
