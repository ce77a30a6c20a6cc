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

// The kernel's trace buffer as it lies in memory (Documentation/trace/
// ring-buffer-design.rst; the layout is what events/header_page and
// events/header_event say). Reading it so spares the kernel the text and us the
// reading of that: together a twentieth of the cost of a connection under emulation.
//
// A page is a time in ns, a length, and events. An event begins with 32 bits, of
// which five are its kind and 27 the time since the event before.

const (
	pageHeader = 16 // bytes: time and length
	// lengthMask leaves out the flags that say that events were lost.
	lengthMask = 1<<30 - 1

	kindLong    = 0 // the length follows; kinds up to 28 are a length in words
	kindPadding = 29
	kindExtend  = 30 // more bits of the time since
	kindStamp   = 31 // the time itself
	deltaBits   = 27
)

// eachEvent gives the events of a page and their times. What makes no sense ends it.
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
		head := binary.NativeEndian.Uint32(page)
		kind, delta := head&31, uint64(head>>5)
		data := page[4:]
		var word uint64 // the next, which some kinds have
		if kind == kindLong || kind >= kindPadding {
			if len(data) < 4 {
				return
			}
			word = uint64(binary.NativeEndian.Uint32(data))
		}
		size, skip := word, uint64(4) // of the data, of which so much is no event's
		switch kind {
		case kindExtend:
			at += word<<deltaBits + delta
			size = 4
		case kindStamp:
			at = word<<deltaBits + delta
			size = 4
		case kindPadding:
			if delta == 0 {
				return // to the end
			}
		case kindLong:
			at += delta
		default:
			at += delta
			size, skip = uint64(kind)*4, 0
		}
		if size < skip || size > uint64(len(data)) {
			return
		}
		if kind < kindPadding {
			event(time.Duration(at), data[skip:size])
		}
		page = data[min((size+3)&^3, uint64(len(data))):]
	}
}

// layout is where the fields of an event of ours are.
type layout struct {
	proto           string
	pid, port, comm int // offsets; comm's is of a word: offset, and length above 16 bits
}

// parseLayout reads an event's format file.
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

// note reads an event.
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

// eventID is the number by which an event begins.
func eventID(data []byte) (uint16, bool) {
	if len(data) < 2 {
		return 0, false
	}
	return binary.NativeEndian.Uint16(data), true
}

// parseID reads an event's id file.
func parseID(text string) (uint16, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 16)
	if err != nil {
		return 0, fmt.Errorf("trace: the number of an event: %w", err)
	}
	return uint16(n), nil
}
