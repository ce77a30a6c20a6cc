package tracefs

import (
	"encoding/binary"
	"time"
)

// The kernel's trace buffer is read in its binary form (Documentation/trace/
// ring-buffer-design.rst; events/header_page and events/header_event state the layout).
// Its text form would cost both sides more: a twentieth of a connection under emulation.
//
// A page is a time in ns, a length, and events. An event begins with 32 bits: five for its
// kind, 27 for the time since the event before.

const (
	pageHeader = 16 // bytes: time and length
	// lengthMask leaves out the flags for events that were lost.
	lengthMask = 1<<30 - 1

	kindLong    = 0 // the length follows; kinds up to 28 are a length in words
	kindPadding = 29
	kindExtend  = 30 // more bits of the time since the event before
	kindStamp   = 31 // an absolute time
	deltaBits   = 27
)

// EachEvent calls event with the time and data of each event of a page, and stops at data
// that is invalid. Times are of the buffer's clock.
func EachEvent(page []byte, event func(at time.Duration, data []byte)) {
	if len(page) < pageHeader {
		return
	}
	at := binary.NativeEndian.Uint64(page)
	length := binary.NativeEndian.Uint64(page[8:]) & lengthMask
	page = page[pageHeader:]
	if length < uint64(len(page)) {
		page = page[:length]
	}
	for len(page) >= 4 {
		e, ok := readEvent(page[4:], binary.NativeEndian.Uint32(page), at)
		if !ok {
			return
		}
		at = e.at
		if e.data != nil {
			event(time.Duration(at), e.data)
		}
		page = page[4+e.size:]
	}
}

// ringEvent is an event of a page.
type ringEvent struct {
	at   uint64 // ns
	data []byte // nil where it only changes the time or fills the page
	size uint64 // of all that follows its first word
}

// readEvent reads the event that begins with the word head and continues in rest; at is the
// time of the event before. It is false at the end of the events.
func readEvent(rest []byte, head uint32, at uint64) (ringEvent, bool) {
	kind, delta := head&31, uint64(head>>5)
	var word uint64 // that some kinds have after head
	if kind == kindLong || kind >= kindPadding {
		if len(rest) < 4 {
			return ringEvent{}, false
		}
		word = uint64(binary.NativeEndian.Uint32(rest))
	}
	e := ringEvent{at: at, size: word}
	skip := uint64(4) // where the data begins
	switch kind {
	case kindExtend:
		e.at += word<<deltaBits + delta
		e.size = 4
	case kindStamp:
		e.at = word<<deltaBits + delta
		e.size = 4
	case kindPadding:
		if delta == 0 {
			return ringEvent{}, false // padding to the end of the page
		}
	case kindLong:
		e.at += delta
	default:
		e.at += delta
		e.size, skip = uint64(kind)*4, 0
	}
	if e.size < skip || e.size > uint64(len(rest)) {
		return ringEvent{}, false
	}
	if kind < kindPadding {
		e.data = rest[skip:e.size]
	}
	e.size = min((e.size+3)&^3, uint64(len(rest)))
	return e, true
}
