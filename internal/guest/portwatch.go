package guest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"bawn.dev/bawn/internal/wire"
)

// Watching ports. The kernel announces no listener, so the agent looks for them, only while
// the host asks for some port. A look reads two tables of the kernel, which takes 0.2 to 2 ms,
// and some 20 times that under software emulation. So it is done often after a process or
// thread was born or a port opened or closed, and seldom in a guest where nothing happens:
// there the agent only looks for births, which takes microseconds.
const (
	portsOften  = 100 * time.Millisecond
	portsBirths = 500 * time.Millisecond
	portsSeldom = 2 * time.Second
	portsCalm   = 10 * time.Second // after a sign of life
	// portsForwarded is how long a port counts as open that no socket listens on and that
	// yet was connected: each look at it is a connection that its server sees.
	portsForwarded = 30 * time.Second
)

// probeLoopback is dialLoopback that waits for a forwarded port for a second only.
func probeLoopback(port uint16) (net.Conn, error) {
	return dialLoopbackBy(net.Dialer{Timeout: time.Second}, port)
}

// portWatch finds out which ports can be connected on the guest's loopback.
type portWatch struct {
	proc string                              // where proc(5) is
	dial func(port uint16) (net.Conn, error) // connects to a port of the loopback
}

// serve reports the open ones of some ports on a stream, as wire.StreamPorts says, until the
// host closes it.
func (w portWatch) serve(s net.Conn, ports []uint16) {
	defer s.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, s)
	}()
	w.watch(ctx, ports, func(open []uint16) error {
		line, err := json.Marshal(wire.PortsReply{Open: open})
		if err != nil {
			panic(err) // numbers always marshal
		}
		_, err = s.Write(append(line, '\n'))
		return err
	})
}

// watch reports the open ports at once and at each change, until ctx ends or a report fails.
func (w portWatch) watch(ctx context.Context, ports []uint16, report func([]uint16) error) {
	var last []uint16
	var p pace
	forwarded := map[uint16]time.Time{}
	for first := true; ; first = false {
		if p.due(time.Now(), w.lastBorn()) {
			open := w.open(ports, forwarded)
			if first || !slices.Equal(open, last) {
				if report(open) != nil {
					return
				}
				last, p.alive = open, time.Now()
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(p.pause(time.Now())):
		}
	}
}

// pace decides when to look at the ports. The zero value is that of a guest in which
// something has just happened.
type pace struct {
	born   string    // process that was born last
	alive  time.Time // of the last sign of life
	looked time.Time // of the last look
}

// due reports whether it is time for a look, which the caller then takes.
func (p *pace) due(now time.Time, born string) bool {
	if born != p.born || p.looked.IsZero() {
		p.born, p.alive = born, now
	}
	if now.Sub(p.alive) >= portsCalm && now.Sub(p.looked) < portsSeldom {
		return false
	}
	p.looked = now
	return true
}

// pause returns how long to wait before the next call of due.
func (p *pace) pause(now time.Time) time.Duration {
	if now.Sub(p.alive) < portsCalm {
		return portsOften
	}
	return portsBirths
}

// open returns the ports of the list that are open: a socket listens there, or a connection
// arrives all the same, as where the guest's packet filter forwards it to a container. It
// keeps in forwarded when that was last so.
func (w portWatch) open(ports []uint16, forwarded map[uint16]time.Time) []uint16 {
	open := []uint16{}
	listening := w.listening()
	for _, p := range ports {
		switch {
		case listening[p]:
			delete(forwarded, p)
		case time.Since(forwarded[p]) < portsForwarded:
		default:
			c, err := w.dial(p)
			if errors.Is(err, syscall.ECONNREFUSED) {
				delete(forwarded, p)
				continue
			}
			if err == nil {
				c.Close()
			}
			forwarded[p] = time.Now()
		}
		open = append(open, p)
	}
	return open
}

// listening returns the ports on which a TCP socket listens, on the loopback or on all
// addresses. The kernel's tables begin with the sockets that listen, so that a guest with
// many connections costs no more.
func (w portWatch) listening() map[uint16]bool {
	ports := map[uint16]bool{}
	for _, table := range []string{"tcp", "tcp6"} {
		f, err := os.Open(filepath.Join(w.proc, "net", table))
		if err != nil {
			continue // there is no IPv6
		}
		sc := bufio.NewScanner(f)
		sc.Scan() // the heading
		for sc.Scan() {
			port, listens, reached := listener(sc.Text())
			if !listens {
				break
			}
			if reached {
				ports[port] = true
			}
		}
		f.Close()
	}
	return ports
}

// reachable are the addresses of listeners that dialLoopback reaches, as in /proc/net/tcp and
// tcp6 of a little-endian machine.
var reachable = []string{
	"00000000", "0100007F",
	"00000000000000000000000000000000", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F",
}

// stateListen is TCP_LISTEN in the tables (include/net/tcp_states.h).
const stateListen = "0A"

// listener reads a line of /proc/net/tcp or tcp6 (proc_pid_net(5)): number, local end, remote
// end, state and more. It returns the port, whether the socket listens, and whether
// dialLoopback reaches it then.
func listener(line string) (port uint16, listens, reached bool) {
	f := strings.Fields(line)
	if len(f) < 4 || f[3] != stateListen {
		return 0, false, false
	}
	addr, p, _ := strings.Cut(f[1], ":")
	n, err := strconv.ParseUint(p, 16, 16)
	return uint16(n), true, err == nil && slices.Contains(reachable, addr)
}

// lastBorn returns the number of the process that was born last: the fifth field of
// /proc/loadavg (proc_loadavg(5)).
func (w portWatch) lastBorn() string {
	b, err := os.ReadFile(filepath.Join(w.proc, "loadavg"))
	if f := strings.Fields(string(b)); err == nil && len(f) == 5 {
		return f[4]
	}
	return ""
}
