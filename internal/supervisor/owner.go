package supervisor

import (
	"context"
	"time"
)

// ownerPoll is the interval of checks whether the owner of a throwaway sandbox still runs.
const ownerPoll = 2 * time.Second

// watchOwner ends a throwaway sandbox when its owner, the bawn that runs a command in it,
// was killed and so did not remove it. close removes what is left. It returns when ctx
// ends.
func (s *supervisor) watchOwner(ctx context.Context) {
	for {
		owned, err := s.dir.Owned()
		if err != nil {
			s.log.Error("cannot find out whether the bawn command that owns this sandbox still runs", "error", err)
			return
		}
		if !owned {
			s.log.Info("the bawn command that owns this sandbox has ended")
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
