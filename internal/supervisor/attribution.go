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

// queryDelay is how long a query waits for others that are batched with it: long enough that the
// guest shakes hands with the server first, and much shorter than the log waits for the
// answer. The guest's records of connections live for seconds.
const queryDelay = 50 * time.Millisecond

// processQuery asks the guest which processes flows belong to. The replies are in the order
// of the requests.
type processQuery func(context.Context, []wire.ProcessRequest) ([]wire.ProcessReply, error)

// attribution finds the processes in the guest that flows belong to. One query is
// under way at a time; flows that arrive meanwhile are batched in the next one. A message to
// the guest wakes it up, which takes longer than the answer, and during a burst of
// connections the guest is busy.
type attribution struct {
	query processQuery
	tasks sync.WaitGroup

	mu      sync.Mutex
	busy    bool
	closed  bool
	waiting []flowQuery
}

// flowQuery is a query about one flow.
type flowQuery struct {
	request wire.ProcessRequest
	reply   chan wire.ProcessReply // has room for it
}

// process implements egress.ProcessFunc. It waits for the reply as long as that
// takes: egress counts the queries without one, so a guest that never answers
// fills neither the port nor the list.
func (a *attribution) process(ctx context.Context, proto string, src, dst netip.AddrPort) string {
	q := flowQuery{wire.ProcessRequest{Proto: proto, Src: src, Dst: dst}, make(chan wire.ProcessReply, 1)}
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		return ""
	}
	a.waiting = append(a.waiting, q)
	if !a.busy {
		a.busy = true
		a.tasks.Go(func() { a.run(ctx) })
	}
	a.mu.Unlock()
	select {
	case hint := <-q.reply:
		return processHint(hint)
	case <-ctx.Done():
		return ""
	}
}

// run sends queries until none is waiting.
func (a *attribution) run(ctx context.Context) {
	for {
		select {
		case <-time.After(queryDelay):
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
		replies, err := a.query(ctx, requests)
		for i, q := range list {
			var hint wire.ProcessReply // a flow without a process is no error
			if err == nil && i < len(replies) {
				hint = replies[i]
			}
			q.reply <- hint
		}
	}
}

// close prevents new queries and returns when none is under way. The contexts of all
// callers must have ended.
func (a *attribution) close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.tasks.Wait()
}

// processHint returns a process as the network log names it, or empty.
func processHint(p wire.ProcessReply) string {
	if p.PID <= 0 || p.Name == "" {
		return ""
	}
	if len(p.Name) > maxComm {
		p.Name = p.Name[:maxComm]
	}
	return fmt.Sprintf("%s[%d]", p.Name, p.PID)
}

// askProcesses asks the agent, and implements processQuery.
func (s *supervisor) askProcesses(ctx context.Context, list []wire.ProcessRequest) ([]wire.ProcessReply, error) {
	var replies []wire.ProcessReply
	if err := s.machine.agent.Call(ctx, wire.OpProcess, list, &replies); err != nil {
		return nil, err
	}
	return replies, nil
}
