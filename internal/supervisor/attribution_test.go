package supervisor

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"bawn.dev/bawn/internal/wire"
)

// TestAttribution: what comes up while the guest is asked goes together in one query
// more, each caller gets the answer about its own flow, and a guest that answers
// too little or never holds up nobody for good.
func TestAttribution(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var sizes []int
		answer := make(chan int) // how many of the next question
		a := &attribution{query: func(ctx context.Context, list []wire.ProcessRequest) ([]wire.ProcessReply, error) {
			sizes = append(sizes, len(list))
			select {
			case n := <-answer:
				var out []wire.ProcessReply
				for _, r := range list[:n] {
					out = append(out, wire.ProcessReply{PID: int(r.Src.Port()), Name: "a-name-that-is-too-long"})
				}
				return out, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}}
		got := map[uint16]chan string{}
		ask := func(port uint16) {
			c := make(chan string, 1)
			got[port] = c
			go func() {
				c <- a.process(ctx, "tcp", netip.AddrPortFrom(netip.IPv4Unspecified(), port), netip.AddrPort{})
			}()
			synctest.Wait()
		}
		ask(1)
		time.Sleep(queryDelay)
		synctest.Wait()
		for port := range uint16(3) {
			ask(port + 2)
		}
		answer <- 1
		answer <- 2 // of three
		for port, want := range map[uint16]string{1: "a-name-that-is-[1]", 2: "a-name-that-is-[2]", 3: "a-name-that-is-[3]", 4: ""} {
			if name := <-got[port]; name != want {
				t.Errorf("%d: %q, want %q", port, name, want)
			}
		}
		ask(5)
		time.Sleep(queryDelay)
		synctest.Wait()
		ask(6)
		cancel()
		if five, six := <-got[5], <-got[6]; five != "" || six != "" {
			t.Errorf("without an answer: %q, %q", five, six)
		}
		a.close()
		if s := fmt.Sprint(sizes); s != "[1 3 1 1]" && s != "[1 3 1]" {
			t.Errorf("questions of %s", s)
		}
	})
}
