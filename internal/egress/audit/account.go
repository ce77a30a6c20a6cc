package audit

import "bawn.dev/bawn/internal/sys/budget"

// Account adds the limits of the log to a sandbox's account. A nil Log has none.
func (l *Log) Account(a *budget.Account) {
	if l == nil {
		return
	}
	a.Add("log entries that are counted", int64(kinds)*countedKeys, func() (n int64) {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, m := range l.meters {
			n += int64(len(m.counted))
		}
		return n
	})
}
