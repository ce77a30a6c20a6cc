package publish

import (
	"errors"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/sandbox"
)

// A published port refuses connections, as a closed port does, while nobody listens in the
// guest, and yet it belongs to its sandbox all the time. The kernel refuses connections to
// a socket that is bound and does not listen, so one socket stays bound for as long as the
// port is published, and listens only while it should: listen(2) starts that, and
// shutdown(2) of a listening socket ends it without giving up the address (in the kernel,
// tcp_disconnect keeps a port that bind(2) was asked for by number). At no time can another
// program or sandbox get in between.
//
// SO_REUSEADDR is needed to bind and to listen: connections of an earlier listener may be
// in TIME_WAIT. But it also lets another socket that has it bind the same address while
// none of them listens. So a socket has it only while it listens, and listens once when it
// is reserved, since the kernel notes for a port that all its sockets have SO_REUSEADDR,
// and takes that back when one of them listens.

// backlog bounds the connections of a socket that wait to be accepted.
const backlog = 128

// socket is a TCP socket that is bound to one address for its whole life.
type socket struct {
	file     *os.File
	listener net.Listener // of a duplicate of file; nil while the socket does not listen
}

// reserve binds a port on addresses of the host, where nothing listens yet. A Host of 0 picks
// a free port. It returns the number. A host without IPv6 has no address for it.
func reserve(addrs []netip.Addr, port sandbox.Port) (uint16, []*socket, error) {
	if port.Host != 0 {
		list, err := bindAll(addrs, port.Host)
		return port.Host, list, reserveError(port, err)
	}
	const tries = 16 // others may take the number on one of the addresses
	for try := 1; ; try++ {
		host, err := freeNumber(addrs[0])
		if err != nil {
			return 0, nil, reserveError(port, err)
		}
		list, err := bindAll(addrs, host)
		if err == nil || try == tries || !errors.Is(err, unix.EADDRINUSE) {
			return host, list, reserveError(port, err)
		}
	}
}

func reserveError(port sandbox.Port, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EADDRINUSE):
		return control.PortErrorf(control.ReasonPortInUse, port, "port %d of the host is in use by another program", port.Host)
	case errors.Is(err, unix.EACCES):
		return control.PortErrorf(control.ReasonPortPrivileged, port, "port %d of the host is reserved for root", port.Host)
	}
	return control.PortErrorf("", port, "publish port %d: %w", port.Host, err)
}

// freeNumber returns the number of a port that is free on the address now.
func freeNumber(addr netip.Addr) (uint16, error) {
	l, err := net.Listen("tcp", netip.AddrPortFrom(addr, 0).String()) //nolint:noctx // nothing to wait for
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port), nil
}

// bindAll binds a port on all addresses, or on none.
func bindAll(addrs []netip.Addr, port uint16) ([]*socket, error) {
	var list []*socket
	for _, addr := range addrs {
		s, err := bind(netip.AddrPortFrom(addr, port))
		if addr.Is6() && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)) {
			continue // IPv6 is not built in, or is off
		}
		if err != nil {
			closeAll(list)
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

func closeAll(list []*socket) {
	for _, s := range list {
		s.close()
	}
}

// bind returns a socket that is bound and does not listen.
func bind(to netip.AddrPort) (*socket, error) {
	family, addr := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(to.Port()), Addr: v4(to.Addr())})
	if to.Addr().Is6() {
		family, addr = unix.AF_INET6, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := &socket{file: os.NewFile(uintptr(fd), "published "+to.String())}
	if to.Addr().Is6() {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err == nil {
		err = os.NewSyscallError("bind", unix.Bind(fd, addr))
	}
	if err == nil {
		err = os.NewSyscallError("listen", unix.Listen(fd, 0))
	}
	if err == nil {
		err = stopListening(fd)
	}
	if err != nil {
		s.file.Close()
		return nil, err
	}
	return s, nil
}

// v4 returns the bytes of an IPv4 address, and zeros for another.
func v4(a netip.Addr) [4]byte {
	if !a.Is4() {
		return [4]byte{}
	}
	return a.As4()
}

// listen makes the socket listen, and returns the listener,
// whose connections take slots. Whoever serves it closes it.
func (s *socket) listen(bound slots) (net.Listener, error) {
	err := s.control(func(fd int) error {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
		if err := unix.Listen(fd, backlog); err != nil {
			return errors.Join(os.NewSyscallError("listen", err), unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 0))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	l, err := net.FileListener(s.file)
	if err != nil {
		return nil, errors.Join(err, s.control(stopListening))
	}
	s.listener = bound.of(l)
	return s.listener, nil
}

// refuse ends the listening: connections that were not accepted are reset, later ones are
// refused. It does nothing to a socket that does not listen.
func (s *socket) refuse() error {
	if s.listener == nil {
		return nil
	}
	err := s.control(stopListening)
	s.listener.Close()
	s.listener = nil
	return err
}

// close gives up the address. Connections stay.
func (s *socket) close() {
	if s.listener != nil {
		s.listener.Close()
		s.listener = nil
	}
	s.file.Close()
}

// control calls f with the descriptor of the socket.
func (s *socket) control(f func(fd int) error) error {
	c, err := s.file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	return errors.Join(c.Control(func(fd uintptr) { failed = f(int(fd)) }), failed)
}

func stopListening(fd int) error {
	return errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 0),
		os.NewSyscallError("shutdown", unix.Shutdown(fd, unix.SHUT_RDWR)),
	)
}
