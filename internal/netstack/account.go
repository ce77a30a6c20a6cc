package netstack

import "bawn.dev/bawn/internal/sys/budget"

// Account adds the limits of the stack to a sandbox's account.
func (s *Stack) Account(a *budget.Account) {
	datagrams := func(count func(*associations) int) func() int64 {
		return func() int64 {
			s.udp.mu.Lock()
			defer s.udp.mu.Unlock()
			return int64(count(&s.udp))
		}
	}
	a.Add("TCP connections", int64(s.cfg.MaxTCP), s.open.Load)
	a.Add("TCP connections with large buffers", roomyConns, s.roomy.Load)
	a.Add("UDP associations that wait", maxUDPWait, datagrams(func(u *associations) int { return u.waiting }))
	a.Add("bytes of datagrams that wait", maxUDPQueues, datagrams(func(u *associations) int { return u.bytes }))
	a.Add("bytes of fragments", maxFragmentBytes, s.link.frags.held.Load)
}
