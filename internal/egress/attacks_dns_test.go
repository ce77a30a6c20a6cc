package egress

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
)

// TestAttackNamesWithManyAddresses: names below a domain of the guest's friends have thousands of addresses each. Few are
// kept.
func TestAttackNamesWithManyAddresses(t *testing.T) {
	l := newLab(t, testRules{"**.evil.example:5432"}, func(c *Config) {
		c.Resolve = func(context.Context, string) (list []netip.Addr, err error) {
			for i := range 4000 { // what a message of DNS has room for
				list = append(list, netip.AddrFrom4([4]byte{127, 0, byte(i >> 8), byte(i)}))
			}
			return list, nil
		}
	})
	for i := range 20 {
		if c, err := l.dialName(fmt.Sprintf("n%d.evil.example", i), 5432); err == nil {
			c.Close()
		}
	}
	kept := 0
	l.dialer.mu.Lock()
	defer l.dialer.mu.Unlock()
	for _, r := range l.dialer.cache {
		kept += cap(r.addrs)
	}
	if kept == 0 || kept > 20*2*maxAddresses {
		t.Errorf("%d addresses are kept", kept)
	}
}
