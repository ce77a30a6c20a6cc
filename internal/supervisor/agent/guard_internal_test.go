package agent

import (
	"bytes"
	"encoding/binary"
	"io"
	"log/slog"
	"strings"
	"testing"
)

// port is a mux port on which the guest says what is in the buffer.
type port struct{ bytes.Buffer }

func (*port) Write(b []byte) (int, error) { return len(b), nil }
func (*port) Close() error                { return nil }

// header returns a window frame without a window.
func header(flags uint16, stream uint32) []byte {
	b := []byte{0, frameWindow}
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint32(b, stream)
	return binary.BigEndian.AppendUint32(b, 0)
}

// TestAGuestThatAcknowledgesNothing ends each stream that the host opens, and acknowledges none:
// yamux keeps some bytes of each for as long as the session lasts.
func TestAGuestThatAcknowledgesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		flags uint16
		fails bool
	}{"nothing": {flagFIN, true}, "everything": {flagACK | flagFIN, false}} {
		t.Run(name, func(t *testing.T) {
			p := &port{}
			g := newGuard(p, slog.New(slog.DiscardHandler))
			in := make([]byte, frameHeaderLen)
			var err error
			for i := 0; i < maxUnacknowledged+1 && err == nil; i++ {
				id := uint32(2*i + 1)
				if _, err = g.Write(append(header(flagSYN, id), header(flagFIN, id)...)); err != nil {
					break
				}
				p.Buffer.Write(header(c.flags, id))
				_, err = io.ReadFull(g, in)
			}
			if failed := err != nil && strings.Contains(err.Error(), "never acknowledged"); failed != c.fails {
				t.Errorf("%v", err)
			}
			if len(g.streams) > 1 {
				t.Errorf("%d streams are kept", len(g.streams))
			}
		})
	}
}
