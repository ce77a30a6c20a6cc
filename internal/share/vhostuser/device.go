// Package vhostuser is the back end of a vhost-user device: a process of its
// own that serves virtio queues in the guest's memory. QEMU tells it over a
// socket where memory and queues are. It does not know what the requests
// mean; a Handler answers them.
//
// # Theory of operation
//
// Serve reads QEMU's messages one after the other (message.go). SET_MEM_TABLE maps
// the guest's memory (memory.go); the SET_VRING messages describe a queue and pass
// two eventfds, kick (the guest has added requests) and call (some were answered: an
// interrupt). A queue runs one goroutine that takes requests off the ring (ring.go)
// and answers them in turn; a request that may block is answered in a goroutine of
// its own, so that it delays no other. One that blocks nevertheless keeps that goroutine, and
// another takes the queue over (turnLimit). GET_VRING_BASE halts a queue and is answered
// within haltLimit: QEMU's main loop waits for it, and with it the machine. A
// request that is still being answered afterwards keeps the old memory mapped;
// its completion is published when the queue runs again.
//
// # Bounds
//
// What a guest can make this process keep at once. A guest that goes beyond a bound
// breaks the rules of the ring, except where it waits.
//
//	bytes of a request, and of its answer          maxBytes each (1 MiB and 64 KiB)
//	buffers of a request                           maxSegments (1024)
//	descriptors of a request                       the size of its table
//	requests that begin at one descriptor          1, until it is answered
//	requests answered in goroutines of their own   maxBlocking (64) of the device; more wait
//	goroutines (and threads) of queues             maxRuns (16) of the device
//	completions that wait for a halted queue       maxBlocking and maxRuns
//	size of a queue                                maxQueueSize (32768)
//	regions of memory                              maxFiles (8)
//
// The bounds of a device hold over all its connections and resets: a request that
// is still being answered after its queue was halted counts until it is done.
//
// # Not safe
//
// The guest owns the rings and may change anything at any time. Each value is
// read from them once, and each address and length is checked against the memory
// that QEMU named. The data of a request itself stays in guest memory: a Handler
// must copy what it checks before it uses it. A guest that breaks the rules of
// the ring ends Serve with an error, and harms only itself. QEMU is trusted with
// no more than its own guest's memory.
package vhostuser

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"

	"bawn.dev/bawn/internal/sys/socketpair"
)

// Handler answers requests. Its methods are called by many goroutines at once.
type Handler interface {
	// Handle answers the request whose readable parts are in by writing to out,
	// and returns the number of bytes written. The slices lie in guest memory
	// and are valid only until it returns.
	Handle(in, out [][]byte) int
	// Blocks reports whether the answer may take longer than to read or write a file.
	Blocks(in [][]byte) bool
}

// Device is one virtio device. It may be served on one connection after the
// other.
type Device struct {
	Queues  int // how many virtqueues the device has
	Handler Handler

	// Resumed means that the guest used the device before QEMU connected here: a
	// saved machine is resumed. QEMU does not know the state of its queues then; the used
	// rings have it, if all requests had been answered (Idle).
	Resumed bool

	unanswered atomic.Int64
	runs       atomic.Int64  // goroutines of queues
	blocking   chan struct{} // a token for each request in a goroutine of its own
}

// Bounds of a device (see the package comment).
const (
	maxBlocking = 64
	maxRuns     = 16
)

// Idle reports whether all requests that were taken from the queues have been answered,
// so that the rings in the guest's memory hold the whole state of the device.
func (d *Device) Idle() bool { return d.unanswered.Load() == 0 }

// Feature bits offered (virtio 1.2 section 6, QEMU's docs/interop/vhost-user).
const (
	featureIndirect = 1 << 28 // VIRTIO_RING_F_INDIRECT_DESC
	featureEventIdx = 1 << 29 // VIRTIO_RING_F_EVENT_IDX
	featureProtocol = 1 << 30 // VHOST_USER_F_PROTOCOL_FEATURES
	featureVersion1 = 1 << 32 // VIRTIO_F_VERSION_1

	features = featureIndirect | featureEventIdx | featureProtocol | featureVersion1

	protocolMQ       = 1 << 0 // VHOST_USER_PROTOCOL_F_MQ
	protocolReplyAck = 1 << 3 // VHOST_USER_PROTOCOL_F_REPLY_ACK

	protocolFeatures = protocolMQ | protocolReplyAck
)

// Serve serves the device on a connected socket, which it closes, until QEMU
// hangs up (nil), ctx ends, or one of the two breaks the rules (an error).
func Serve(ctx context.Context, socket *os.File, d *Device) error {
	conn, err := socketpair.Conn(socket)
	if err != nil {
		return fmt.Errorf("vhost-user: %w", err)
	}
	if d.blocking == nil { // one connection is served at a time
		d.blocking = make(chan struct{}, maxBlocking)
	}
	b := &backend{device: d, conn: conn, broken: make(chan error, 1)}
	for i := range d.Queues {
		b.queues = append(b.queues, &queue{index: i, backend: b, resumed: d.Resumed})
	}
	defer b.close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	go func() { // a ring that is broken ends the connection
		if err, ok := <-b.broken; ok {
			b.mu.Lock()
			b.reason = err
			b.mu.Unlock()
			conn.Close()
		}
	}()
	err = b.serve()
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.reason != nil:
		return fmt.Errorf("vhost-user: %w", b.reason)
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, io.EOF):
		return nil
	}
	return fmt.Errorf("vhost-user: %w", err)
}

// backend is the state of one connection.
type backend struct {
	device *Device
	conn   *net.UnixConn
	queues []*queue
	memory *memory

	features uint64 // as acknowledged by the guest

	broken chan error
	mu     sync.Mutex
	reason error
}

// fail ends the connection because of the guest; the first reason counts.
func (b *backend) fail(err error) {
	select {
	case b.broken <- err:
	default:
	}
}

func (b *backend) close() {
	b.conn.Close()
	for _, q := range b.queues {
		q.halt()
		q.setKick(nil)
		q.setCall(nil)
	}
	if b.memory != nil {
		b.memory.release()
	}
	close(b.broken)
}

func (b *backend) serve() error {
	for {
		m, err := readMessage(b.conn)
		if err != nil {
			return err
		}
		reply, err := b.answer(m)
		m.closeFiles()
		if err != nil {
			return fmt.Errorf("%s: %w", m.request, err)
		}
		if reply == nil && m.wantsAck() {
			reply = make([]byte, 8) // zero is success
		}
		if reply == nil {
			continue
		}
		if err := writeReply(b.conn, m.request, reply); err != nil {
			return err
		}
	}
}

// answer carries out one message. A nil reply means that the message has none.
func (b *backend) answer(m *message) (reply []byte, err error) {
	switch m.request {
	case reqGetFeatures:
		return u64(features), nil
	case reqSetFeatures:
		v, err := m.u64()
		if err == nil && v&^uint64(features) != 0 {
			return nil, fmt.Errorf("unknown features %#x", v)
		}
		b.features = v
		return nil, err
	case reqGetProtocolFeatures:
		return u64(protocolFeatures), nil
	case reqSetProtocolFeatures, reqSetOwner, reqSetVringErr:
		return nil, nil
	case reqResetOwner, reqResetDevice:
		for _, q := range b.queues {
			q.halt()
		}
		return nil, nil
	case reqGetQueueNum:
		return u64(uint64(len(b.queues))), nil
	case reqSetMemTable:
		return nil, b.setMemory(m)
	case reqSetVringNum, reqSetVringBase, reqGetVringBase, reqSetVringEnable:
		return b.answerState(m)
	case reqSetVringAddr:
		a, err := m.address()
		if err != nil {
			return nil, err
		}
		q, err := b.queue(a.index)
		if err != nil {
			return nil, err
		}
		q.halt()
		q.address = a
		return nil, nil
	case reqSetVringKick, reqSetVringCall:
		return nil, b.setFile(m)
	}
	return nil, errors.New("not supported")
}

func (b *backend) setMemory(m *message) error {
	mem, err := mapMemory(m)
	if err != nil {
		return err
	}
	old := b.memory
	b.memory = mem
	for _, q := range b.queues { // QEMU stops them first; one that runs would use the old
		if q.halt() {
			q.tryStart()
		}
	}
	if old != nil {
		old.release()
	}
	return nil
}

// answerState carries out the messages whose payload is a queue's index and a number.
func (b *backend) answerState(m *message) ([]byte, error) {
	index, num, err := m.state()
	if err != nil {
		return nil, err
	}
	q, err := b.queue(index)
	if err != nil {
		return nil, err
	}
	switch m.request {
	case reqSetVringNum:
		if num == 0 || num > maxQueueSize || num&(num-1) != 0 {
			return nil, fmt.Errorf("queue size %d", num)
		}
		q.halt()
		q.size = num
	case reqSetVringBase:
		q.halt()
		q.base = uint16(num)
	case reqGetVringBase:
		q.halt()
		q.setKick(nil)
		return statePayload(index, uint32(q.base)), nil
	case reqSetVringEnable:
		q.enabled = num != 0
		if !q.enabled {
			q.halt()
		} else {
			q.tryStart()
		}
	}
	return nil, nil
}

// setFile takes a queue's eventfd.
func (b *backend) setFile(m *message) error {
	v, err := m.u64()
	if err != nil {
		return err
	}
	q, err := b.queue(uint32(v & vringIndexMask))
	if err != nil {
		return err
	}
	var f *os.File
	if v&vringNoFile == 0 {
		if f, err = m.takeFile(); err != nil {
			return err
		}
	}
	if m.request == reqSetVringCall {
		q.setCall(f)
		return nil
	}
	if f == nil {
		return errors.New("a queue without kicks")
	}
	q.halt()
	q.setKick(f)
	if b.features&featureProtocol == 0 {
		q.enabled = true // vhost-user: "Ring states"
	}
	q.tryStart()
	return nil
}

func (b *backend) queue(index uint32) (*queue, error) {
	if int(index) >= len(b.queues) {
		return nil, fmt.Errorf("no queue %d", index)
	}
	return b.queues[index], nil
}
