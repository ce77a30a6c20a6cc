package supervisor

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"bawn.dev/bawn/internal/wire"
)

// maxComm is the longest name that Linux keeps of a process, in bytes.
const maxComm = 15

// askDelay is how long a question waits for others to go with it: long enough that
// the guest's handshake with the server comes first, and much shorter than the log
// waits for the answer. The guest remembers for seconds which process connected.
const askDelay = 50 * time.Millisecond

// attribution asks the guest which processes began flows. One question is on its way
// at a time, and those that come up meanwhile go together in the next: a message
// wakes the guest up, which takes longer than the answer, and during a burst of
// connections the guest has other work.
type attribution struct {
	ask func(context.Context, []wire.ProcessRequest) ([]wire.ProcessReply, error)

	mu      sync.Mutex
	busy    bool
	waiting []question
}

type question struct {
	request wire.ProcessRequest
	reply   chan wire.ProcessReply // has room for it
}

// process implements egress.ProcessFunc. It waits for the reply until ctx ends:
// egress bounds the questions without a reply, so a guest that never answers fills
// neither the port nor the list.
func (a *attribution) process(ctx context.Context, proto string, src, dst netip.AddrPort) string {
	q := question{wire.ProcessRequest{Proto: proto, Src: src, Dst: dst}, make(chan wire.ProcessReply, 1)}
	a.mu.Lock()
	a.waiting = append(a.waiting, q)
	first := !a.busy
	a.busy = true
	a.mu.Unlock()
	if first {
		go a.serve(ctx)
	}
	select {
	case p := <-q.reply:
		return processText(p)
	case <-ctx.Done():
		return ""
	}
}

// serve asks until no question waits.
func (a *attribution) serve(ctx context.Context) {
	for {
		select {
		case <-time.After(askDelay):
		case <-ctx.Done():
		}
		a.mu.Lock()
		list := a.waiting
		a.waiting = nil
		a.busy = len(list) > 0
		a.mu.Unlock()
		if len(list) == 0 {
			return
		}
		requests := make([]wire.ProcessRequest, 0, len(list))
		for _, q := range list {
			requests = append(requests, q.request)
		}
		replies, err := a.ask(ctx, requests)
		for i, q := range list {
			var p wire.ProcessReply // a flow may stay without a name
			if err == nil && i < len(replies) {
				p = replies[i]
			}
			q.reply <- p
		}
	}
}

// processText returns a process as the log shows it: NAME[PID].
func processText(p wire.ProcessReply) string {
	if p.PID <= 0 || p.Name == "" {
		return ""
	}
	if len(p.Name) > maxComm {
		p.Name = p.Name[:maxComm]
	}
	return fmt.Sprintf("%s[%d]", p.Name, p.PID)
}

// processes asks the agent. Before there is one it returns nothing.
func (n *network) processes(ctx context.Context, list []wire.ProcessRequest) ([]wire.ProcessReply, error) {
	a := n.agent.Load()
	if a == nil {
		return nil, nil
	}
	var replies []wire.ProcessReply
	if err := a.Call(ctx, wire.OpProcess, list, &replies); err != nil {
		return nil, err
	}
	return replies, nil
}
