package vhostuser

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"
)

// Layout of a split virtqueue (virtio 1.2 section 2.7).
const (
	maxQueueSize = 32768

	descLen  = 16 // address 64 bits, length 32, flags 16, next 16
	ringHead = 4  // flags and index, 16 bits each, of either ring
	usedLen  = 8  // an element of the used ring: head and length, 32 bits each
	eventLen = 2  // used_event after the available ring, avail_event after the used

	descNext     = 1
	descWrite    = 2
	descIndirect = 4

	availNoInterrupt = 1
	usedNoNotify     = 1

	// maxSegments bounds the buffers of one request: 1 MiB in pages, with headers and
	// room to spare.
	maxSegments = 1024

	// maxBytes bounds the readable bytes of one request, and the writable ones: 1 MiB
	// of data (virtiofs as package share offers it) with headers.
	maxBytes = 1<<20 + 64<<10
)

// ring is a virtqueue in guest memory. take is for one goroutine; the other methods, which
// use the used ring, are for one at a time.
type ring struct {
	memory   *memory
	size     uint16
	eventIdx bool

	desc, avail, used []byte

	busy []atomic.Bool // by head: taken and not yet answered

	lastAvail uint16        // for the goroutine of take
	taken     atomic.Uint32 // lastAvail, for the others
	lastUsed  uint16
	signalled uint16 // lastUsed when wantsInterrupt was last called
	valid     bool   // signalled is set
	fence     atomic.Uint32
}

var errAlignment = errors.New("a ring that is not aligned")

func newRing(m *memory, a address, size uint32, base uint16, eventIdx bool) (*ring, error) {
	r := &ring{memory: m, size: uint16(size), eventIdx: eventIdx, busy: make([]atomic.Bool, size)}
	r.setLastAvail(base)
	n := uint64(size)
	if a.desc%16 != 0 || a.avail%4 != 0 || a.used%4 != 0 {
		return nil, errAlignment
	}
	var err [3]error
	r.desc, err[0] = m.atUser(a.desc, n*descLen)
	r.avail, err[1] = m.atUser(a.avail, ringHead+n*2+eventLen)
	r.used, err[2] = m.atUser(a.used, ringHead+n*usedLen+eventLen)
	if e := errors.Join(err[:]...); e != nil {
		return nil, fmt.Errorf("a ring: %w", e)
	}
	// A halted queue has answered every request that it took (Device.Idle).
	_, r.lastUsed = split(atomic.LoadUint32(word(r.used)))
	return r, nil
}

// word returns the flags and index of a ring, which change together atomically.
func word(b []byte) *uint32 { return (*uint32)(unsafe.Pointer(&b[0])) }

// split returns the two halves of the word: little endian, flags first.
func split(w uint32) (flags, index uint16) {
	return uint16(w & 0xffff), uint16(w >> 16)
}

func (r *ring) setLastAvail(n uint16) {
	r.lastAvail = n
	r.taken.Store(uint32(n))
}

func (r *ring) pending() bool {
	_, idx := split(atomic.LoadUint32(word(r.avail)))
	return idx != r.lastAvail
}

// disableKicks asks the guest for no kicks; it need not comply.
func (r *ring) disableKicks() {
	if !r.eventIdx {
		r.setUsedFlags(usedNoNotify)
	}
}

// enableKicks asks the guest for a kick with the next request, and reports whether a
// request has come meanwhile.
func (r *ring) enableKicks() bool {
	if r.eventIdx {
		binary.LittleEndian.PutUint16(r.used[ringHead+int(r.size)*usedLen:], r.lastAvail)
	} else {
		r.setUsedFlags(0)
	}
	r.fence.Add(1) // the guest must see this before the other ring is read
	return r.pending()
}

func (r *ring) setUsedFlags(f uint16) {
	atomic.StoreUint32(word(r.used), uint32(f)|uint32(r.lastUsed)<<16)
}

// chain is one request.
type chain struct {
	head    uint16
	in, out [][]byte

	inBytes, outBytes uint64
}

// take returns the next request. ok is false when there is none.
func (r *ring) take() (c chain, ok bool, err error) {
	_, idx := split(atomic.LoadUint32(word(r.avail)))
	waiting := idx - r.lastAvail
	if waiting == 0 {
		return c, false, nil
	}
	if waiting > r.size {
		return c, false, fmt.Errorf("%d requests in a queue of %d", waiting, r.size)
	}
	slot := ringHead + int(r.lastAvail%r.size)*2
	c.head = binary.LittleEndian.Uint16(r.avail[slot:])
	if c.head >= r.size {
		return c, false, errors.New("a descriptor outside its table")
	}
	if r.busy[c.head].Swap(true) {
		return c, false, errors.New("a descriptor was submitted again before it was answered")
	}
	r.setLastAvail(r.lastAvail + 1)
	return c, true, r.gather(&c, r.desc, c.head, false)
}

// putBack undoes the last take: another ring in the same place takes the request.
func (r *ring) putBack(c chain) {
	r.setLastAvail(r.lastAvail - 1)
	r.busy[c.head].Store(false)
}

// gather adds the buffers of the descriptors from number at on to a chain.
func (r *ring) gather(c *chain, table []byte, at uint16, inner bool) error {
	count := len(table) / descLen
	for range count {
		if int(at) >= count {
			return errors.New("a descriptor outside its table")
		}
		var d [descLen]byte // read once
		copy(d[:], table[int(at)*descLen:])
		addr, n := binary.LittleEndian.Uint64(d[:]), binary.LittleEndian.Uint32(d[8:])
		flags, next := binary.LittleEndian.Uint16(d[12:]), binary.LittleEndian.Uint16(d[14:])
		if err := r.add(c, addr, n, flags, inner); err != nil {
			return err
		}
		if flags&descNext == 0 || flags&descIndirect != 0 {
			return nil
		}
		at = next
	}
	return errors.New("descriptors in a circle")
}

// add adds the buffer of one descriptor, or those of the indirect table that it names.
func (r *ring) add(c *chain, addr uint64, n uint32, flags uint16, inner bool) (err error) {
	switch {
	case flags&descIndirect != 0:
		if inner || n%descLen != 0 || n == 0 || n > maxSegments*descLen {
			return errors.New("an indirect descriptor that is not allowed")
		}
		table, err := r.memory.atGuest(nil, addr, uint64(n))
		if err != nil {
			return err
		}
		if len(table) != 1 {
			return errors.New("an indirect table in two places")
		}
		return r.gather(c, table[0], 0, true)
	case flags&descWrite != 0:
		if c.outBytes += uint64(n); c.outBytes > maxBytes {
			return errors.New("room for an answer larger than any answer")
		}
		c.out, err = r.memory.atGuest(c.out, addr, uint64(n))
	case len(c.out) > 0:
		return errors.New("a readable descriptor after a writable one")
	default:
		if c.inBytes += uint64(n); c.inBytes > maxBytes {
			return errors.New("a request larger than any request")
		}
		c.in, err = r.memory.atGuest(c.in, addr, uint64(n))
	}
	if err == nil && len(c.in)+len(c.out) > maxSegments {
		err = errors.New("too many descriptors")
	}
	return err
}

// put adds a request that was answered with n bytes to the used ring, and reports whether
// the guest wants an interrupt for it.
func (r *ring) put(head uint16, n int) (interrupt bool) {
	if int(head) < len(r.busy) { // it may belong to an earlier ring in the same place
		r.busy[head].Store(false) // before the guest can submit it again
	}
	at := ringHead + int(r.lastUsed%r.size)*usedLen
	binary.LittleEndian.PutUint32(r.used[at:], uint32(head))
	binary.LittleEndian.PutUint32(r.used[at+4:], uint32(n))
	r.lastUsed++
	flags, _ := split(atomic.LoadUint32(word(r.used)))
	atomic.StoreUint32(word(r.used), uint32(flags)|uint32(r.lastUsed)<<16)
	r.fence.Add(1) // the guest must see this before the other ring is read
	return r.wantsInterrupt()
}

// wantsInterrupt reports whether the guest wants an interrupt for what was put since the
// last call (virtio 1.2 section 2.7.7.2).
func (r *ring) wantsInterrupt() bool {
	if !r.eventIdx {
		flags, _ := split(atomic.LoadUint32(word(r.avail)))
		return flags&availNoInterrupt == 0
	}
	event := binary.LittleEndian.Uint16(r.avail[ringHead+int(r.size)*2:])
	old, valid := r.signalled, r.valid
	r.signalled, r.valid = r.lastUsed, true
	return !valid || r.lastUsed-event-1 < r.lastUsed-old
}
