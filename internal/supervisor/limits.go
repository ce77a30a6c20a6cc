package supervisor

import (
	"math"
	"os"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sys/budget"
)

// limits returns how much of each limit of the sandbox is in use. The limits of the
// share servers, which are processes of their own, are not among them.
func (s *supervisor) limits() []budget.Use {
	if s.network == nil {
		return nil
	}
	return s.network.account.List()
}

// accountFiles adds the open files of this process.
func accountFiles(a *budget.Account) {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return
	}
	a.Add("open files of the supervisor", int64(min(limit.Cur, math.MaxInt64)), func() int64 {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return 0
		}
		return int64(len(list))
	})
}
