package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"bawn.dev/bawn/internal/sys/lines"
	"bawn.dev/bawn/internal/wire"
)

// portsPause is the least time between two reports of ports. A guest that sends more of them
// waits, once the window of the stream is full.
const portsPause = 20 * time.Millisecond

// WatchPorts reports which of some ports can be connected on the guest's loopback: at once,
// and at each change, one call of report after the other. What the guest says about other
// ports is left out. It returns when ctx ends, with the cause, or when the guest ends the
// stream, as an agent of an older build does at once.
func (a *Client) WatchPorts(ctx context.Context, ports []uint16, report func(open []uint16)) error {
	s, err := a.Open(ctx, wire.StreamHeader{Kind: wire.StreamPorts, Ports: ports})
	if err != nil {
		return err
	}
	defer s.Close()
	release := interruptible(ctx, s.SetReadDeadline)
	defer release()
	asked := map[uint16]bool{}
	for _, p := range ports {
		asked[p] = true
	}
	for {
		line, err := lines.ReadExact(s, portsLine(len(ports)))
		if err != nil {
			return fmt.Errorf("guest ports: %w", sendError(ctx, err))
		}
		var r wire.PortsReply
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("guest ports: malformed report: %w", err)
		}
		var open []uint16
		for _, p := range r.Open {
			if asked[p] {
				open = append(open, p)
			}
		}
		report(open)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(portsPause):
		}
	}
}

// portsLine returns how long a report about n ports may be, in bytes: a port takes five
// digits and a comma.
func portsLine(n int) int { return 64 + 6*n }
