package guest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/yamux"

	"bawn.dev/bawn/internal/sys/lines"
	"bawn.dev/bawn/internal/wire"
)

// deadlines is a port whose reads and writes can be interrupted.
type deadlines interface {
	io.ReadWriter
	SetDeadline(time.Time) error
}

// mux owns the mux port, on which there is at most one session at a time.
type mux struct {
	port  deadlines
	serve func(net.Conn) // called for each stream, in a goroutine

	mu      sync.Mutex
	current *muxEnd
}

// restart ends the session, if there is one, and starts a goroutine that begins another
// when the host has sent the nonce. It does not wait for that.
func (m *mux) restart(nonce []byte) error {
	if len(nonce) != wire.NonceLen {
		return fmt.Errorf("a nonce of %d bytes, not %d", len(nonce), wire.NonceLen)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.current != nil {
		m.current.Close()
		<-m.current.done
	}
	if err := m.port.SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("mux port: %w", err)
	}
	end := &muxEnd{port: m.port, in: bufio.NewReaderSize(m.port, 64<<10), done: make(chan struct{})}
	m.current = end
	go func() {
		defer close(end.done)
		if err := end.run(nonce, m.serve); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			log.Printf("mux: %v", err)
		}
	}()
	return nil
}

// muxEnd is one session's use of the port. Closing it interrupts its reads and writes; the
// port stays open for the next session.
type muxEnd struct {
	port deadlines
	in   *bufio.Reader
	done chan struct{}
}

func (e *muxEnd) Read(b []byte) (int, error)  { return e.in.Read(b) }
func (e *muxEnd) Write(b []byte) (int, error) { return e.port.Write(b) }
func (e *muxEnd) Close() error                { return e.port.SetDeadline(time.Unix(1, 0)) }

// run waits for the nonce, echoes it, and serves the session's streams until it ends.
func (e *muxEnd) run(nonce []byte, serve func(net.Conn)) error {
	if err := skipPast(e.in, nonce); err != nil {
		return err
	}
	if _, err := e.port.Write(nonce); err != nil {
		return err
	}
	s, err := yamux.Server(e, muxConfig())
	if err != nil {
		return err
	}
	defer s.Close()
	for {
		c, err := s.AcceptStream()
		if err != nil {
			return err
		}
		go serve(c)
	}
}

func muxConfig() *yamux.Config {
	cfg := yamux.DefaultConfig()
	cfg.EnableKeepAlive = false
	cfg.MaxStreamWindowSize = 1 << 20
	// The host may be paused, and the machine saved and restored much later: silence does
	// not mean that the peer is dead.
	const year = 365 * 24 * time.Hour
	cfg.ConnectionWriteTimeout = year
	cfg.StreamCloseTimeout = year
	cfg.LogOutput = nil
	cfg.Logger = log.New(io.Discard, "", 0)
	return cfg
}

// skipPast reads up to the end of the mark, and nothing after it.
func skipPast(r io.ByteReader, mark []byte) error {
	last := make([]byte, 0, 2*len(mark))
	for !bytes.Equal(last, mark) {
		b, err := r.ReadByte()
		if err != nil {
			return err
		}
		if len(last) == len(mark) {
			last = append(last[:0], last[1:]...)
		}
		last = append(last, b)
	}
	return nil
}

// maxHeader bounds the line of a StreamHeader, in bytes: it has short fields and a list of
// up to 65535 ports.
const maxHeader = wire.MaxLine

// readHeader reads a stream's first line, and no byte after it.
func readHeader(r io.Reader) (wire.StreamHeader, error) {
	var h wire.StreamHeader
	line, err := lines.ReadExact(r, maxHeader)
	if err != nil {
		return h, fmt.Errorf("stream header: %w", err)
	}
	return h, json.Unmarshal(line, &h)
}
