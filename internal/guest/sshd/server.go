// Package sshd is the guest's SSH server: it runs commands and shells (session.go,
// command.go, start.go) with a terminal (pty.go, terminal.go) or with pipes (pipes.go),
// serves SFTP (sftp.go), and carries TCP and Unix connections in both directions
// (sshforward.go).
//
// It uses golang.org/x/crypto/ssh and no framework on top of it. What github.com/
// gliderlabs/ssh adds (0.2 MB) would have to be replaced: it drops the client's terminal
// modes, cannot report the signal that ended a command, does not bound the environment
// that a client sends, and knows no forwarding to Unix sockets.
package sshd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/ssh"

	"bawn.dev/bawn/internal/guest/accounts"
	"bawn.dev/bawn/internal/guest/process"
	"bawn.dev/bawn/internal/wire"
)

// Server serves SSH connections: sessions, SFTP and forwards. Its methods may be called
// concurrently.
type Server struct {
	logins    *accounts.Logins
	processes *process.Table

	ready   chan struct{} // closed when there is a host key
	retired atomic.Bool   // see Retire
	once    sync.Once
	mu      sync.Mutex
	host    ssh.Signer
	keys    [][]byte // authorized, in wire form
}

// New returns a server that waits to be configured. Users are those of logins; commands
// are children in the table.
func New(logins *accounts.Logins, processes *process.Table) *Server {
	return &Server{logins: logins, processes: processes, ready: make(chan struct{})}
}

// Configure sets the host key (PEM) and the keys (authorized_keys lines) that may log in
// as any user. It holds for connections that begin later. Without a host key the server
// keeps waiting: a template serves nobody.
func (s *Server) Configure(hostKey []byte, authorized []string) error {
	var host ssh.Signer
	if len(hostKey) > 0 {
		var err error
		if host, err = ssh.ParsePrivateKey(hostKey); err != nil {
			return fmt.Errorf("ssh host key: %w", err)
		}
	}
	var keys [][]byte
	for _, line := range authorized {
		k, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return fmt.Errorf("authorized key: %w", err)
		}
		keys = append(keys, k.Marshal())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.host, s.keys = host, keys
	if host != nil {
		s.once.Do(func() { close(s.ready) })
	}
	return nil
}

// maxAuthTries is the number of keys that a client may offer: one with many keys in its
// agent offers them all.
const maxAuthTries = 100

// config waits until the server is configured, since a client may connect before the
// host has sent this machine's identity.
func (s *Server) config() *ssh.ServerConfig {
	<-s.ready
	s.mu.Lock()
	host, keys := s.host, s.keys
	s.mu.Unlock()
	cfg := &ssh.ServerConfig{
		MaxAuthTries:  maxAuthTries,
		ServerVersion: wire.SSHVersion,
		PublicKeyCallback: func(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			got := key.Marshal()
			for _, k := range keys {
				if bytes.Equal(k, got) {
					_, err := s.logins.Find(c.User())
					return nil, err
				}
			}
			return nil, errors.New("key not authorized")
		},
	}
	cfg.AddHostKey(host)
	return cfg
}

// Retire makes the server answer no connection that begins later, for ever. The machine powers
// off: a client that waits for an answer sees its connection end with the machine, and starts
// the machine again. Its command would otherwise begin and be killed.
func (s *Server) Retire() { s.retired.Store(true) }

// Serve serves one connection until it ends, and closes it. Commands that ask for no file mode
// creation mask get this one; nil is the agent's.
func (s *Server) Serve(c net.Conn, umask *uint32) {
	defer c.Close()
	if s.retired.Load() {
		_, _ = io.Copy(io.Discard, c)
		return
	}
	conn, channels, requests, err := ssh.NewServerConn(c, s.config())
	if err != nil {
		return // the handshake has reported it to the client
	}
	defer conn.Close()
	login, err := s.logins.Find(conn.User())
	if err != nil {
		return
	}
	f := newForwards(conn)
	defer f.close()
	go f.serveRequests(requests)
	for ch := range channels {
		switch ch.ChannelType() {
		case "session":
			go s.serveSession(ch, login, umask)
		case "direct-tcpip":
			go f.directTCP(ch)
		case "direct-streamlocal@openssh.com":
			go f.directUnix(ch)
		default:
			_ = ch.Reject(ssh.UnknownChannelType, "unknown channel type")
		}
	}
}

func (s *Server) serveSession(ch ssh.NewChannel, login *accounts.Login, umask *uint32) {
	c, requests, err := ch.Accept()
	if err != nil {
		return
	}
	(&session{server: s, login: login, umask: umask, channel: c}).serve(requests)
}
