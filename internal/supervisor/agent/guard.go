package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
)

// Layout of a yamux frame's header, all big-endian (yamux, spec.md): version and type, 8
// bits each; flags, 16 bits; stream and length, 32 bits each. The length is that of the
// data that follows, or the growth of a window.
const (
	frameHeaderLen = 12

	frameData   = 0
	frameWindow = 1
	framePing   = 2
	frameGoAway = 3

	flagSYN  = 1 << 0
	flagACK  = 1 << 1
	flagFIN  = 1 << 2
	flagRST  = 1 << 3
	allFlags = flagSYN | flagACK | flagFIN | flagRST
)

// Bounds of what a guest may send beside the data of streams (see Client). An honest one
// sends a window update with each half of a window that it has read, and few others.
const (
	maxWindow        = 1 << 20  // bytes, of a stream
	freeUpdates      = 16       // window updates of a stream, and
	bytesPerUpdate   = 64 << 10 // one more for each so many bytes that the host sent
	freeLate         = 64       // frames of streams that have ended, and
	latePerStream    = 8        // so many more for each stream that was opened, and
	latePerReset     = 4096     // for each that the host gave up while the guest was sending
	maxGoAway        = 1
	maxStreams       = 1024 // open at once
	maxTCPStreams    = 896  // of them, those to ports of the guest
	maxStreamsOpened = 256  // that are being opened at once
	// maxUnacknowledged bounds the streams of a session that ended before the guest had
	// acknowledged them: yamux keeps some bytes of each (Session.inflight). An honest guest
	// leaves one unacknowledged only if its end came before it was accepted.
	maxUnacknowledged = 256 << 10
)

// guard is the mux port as yamux sees it. It judges each frame of the guest's before yamux
// acts on it, because yamux keeps something for many of them: a goroutine for each ping, a
// stream for each SYN, a log line for each stray frame. The first frame that no honest
// agent sends ends the session.
//
// One goroutine reads and one writes, as yamux does.
type guard struct {
	io.ReadWriteCloser
	log *slog.Logger

	in, out frames

	mu      sync.Mutex
	streams map[uint32]*traffic // those that have not ended
	last    uint32              // the last stream that the host opened
	late    int                 // frames of ended streams that the guest may still send
	goAways int
	unacked int // streams that ended before the guest acknowledged them
	broken  error
}

// traffic is what guard counts of one stream.
type traffic struct {
	sent    uint64 // bytes of data to the guest
	granted uint64 // by which the guest let its window grow
	updates uint64 // how often it did

	acked                 bool
	hostEnded, guestEnded bool
}

func newGuard(port io.ReadWriteCloser, log *slog.Logger) *guard {
	return &guard{ReadWriteCloser: port, log: log, streams: map[uint32]*traffic{}, late: freeLate}
}

// frame is a header.
type frame struct {
	version, kind uint8
	flags         uint16
	stream        uint32
	length        uint32
}

// frames takes a stream of bytes apart into frames.
type frames struct {
	header []byte // what has come of the next one
	data   uint64 // bytes of data before it
}

// split calls judge for each header that ends in b.
func (s *frames) split(b []byte, judge func(frame) error) error {
	for len(b) > 0 {
		if s.data > 0 {
			n := min(s.data, uint64(len(b)))
			s.data -= n
			b = b[n:]
			continue
		}
		n := min(frameHeaderLen-len(s.header), len(b))
		s.header = append(s.header, b[:n]...)
		b = b[n:]
		if len(s.header) < frameHeaderLen {
			return nil
		}
		h := s.header
		f := frame{h[0], h[1], binary.BigEndian.Uint16(h[2:]), binary.BigEndian.Uint32(h[4:]), binary.BigEndian.Uint32(h[8:])}
		s.header = s.header[:0]
		if f.kind == frameData {
			s.data = uint64(f.length)
		}
		if err := judge(f); err != nil {
			return err
		}
	}
	return nil
}

// Read reads from the guest. It returns no byte of a frame that is refused.
func (g *guard) Read(b []byte) (int, error) {
	if g.broken != nil {
		return 0, g.broken
	}
	n, err := g.ReadWriteCloser.Read(b)
	if refused := g.in.split(b[:n], g.fromGuest); refused != nil {
		g.broken = fmt.Errorf("guest agent: mux port: %w", refused)
		g.log.Warn("the guest violated the protocol of its mux port, which was closed: sessions and port forwards end; restart the sandbox to open new ones", "error", refused)
		return 0, g.broken
	}
	return n, err
}

// Write writes to the guest.
func (g *guard) Write(b []byte) (int, error) {
	if err := g.out.split(b, g.fromHost); err != nil {
		return 0, err
	}
	return g.ReadWriteCloser.Write(b)
}

// fromHost notes a frame that yamux sends.
func (g *guard) fromHost(f frame) error {
	if f.kind != frameData && f.kind != frameWindow {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if f.flags&flagSYN != 0 {
		g.streams[f.stream] = &traffic{}
		g.last = max(g.last, f.stream)
		g.late += latePerStream
	}
	s := g.streams[f.stream]
	if s == nil {
		return nil
	}
	if f.kind == frameData {
		s.sent += uint64(f.length)
	}
	if f.flags&flagRST != 0 && !s.guestEnded {
		g.late += latePerReset
	}
	return g.note(s, f, &s.hostEnded)
}

// note notes the end of one side of a stream, and forgets a stream that has ended. It returns
// an error if that was one unacknowledged stream too many. The caller holds the mutex.
func (g *guard) note(s *traffic, f frame, ended *bool) error {
	if f.flags&flagFIN != 0 {
		*ended = true
	}
	if f.flags&flagRST == 0 && (!s.hostEnded || !s.guestEnded) {
		return nil
	}
	delete(g.streams, f.stream)
	if s.acked {
		return nil
	}
	if g.unacked++; g.unacked > maxUnacknowledged {
		return errors.New("too many streams ended that were never acknowledged")
	}
	return nil
}

// fromGuest returns the error for a frame that no honest guest sends.
func (g *guard) fromGuest(f frame) error {
	if f.version != 0 || f.flags&^uint16(allFlags) != 0 {
		return fmt.Errorf("a frame of version %d with flags %#x", f.version, f.flags)
	}
	switch f.kind {
	case framePing:
		return errors.New("a ping, which neither side may send")
	case frameGoAway:
		if g.goAways++; g.goAways > maxGoAway {
			return errors.New("more than one GoAway frame")
		}
		return nil
	case frameData, frameWindow:
		return g.ofStream(f)
	}
	return fmt.Errorf("a frame of unknown type %d", f.kind)
}

// ofStream is fromGuest for the frames of streams.
func (g *guard) ofStream(f frame) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch s := g.streams[f.stream]; {
	case f.flags&flagSYN != 0:
		return errors.New("a new stream, which only the host may open")
	case f.stream > g.last || f.stream%2 == 0: // the host's have odd numbers
		return fmt.Errorf("a frame of stream %d, which was never opened", f.stream)
	case f.kind == frameData && f.length == 0 && f.flags == 0:
		return errors.New("a data frame without data")
	case f.kind == frameData && f.length > maxWindow:
		return fmt.Errorf("a data frame of %d bytes is too long", f.length)
	case s == nil:
		if g.late--; g.late < 0 {
			return errors.New("too many frames of streams that have ended")
		}
	default:
		if err := s.fromGuest(f); err != nil {
			return err
		}
		return g.note(s, f, &s.guestEnded)
	}
	return nil
}

// fromGuest counts a frame of the stream's.
func (s *traffic) fromGuest(f frame) error {
	if s.guestEnded && f.kind == frameData {
		return errors.New("data after the stream's end")
	}
	if f.flags&flagACK != 0 {
		if s.acked { // yamux would take it for that of another stream
			return errors.New("a stream is acknowledged twice")
		}
		s.acked = true
	}
	if f.kind != frameWindow {
		return nil
	}
	s.updates++
	s.granted += uint64(f.length)
	if s.updates > freeUpdates+s.sent/bytesPerUpdate {
		return errors.New("too many window updates")
	}
	if s.granted > maxWindow+s.sent {
		return errors.New("a window update beyond the largest window")
	}
	return nil
}
