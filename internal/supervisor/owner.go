package supervisor

import (
	"context"
	"time"
)

// ownerPoll is how often a throwaway sandbox looks whether its owner lives.
const ownerPoll = 2 * time.Second

// watchOwner ends a throwaway sandbox when the bawn whose command it is for is gone
// without having removed it: it was killed. What is left is removed by close.
func (s *supervisor) watchOwner(ctx context.Context) {
	for {
		owned, err := s.dir.Owned()
		if err != nil {
			s.log.Error("cannot tell whether the owner lives", "error", err)
			return
		}
		if !owned {
			s.log.Info("the bawn that this sandbox was made for is gone")
			s.shutDown(true)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(ownerPoll):
		}
	}
}
