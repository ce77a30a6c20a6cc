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

// askDelay is how long a question waits for others to go with it: long enough
// that the guest shakes hands with the server first, and much shorter than the log
// waits for the answer. The guest's notes of who connected live for seconds.
const askDelay = 50 * time.Millisecond

// asker asks whose flows are. One question is on its way at a time, and what comes
// up meanwhile goes together in the next: a message to the guest wakes it up,
// which takes longer than the answer, and a burst of connections is when the guest
// has other things to do.
type asker struct {
	ask func(context.Context, []wire.ProcessRequest) ([]wire.ProcessReply, error)

	mu      sync.Mutex
	busy    bool
	waiting []question
}

type question struct {
	request wire.ProcessRequest
	reply   chan wire.ProcessReply // has room for it
}

// process implements egress.ProcessFunc. It waits for the reply as long as that
// takes: egress counts the questions without one, so a guest that never answers
// fills neither the port nor the list.
func (a *asker) process(ctx context.Context, proto string, src, dst netip.AddrPort) string {
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
	case who := <-q.reply:
		return processText(who)
	case <-ctx.Done():
		return ""
	}
}

// serve asks until nothing waits.
func (a *asker) serve(ctx context.Context) {
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
			var who wire.ProcessReply // a flow without a name is no event
			if err == nil && i < len(replies) {
				who = replies[i]
			}
			q.reply <- who
		}
	}
}

// processText is what the log says of a process.
func processText(who wire.ProcessReply) string {
	if who.PID <= 0 || who.Name == "" {
		return ""
	}
	if len(who.Name) > maxComm {
		who.Name = who.Name[:maxComm]
	}
	return fmt.Sprintf("%s[%d]", who.Name, who.PID)
}

// processes asks the agent, once there is one.
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
