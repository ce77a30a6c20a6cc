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
