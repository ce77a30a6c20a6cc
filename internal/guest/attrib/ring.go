package attrib

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
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

// eachEvent calls event with the time and data of each event of a page, and stops at data
// that is invalid. Times are of the buffer's clock.
func eachEvent(page []byte, event func(at time.Duration, data []byte)) {
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

// layout is the positions of the fields in one kind of event.
type layout struct {
	proto           string
	pid, port, comm int // offsets; at comm is a word: the name's offset, and above 16 bits its length
}

// parseLayout reads the format file of an event.
func parseLayout(proto, format string) (layout, error) {
	offsets := map[string]int{}
	for line := range strings.Lines(format) {
		field, rest, _ := strings.Cut(strings.TrimSpace(line), ";")
		offset, _, _ := strings.Cut(strings.TrimSpace(rest), ";")
		text, ok := strings.CutPrefix(offset, "offset:")
		n, err := strconv.Atoi(text)
		if words := strings.Fields(field); ok && err == nil && len(words) > 1 {
			offsets[words[len(words)-1]] = n
		}
	}
	l := layout{proto: proto}
	for name, at := range map[string]*int{"common_pid": &l.pid, "port": &l.port, "comm": &l.comm} {
		n, ok := offsets[name]
		if !ok {
			return layout{}, errors.New("trace: an event without " + name)
		}
		*at = n
	}
	return l, nil
}

// note reads one event. It is false for an event that does not fit the layout.
func (l layout) note(at time.Duration, data []byte) (tracedPort, note, bool) {
	if len(data) < l.pid+4 || len(data) < l.port+2 || len(data) < l.comm+4 {
		return tracedPort{}, note{}, false
	}
	where := binary.NativeEndian.Uint32(data[l.comm:])
	from, length := int(where&0xffff), int(where>>16)
	if from+length > len(data) {
		return tracedPort{}, note{}, false
	}
	name, _, _ := bytes.Cut(data[from:from+length], []byte{0})
	n := note{int(int32(binary.NativeEndian.Uint32(data[l.pid:]))), string(name), at}
	return tracedPort{l.proto, binary.NativeEndian.Uint16(data[l.port:])}, n, n.task > 0
}

// eventID returns the number of an event's kind, with which its data begins.
func eventID(data []byte) (uint16, bool) {
	if len(data) < 2 {
		return 0, false
	}
	return binary.NativeEndian.Uint16(data), true
}

// parseID reads the id file of an event.
func parseID(text string) (uint16, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 16)
	if err != nil {
		return 0, fmt.Errorf("trace: the number of an event: %w", err)
	}
	return uint16(n), nil
}
