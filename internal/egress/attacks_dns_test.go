package egress

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/policy"
)

// TestAttackNamesWithManyAddresses: a name below a domain of the guest's friends has thousands of addresses. They are not
// kept, and none of them is dialled unjudged, also where a proxy is asked for the name.
func TestAttackNamesWithManyAddresses(t *testing.T) {
	many := make([]netip.Addr, 0, 4000) // what a message of DNS has room for
	for i := range cap(many) {
		many = append(many, netip.AddrFrom4([4]byte{203, byte(i >> 8), byte(i), 1}))
	}
	many[len(many)-1] = netip.MustParseAddr("127.0.0.1")
	dials := 0
	d := &dialer{
		resolve: func(context.Context, string) ([]netip.Addr, error) { return many, nil },
		dial: func(context.Context, string, string) (net.Conn, error) {
			dials++
			return nil, errors.New("dialled")
		},
		guard: addressGuard{hostNet: func() HostNet { return HostNet{} }, decide: func(policy.Flow) policy.Decision { return policy.Decision{Allow: true} }},
	}
	to := policy.Flow{Name: "n.evil.example", Port: 443, Proto: policy.TCP}
	_, err := d.addresses(t.Context(), to)
	if denied, ok := asDenied(err); !ok || !strings.Contains(denied.Reason, "more than 256 addresses") {
		t.Error(err)
	}
	if err := d.judgeBeside(t.Context(), to); err == nil {
		t.Error("a proxy is asked for the name")
	}
	if _, _, err := d.connect(t.Context(), to); err == nil || dials > 0 || len(d.cache) > 0 {
		t.Errorf("%v, %d dials, %d answers are kept", err, dials, len(d.cache))
	}
	many = many[:maxAddresses]
	if list, err := d.addresses(t.Context(), to); err != nil || len(list) != maxAttempts {
		t.Errorf("%v, %v", list, err)
	}
}
