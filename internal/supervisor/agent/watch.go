package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"

	"bawn.dev/bawn/internal/sys/lines"
	"bawn.dev/bawn/internal/wire"
)

// maxWatchLine bounds what the guest says at once about what is watched, in bytes: 65536 files
// of at most twenty digits.
const maxWatchLine = 2 << 20

// Watch is a stream of the kind wire.StreamWatch. Read and Send may be called by one goroutine
// each, at once.
type Watch struct {
	stream net.Conn
	in     *bufio.Reader
}

// OpenWatch opens a stream about shares. The caller closes it. When ctx ends first it returns
// the cause.
func (a *Client) OpenWatch(ctx context.Context, mounts []wire.Mount) (*Watch, error) {
	s, err := a.Open(ctx, wire.StreamHeader{Kind: wire.StreamWatch, Mounts: mounts})
	if err != nil {
		return nil, err
	}
	return &Watch{stream: s, in: bufio.NewReader(s)}, nil
}

// Close ends the stream. Calls under way fail.
func (w *Watch) Close() { w.stream.Close() }

// Read returns what the guest says next. An agent of an older build ends the stream at once:
// io.EOF.
func (w *Watch) Read() (r wire.WatchReply, err error) {
	line, err := lines.Read(w.in, maxWatchLine)
	if err == nil {
		err = json.Unmarshal(line, &r)
	}
	if err != nil {
		return r, fmt.Errorf("guest watches: %w", err)
	}
	return r, nil
}

// Send sends a batch of events. The guest says Done when it has played them.
func (w *Watch) Send(b wire.WatchBatch) error {
	line, err := json.Marshal(b)
	if err != nil {
		return err
	}
	if _, err := w.stream.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("guest watches: %w", err)
	}
	return nil
}
