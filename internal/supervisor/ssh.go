package supervisor

import (
	"context"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/supervisor/handoff"
	"bawn.dev/bawn/internal/sys/accept"
	"bawn.dev/bawn/internal/sys/proc"
	"bawn.dev/bawn/internal/sys/relay"
	"bawn.dev/bawn/internal/wire"
)

// maxSSH bounds the connections that are open at once to the guest's SSH server.
const maxSSH = 1024

// openSSH makes the guest's SSH server reachable over the sandbox's SSH socket. The
// launcher may connect while the rest of the sandbox is made ready.
func (s *supervisor) openSSH() error {
	l, err := s.dir.Listen(store.SSHSocket)
	if err != nil {
		return err
	}
	s.ssh = accept.NewGroup()
	s.ssh.Serve(l, maxSSH, s.forwardSSH)
	s.report(handoff.StartEvent{Reachable: true})
	return nil
}

// closeSSH closes the SSH socket and the connections through it, and returns when none is
// forwarded any more.
func (s *supervisor) closeSSH() {
	if s.ssh != nil {
		s.ssh.Close()
		_ = os.Remove(s.dir.File(store.SSHSocket))
		s.ssh = nil
	}
}

// forwardSSH joins a connection to the guest's SSH server. Its commands get the umask of the
// program that connected: of bawn itself, or of the proxy that ssh started.
func (s *supervisor) forwardSSH(ctx context.Context, c net.Conn) {
	g, err := s.machine.agent.Open(ctx, wire.StreamHeader{Kind: wire.StreamSSH, Umask: umaskOf(c)})
	if err != nil {
		s.log.Warn("an SSH connection to the guest failed", "error", err)
		return
	}
	s.beginSession(ctx)
	left := s.life.attach()
	defer left()
	relay.Until(ctx, &leaving{c, left}, g)
}

// umaskOf returns the file mode creation mask of the process at the other end of a socket; nil
// where it is not known, as in another PID namespace.
func umaskOf(c net.Conn) *uint32 {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	var peer *unix.Ucred
	_ = raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err != nil || peer == nil || peer.Pid <= 0 {
		return nil
	}
	return proc.Umask(int(peer.Pid))
}

// leaving calls left as soon as its other end has gone. The guest may take a while to
// notice.
type leaving struct {
	net.Conn
	left func()
}

func (l *leaving) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if err != nil {
		l.left()
	}
	return n, err
}

// CloseWrite ends one direction (package relay).
func (l *leaving) CloseWrite() error { return relay.CloseWrite(l.Conn) }

// SyscallConn is that of the connection, if it has one (relay.Until).
func (l *leaving) SyscallConn() (syscall.RawConn, error) {
	if c, ok := l.Conn.(syscall.Conn); ok {
		return c.SyscallConn()
	}
	return nil, syscall.ENOTSOCK
}
