package session

import (
	"bytes"
	"io"
	"strconv"
	"strings"
	"sync"
)

// screen is the person's terminal as a command writes to it. It notes which modes the
// command has set, so that they can be put back when the command cannot do so itself: it
// was killed, or its sandbox has ended.
//
// Theory of operation. The modes that matter are set by a few control sequences (ECMA-48,
// section 5.4; xterm's ctlseqs): CSI ? Pm h and CSI ? Pm l for private modes, CSI > u and
// CSI < u for kitty's keyboard protocol, CSI > 4 ; n m for xterm's modifyOtherKeys, ESC =
// and ESC > for the keypad, ESC c for a reset. Everything else passes unseen: the output is
// searched for ESC, and only what follows is looked at, byte by byte.
type screen struct {
	to io.Writer

	mu       sync.Mutex
	sequence []byte       // an unfinished control sequence, from ESC on
	set      map[int]bool // private modes that are not as they were
	kitty    int          // entries on the stack of kitty's keyboard modes
	keys     bool         // modifyOtherKeys is set
	keypad   bool         // the keypad sends application codes
}

// initially maps the private modes that are put back to their initial state (DECSET of
// xterm's ctlseqs). Others, such as the wrap mode, do no harm to a shell.
var initially = map[int]bool{
	1: false, 25: true, 47: false, 1047: false, 1049: false,
	9: false, 1000: false, 1001: false, 1002: false, 1003: false, 1004: false, 1005: false, 1006: false, 1015: false, 1016: false,
	2004: false, 2026: false, 2031: false,
}

// maxSequence bounds a control sequence that is waited for, in bytes. A longer one is none
// of those above.
const maxSequence = 64

func (s *screen) Write(b []byte) (int, error) {
	s.note(b)
	return s.to.Write(b)
}

// note follows the output.
func (s *screen) note(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(b) > 0 {
		if len(s.sequence) == 0 {
			i := bytes.IndexByte(b, '\x1b')
			if i < 0 {
				return
			}
			s.sequence, b = append(s.sequence, '\x1b'), b[i+1:]
			continue
		}
		s.next(b[0])
		b = b[1:]
	}
}

// next takes the next byte of a control sequence.
func (s *screen) next(c byte) {
	if c == '\x1b' { // begins another one
		s.sequence = s.sequence[:1]
		return
	}
	s.sequence = append(s.sequence, c)
	switch n := len(s.sequence); {
	case n == 2 && c == '[': // CSI
	case n == 2:
		s.escape(c)
		s.sequence = s.sequence[:0]
	case c >= 0x40 && c <= 0x7e: // the final byte
		s.control(string(s.sequence[2:n-1]), c)
		s.sequence = s.sequence[:0]
	case c < 0x20 || c > 0x7e || n >= maxSequence:
		s.sequence = s.sequence[:0]
	}
}

func (s *screen) escape(c byte) {
	switch c {
	case '=':
		s.keypad = true
	case '>':
		s.keypad = false
	case 'c': // RIS
		s.set, s.kitty, s.keys, s.keypad = nil, 0, false, false
	}
}

func (s *screen) control(parameters string, final byte) {
	private, isPrivate := strings.CutPrefix(parameters, "?")
	switch {
	case isPrivate && (final == 'h' || final == 'l'):
		for p := range strings.SplitSeq(private, ";") {
			mode, err := strconv.Atoi(p)
			if was, ok := initially[mode]; err == nil && ok {
				s.change(mode, was != (final == 'h'))
			}
		}
	case final == 'u' && strings.HasPrefix(parameters, ">"):
		s.kitty++
	case final == 'u' && strings.HasPrefix(parameters, "<"):
		n, err := strconv.Atoi(parameters[1:])
		if err != nil {
			n = 1
		}
		s.kitty = max(0, s.kitty-n)
	case final == 'm' && strings.HasPrefix(parameters, ">4"):
		value := strings.TrimPrefix(parameters[2:], ";")
		s.keys = value != "" && value != "0"
	}
}

func (s *screen) change(mode int, changed bool) {
	if s.set == nil {
		s.set = map[int]bool{}
	}
	if changed {
		s.set[mode] = true
	} else {
		delete(s.set, mode)
	}
}

// restore puts the modes back that the command has left set. The alternate screen comes
// last, since some modes belong to a screen.
func (s *screen) restore() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out strings.Builder
	if s.kitty > 0 {
		out.WriteString("\x1b[<" + strconv.Itoa(s.kitty) + "u")
	}
	if s.keys {
		out.WriteString("\x1b[>4m")
	}
	if s.keypad {
		out.WriteString("\x1b>")
	}
	for _, last := range []bool{false, true} {
		for mode := range s.set {
			if alternate := mode == 47 || mode == 1047 || mode == 1049; alternate != last {
				continue
			}
			final := "l"
			if initially[mode] {
				final = "h"
			}
			out.WriteString("\x1b[?" + strconv.Itoa(mode) + final)
		}
	}
	s.set, s.kitty, s.keys, s.keypad = nil, 0, false, false
	if out.Len() > 0 {
		_, _ = io.WriteString(s.to, out.String()+"\x1b[0m")
	}
}
