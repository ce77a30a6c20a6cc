package publish

import (
	"errors"
	"net"
	"testing"
)

// TestSlotsAreSharedByAllListeners: a port that begins to listen again and again, as a guest
// can make it, has no more connections for that.
func TestSlotsAreSharedByAllListeners(t *testing.T) {
	s := make(slots, 1)
	listener := func() net.Listener {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return s.of(l)
	}
	dial := func(l net.Listener) {
		c, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
	first, second := listener(), listener()
	defer first.Close()
	dial(first)
	if _, err := first.Accept(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	dial(second)
	go func() { _, err := second.Accept(); ended <- err }()
	second.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("accepted beyond the bound: %v", err)
	}
	s.free()
	dial(first)
	if _, err := first.Accept(); err != nil {
		t.Error(err)
	}
}
