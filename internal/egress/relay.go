package egress

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"bawn.dev/bawn/internal/sys/relay"
)

const (
	// smallBuffer is held by an idle direction, largeBuffer by a busy one, in
	// bytes: a thousand idle connections must cost little.
	smallBuffer = 4 << 10
	largeBuffer = 64 << 10
	// maxLarge bounds the directions that have a large one at a time.
	maxLarge = 256
	// lingerTime is how long a refused client may take to read the refusal.
	lingerTime = 2 * time.Second
	// oneWayTime bounds what a client may still send after the server ended.
	oneWayTime = 10 * time.Minute
)

// The buffers are on the heap: one on the stack would make each goroutine's stack
// grow to twice its size.
var (
	smallBuffers = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
)

// largeInUse counts the large buffers that were handed out.
var largeInUse atomic.Int32

// takeLarge returns a large buffer, for giveLarge; nil when too many are in use.
func takeLarge() *[largeBuffer]byte {
	if largeInUse.Add(1) > maxLarge {
		largeInUse.Add(-1)
		return nil
	}
	return largeBuffers.Get().(*[largeBuffer]byte)
}

func giveLarge(b *[largeBuffer]byte) {
	largeBuffers.Put(b)
	largeInUse.Add(-1)
}

// copyStream copies until the source ends, when it returns nil. Each read is passed
// on at once. filter may change, hold or refuse what passes; nil passes all.
func copyStream(dst io.Writer, src io.Reader, filter func([]byte) ([]byte, error)) error {
	small := smallBuffers.Get().(*[smallBuffer]byte)
	var large *[largeBuffer]byte
	defer func() {
		smallBuffers.Put(small)
		if large != nil {
			giveLarge(large)
		}
	}()
	buf := small[:]
	for {
		n, err := src.Read(buf)
		if n > 0 {
			out := buf[:n]
			if filter != nil {
				var ferr error
				if out, ferr = filter(out); ferr != nil {
					return ferr
				}
			}
			if len(out) > 0 {
				if _, werr := dst.Write(out); werr != nil {
					return werr
				}
			}
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		switch {
		case n == len(buf) && large == nil:
			if large = takeLarge(); large != nil {
				buf = large[:]
			}
		case n <= smallBuffer/4 && large != nil:
			giveLarge(large)
			large, buf = nil, small[:]
		}
	}
}

// abort ends a connection with a reset, where the connection can.
func abort(c net.Conn) {
	switch h := c.(type) {
	case interface{ Abort() }:
		h.Abort()
	case interface{ SetLinger(int) error }:
		_ = h.SetLinger(0)
	}
	c.Close()
}

// refuse sends a last message (word) and ends the connection so that it arrives: a
// close with unread bytes would reset the connection before.
func refuse(c net.Conn, word []byte) {
	_ = c.SetDeadline(time.Now().Add(lingerTime))
	if _, err := c.Write(word); err == nil && relay.CloseWrite(c) == nil {
		_, _ = io.CopyN(io.Discard, c, 1<<20)
	}
	c.Close()
}

// through relays without inspection.
func (f *flow) through(req TCPRequest) {
	f.setApp("raw")
	up, err := f.connect()
	if err != nil {
		req.Reject()
		return
	}
	c, err := req.Accept()
	if err != nil || !f.add(c) {
		return
	}
	f.relay(c, c, up, nil)
}

// relay copies both ways until both have ended, or one has failed. client is
// where the guest's bytes are read from; j, unless it is nil, judges them.
func (f *flow) relay(client io.Reader, conn, up net.Conn, j judge) {
	var down sync.WaitGroup
	down.Go(func() { f.down(conn, up, up) })
	f.up(client, conn, up, j)
	down.Wait()
}

// down copies what the server sends.
func (f *flow) down(conn, up net.Conn, src io.Reader) {
	if err := copyStream(conn, src, nil); err != nil {
		abort(conn)
		abort(up)
		return
	}
	_ = relay.CloseWrite(conn)
	_ = conn.SetReadDeadline(time.Now().Add(oneWayTime))
}

// up copies what the client sends. An error of the judge is a denial.
func (f *flow) up(client io.Reader, conn, up net.Conn, j judge) {
	var refusal error
	var filter func([]byte) ([]byte, error)
	if j != nil {
		filter = func(b []byte) ([]byte, error) {
			b, refusal = j.Filter(b)
			return b, refusal
		}
	}
	err := copyStream(up, client, filter)
	if err == nil && j != nil {
		refusal = j.End()
	}
	if refusal != nil {
		f.refused(refusal.Error())
	}
	if err != nil || refusal != nil {
		abort(conn)
		abort(up)
		return
	}
	_ = relay.CloseWrite(up)
}
