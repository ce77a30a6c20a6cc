package accept

import (
	"errors"
	"net"
	"testing"
)

func TestOne(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	l := NewOne(a)
	if c, err := l.Accept(); c != a || err != nil {
		t.Fatal(c, err)
	}
	second := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		second <- err
	}()
	l.Close()
	l.Close()
	if err := <-second; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if l.Addr() != a.LocalAddr() {
		t.Error(l.Addr())
	}
}
