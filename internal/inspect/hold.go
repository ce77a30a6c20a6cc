package inspect

import (
	"sync/atomic"
	"time"
)

// What is held back of an answer that streams, and what that tells.
//
// Theory of operation. A server may send a value in pieces. So the end of what came is held while it
// is the beginning of a value, and all else is passed on at once. That alone would cause two problems:
//
//   - A conversation would stop where a message ends by coincidence with what a value begins with. So
//     a beginning that is short enough for a coincidence is held for a moment only. The stream
//     remembers it, and still finds and replaces the rest of the value: if the server pauses there,
//     the guest gets these few characters.
//   - A guest whose text the server sends back (an echo) would learn a value character by character:
//     a right guess is held, a wrong one passes. So longer beginnings are counted, and those that
//     became the value are taken off the count. After a few of them the same number of bytes is held
//     of whatever comes from that host, until more comes or the answer ends, which tells the guest
//     nothing.
//
// The first characters in which the value and its placeholder agree are no secret, and do not
// count.

const (
	// maxGuesses is how many beginnings of a value may end a piece of an answer, for each host, in
	// the life of a gateway.
	maxGuesses = 3
	// chanceLength is the number of characters, beyond those that the placeholder has too, from which
	// on a beginning is taken for no coincidence. One text in 200,000 ends with three given characters.
	chanceLength = 3
	// chancePause is how long a shorter beginning is held. What a server writes at once comes sooner,
	// unless packets are lost.
	chancePause = 250 * time.Millisecond
)

// guesses counts what may be guesses at the values of one host. Safe for concurrent use.
type guesses struct{ n atomic.Int64 }

// add counts n more, or fewer, and reports whether there are too many.
func (g *guesses) add(n int) bool { return g != nil && g.n.Add(int64(n)) > maxGuesses }

// countsFrom returns the number of characters from which on a beginning of a value is counted as a guess. It
// is lower for a short value.
func countsFrom(value, placeholder string) int {
	same := 0
	for same < len(value) && same < len(placeholder) && value[same] == placeholder[same] {
		same++
	}
	return min(len(value), same+max(1, min(chanceLength, (len(value)-same)/2)))
}

// stream replaces texts in an answer as it passes.
type stream struct {
	swaps  *swaps
	all    []byte // what passed last, and behind it what is held
	passed int    // bytes of all that passed
	steps  int    // how often what is held was counted as a guess
	sure   bool   // what is held is too long for a coincidence
	blind  bool   // the same number of bytes is held whatever they are
}

func newStream(s *swaps) stream { return stream{swaps: s, blind: s.guesses.add(0)} }

// feed takes the next bytes, and returns what may pass, appended to dst, and how many texts were
// replaced. final: no more come.
func (s *stream) feed(dst, b []byte, final bool) (out []byte, hits int) {
	if len(b) == 0 && !final {
		return dst, 0
	}
	s.blind = s.blind || s.swaps.guesses.add(0) // guesses in other answers count for this one too
	held := s.passed                            // where it began, if anything was held
	s.all = append(s.all, b...)
	b = s.all
	out = dst
	for ; ; hits++ {
		start, end, to, ok := s.swaps.next(b)
		if !ok {
			break
		}
		if hits == 0 && start <= held {
			s.swaps.guesses.add(-s.steps) // it was none
		}
		if start >= s.passed {
			out = append(append(out, b[s.passed:start]...), to...)
		} else {
			out = append(out, to[min(len(to), s.passed-start):]...)
		}
		b, s.passed = b[end:], max(0, s.passed-end)
	}
	cut := max(s.passed, len(b)-s.hold(b, final))
	if out = append(out, b[s.passed:cut]...); len(out) > len(dst) {
		s.steps = 0 // what was held is the beginning of nothing, or of what was replaced
	}
	if s.sure {
		s.steps++
		s.blind = s.swaps.guesses.add(1) || s.blind
	}
	s.pass(b, cut)
	return out, hits
}

// hold returns how many bytes at the end of b are to be held, and sets sure.
func (s *stream) hold(b []byte, final bool) (n int) {
	s.sure = false
	switch {
	case final:
		return 0
	case s.blind:
		return s.swaps.longest - 1
	}
	n, s.sure = s.swaps.begun(b)
	return n
}

// pass notes that b passed up to cut.
func (s *stream) pass(b []byte, cut int) {
	keep := max(0, cut-s.swaps.passing)
	s.all, s.passed = append(s.all[:0], b[keep:]...), cut-keep
}

// patience returns how long what is held may wait for more; 0: without end.
func (s *stream) patience() time.Duration {
	if s.blind || s.sure || s.passed == len(s.all) {
		return 0
	}
	return s.swaps.pause
}

// release returns what is held, appended to dst.
func (s *stream) release(dst []byte) []byte {
	dst = append(dst, s.all[s.passed:]...)
	s.pass(s.all, len(s.all))
	return dst
}
