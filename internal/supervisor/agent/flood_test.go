package agent_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/yamux"

	"bawn.dev/bawn/internal/supervisor/agent"
	"bawn.dev/bawn/internal/supervisor/agent/agenttest"
	"bawn.dev/bawn/internal/wire"
)

// yamux frames (spec.md), as a hostile guest makes them.
const (
	data, window, ping, goAway = 0, 1, 2, 3
	syn, ack, fin, rst         = 1, 2, 4, 8
)

func frame(kind uint8, flags uint16, stream, length uint32) []byte {
	b := []byte{0, kind}
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint32(b, stream)
	return binary.BigEndian.AppendUint32(b, length)
}

// logged collects log lines.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// begin begins a mux session in which the guest writes its frames itself.
func begin(t *testing.T, a *agent.Client, g *agenttest.Guest) {
	t.Helper()
	begun := make(chan struct{})
	go func() {
		defer close(begun)
		r := g.Request(t)
		var m wire.MuxRequest
		_ = json.Unmarshal(r.Body, &m)
		g.Done(r)
		_, _ = io.ReadFull(g.Mux, make([]byte, len(m.Nonce)))
		_, _ = g.Mux.Write(m.Nonce)
	}()
	if err := a.StartMux(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-begun
}

// TestAFloodOnTheMuxPortEndsIt is an attack: frames of which the host keeps something for
// each. The guest reads nothing of what the host answers. The session ends, with a line in
// the log, before the host has kept more than a little.
func TestAFloodOnTheMuxPortEndsIt(t *testing.T) {
	const many = 100_000
	for name, attack := range map[string]func(i uint32) []byte{
		"pings":                         func(i uint32) []byte { return frame(ping, syn, 0, i) },
		"answers to pings":              func(i uint32) []byte { return frame(ping, ack, 0, i) },
		"streams":                       func(i uint32) []byte { return frame(window, syn, 2*i+2, 0) },
		"streams with odd numbers":      func(i uint32) []byte { return frame(window, syn, 2*i+3, 0) },
		"streams with data":             func(i uint32) []byte { return append(frame(data, syn, 2*i+2, 1), 'x') },
		"streams that end at once":      func(i uint32) []byte { return frame(window, syn|fin, 2*i+2, 0) },
		"the host's stream again":       func(uint32) []byte { return frame(window, syn, 1, 0) },
		"updates of streams not opened": func(i uint32) []byte { return frame(window, 0, 2*i+3, 1) },
		"data of streams not opened":    func(i uint32) []byte { return append(frame(data, 0, 2*i+3, 1), 'x') },
		"updates of stream 0":           func(uint32) []byte { return frame(window, 0, 0, 1) },
		"window updates":                func(uint32) []byte { return frame(window, 0, 1, 1) },
		"windows of 4 GiB":              func(uint32) []byte { return frame(window, 0, 1, 1<<32-1) },
		"acknowledgements":              func(uint32) []byte { return frame(window, ack, 1, 0) },
		"acknowledgements with data":    func(uint32) []byte { return append(frame(data, ack, 1, 1), 'x') },
		"frames of no data":             func(uint32) []byte { return frame(data, 0, 1, 0) },
		"data after the end":            func(uint32) []byte { return append(frame(data, fin, 1, 1), 'x') },
		"ends of a stream":              func(uint32) []byte { return frame(window, rst, 1, 0) },
		"a frame of 4 GiB":              func(uint32) []byte { return frame(data, 0, 1, 1<<32-1) },
		"farewells":                     func(uint32) []byte { return frame(goAway, 0, 0, 0) },
		"unknown frames":                func(uint32) []byte { return frame(9, 0, 1, 0) },
		"unknown flags":                 func(uint32) []byte { return frame(window, 1<<9, 1, 0) },
		"another version":               func(uint32) []byte { return append([]byte{1}, frame(window, 0, 1, 1)[1:]...) },
	} {
		t.Run(name, func(t *testing.T) {
			out := &logged{}
			a, g := agenttest.NewLogged(t, slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug})))
			begin(t, a, g)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			dialed := make(chan error, 1)
			go func() { _, err := a.DialTCP(ctx, 80); dialed <- err }() // stream 1
			if _, err := io.ReadFull(g.Mux, make([]byte, 12)); err != nil {
				t.Fatal(err)
			}
			before := runtime.NumGoroutine()
			var ended error
			most := 0
			for i := uint32(0); i < many && ended == nil; i += 100 {
				var b []byte
				for j := range uint32(100) {
					b = append(b, attack(i+j)...)
				}
				_ = g.Mux.SetWriteDeadline(time.Now().Add(10 * time.Second))
				_, ended = g.Mux.Write(b)
				most = max(most, runtime.NumGoroutine()-before)
			}
			if ended == nil {
				t.Errorf("%d frames were taken", many)
			}
			if most > 50 {
				t.Errorf("%d goroutines", most)
			}
			select {
			case err := <-dialed:
				if err == nil {
					t.Error("a stream goes on")
				}
			case <-time.After(10 * time.Second):
				t.Error("the session has not ended")
			}
			lines := strings.Count(out.String(), "\n")
			if !strings.Contains(out.String(), "violated the protocol of its mux port") || lines > 200 {
				t.Errorf("%d lines in the log: %.2000s", lines, out.String())
			}
		})
	}
}

// TestAnHonestGuestMayDoWhatItDoes: many streams one after the other, that end in each way,
// with much data in both directions.
func TestAnHonestGuestMayDoWhatItDoes(t *testing.T) {
	a, g := agenttest.New(t)
	const size = 8 << 20
	session(t, a, g, func(s *yamux.Stream) {
		defer s.Close()
		header := make([]byte, len(`{"kind":"ssh"}`)+1)
		if _, err := io.ReadFull(s, header); err != nil {
			return
		}
		one := make([]byte, 1)
		if _, err := io.ReadFull(s, one); err != nil {
			return
		}
		switch one[0] {
		case 'e': // the end at once, with the host's data unread
		case 's': // send
			_, _ = s.Write(make([]byte, size))
		case 'r': // receive, in small steps
			n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{s}, make([]byte, 1000))
			_ = json.NewEncoder(s).Encode(n)
		}
	})
	dial := func(what string) io.ReadWriteCloser {
		s, err := a.Open(t.Context(), wire.StreamHeader{Kind: wire.StreamSSH})
		if err == nil {
			_, err = io.WriteString(s, what)
		}
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for range 300 {
		s := dial("e")
		_, _ = s.Write(make([]byte, 3000))
		s.Close()
	}
	for range 3 {
		s := dial("s")
		if n, err := io.Copy(io.Discard, s); n != size || err != nil {
			t.Errorf("%d bytes came, %v", n, err)
		}
		s.Close()
		s = dial("r")
		if _, err := s.Write(make([]byte, size)); err != nil {
			t.Error(err)
		}
		s.Close() // of this side
		var n int
		if err := json.NewDecoder(s).Decode(&n); err != nil || n != size {
			t.Errorf("%d bytes went, %v", n, err)
		}
		s = dial("s") // of which nothing is read
		s.Close()
	}
	s := dial("r")
	s.Close()
	if _, err := io.ReadAll(s); err != nil {
		t.Errorf("after all of it: %v", err)
	}
}

// TestAGuestThatAcceptsNoStreamHoldsFewGoroutines is an attack: a guest that accepts no
// stream holds a goroutine for each attempt to open one, however short the attempt is.
func TestAGuestThatAcceptsNoStreamHoldsFewGoroutines(t *testing.T) {
	a, g := agenttest.New(t)
	begin(t, a, g)
	before := runtime.NumGoroutine()
	var dials sync.WaitGroup
	for range 1000 {
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, context.Canceled)
		dials.Go(func() {
			defer cancel()
			if _, err := a.DialTCP(ctx, 80); !errors.Is(err, context.Canceled) {
				t.Errorf("it ended with %v", err)
			}
		})
	}
	dials.Wait()
	if n := runtime.NumGoroutine() - before; n > 300 {
		t.Errorf("%d goroutines are left", n)
	}
}

func FuzzMuxFrames(f *testing.F) {
	f.Add(append(frame(data, ack, 1, 1), 'x'))
	f.Add(append(frame(window, ack, 1, 1<<19), frame(window, fin, 1, 0)...))
	f.Add(frame(ping, syn, 0, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, g := agenttest.New(t)
		begin(t, a, g)
		go func() { _, _ = io.Copy(io.Discard, g.Mux) }()
		go func() {
			_, _ = g.Mux.Write(b)
			g.Mux.Close()
		}()
		if _, err := a.DialTCP(t.Context(), 80); err == nil {
			t.Log("the guest accepted")
		}
	})
}
