package netstack

import (
	"io"
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// aliveLab accepts connections, reads each to the end of the guest's half, and tells.
func aliveLab(t *testing.T, probes int) (l *lab, halves chan *Conn) {
	halves = make(chan *Conn, 10)
	l = newLab(t, Config{TCP: func(r *TCPRequest) {
		c, err := r.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.Copy(io.Discard, c)
		halves <- c.(*Conn)
	}})
	l.stack.alive = aliveTimes{idle: 50 * time.Millisecond, interval: 50 * time.Millisecond, probes: probes, unacked: time.Hour}
	l.boot()
	forget := tcpip.TCPLingerTimeoutOption(time.Millisecond) // as tcp_fin_timeout
	if err := l.guest.SetTransportProtocolOption(tcp.ProtocolNumber, &forget); err != nil {
		t.Fatal(err)
	}
	return l, halves
}

// TestAClientThatClosedIsReset: its kernel forgets the connection, and resets it when
// it is probed. A client that ended its half and still reads goes on.
func TestAClientThatClosedIsReset(t *testing.T) {
	l, halves := aliveLab(t, 1000)
	honest, err := l.dial(destinations[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := honest.(*gonet.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	reads := <-halves
	var lost atomic.Bool
	reads.OnReset(func() { lost.Store(true) })

	gone, err := l.dial(destinations[0])
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	reset := make(chan struct{})
	(<-halves).OnReset(func() { close(reset) })
	<-reset

	if lost.Load() {
		t.Error("a client that reads counts as gone")
	}
	if _, err := reads.Write([]byte("late")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(honest, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
}

// TestAClientThatDoesNotAnswerIsGone: probes stay without an answer.
func TestAClientThatDoesNotAnswerIsGone(t *testing.T) {
	l, halves := aliveLab(t, 3)
	c, err := l.dial(destinations[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := c.(*gonet.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	half := <-halves
	l.mute.Store(true)
	gone := make(chan struct{})
	half.OnReset(func() { close(gone) })
	<-gone
	again := make(chan struct{})
	late := &Conn{TCPConn: half.TCPConn, ep: half.ep, wq: half.wq, stack: half.stack}
	late.OnReset(func() { close(again) }) // also when it has happened before
	<-again
}
