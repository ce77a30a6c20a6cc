// Package sshd is the guest's SSH server: it runs commands and shells (session.go,
// command.go) with or without a terminal (pty.go), serves SFTP (sftp.go), and carries
// TCP and Unix connections both ways (sshforward.go).
package sshd

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"sync"

	"golang.org/x/crypto/ssh"

	"bawn.dev/bawn/internal/guest/accounts"
	"bawn.dev/bawn/internal/guest/process"
)

// Server serves SSH connections: sessions, SFTP and forwards.
type Server struct {
	logins    *accounts.Logins
	processes *process.Table

	ready chan struct{} // closed when it has a host key
	once  sync.Once
	mu    sync.Mutex
	host  ssh.Signer
	keys  [][]byte // authorized, in wire form
}

func New(l *accounts.Logins, p *process.Table) *Server {
	return &Server{logins: l, processes: p, ready: make(chan struct{})}
}

// Configure sets the host key and the keys that may log in, as any user.
func (s *Server) Configure(hostKey []byte, authorized []string) error {
	var host ssh.Signer // none: a template's server serves nobody
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

// maxAuthTries lets a client with many keys in its agent get to the right one.
const maxAuthTries = 100

// config waits until the server has been configured: somebody may be quicker than
// the host that says who this machine is.
func (s *Server) config() *ssh.ServerConfig {
	<-s.ready
	s.mu.Lock()
	host, keys := s.host, s.keys
	s.mu.Unlock()
	cfg := &ssh.ServerConfig{
		MaxAuthTries:  maxAuthTries,
		ServerVersion: "SSH-2.0-bawn",
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

// Serve serves one connection until it ends.
func (s *Server) Serve(c net.Conn) {
	defer c.Close()
	conn, channels, requests, err := ssh.NewServerConn(c, s.config())
	if err != nil {
		return // the client has been told
	}
	defer conn.Close()
	who, err := s.logins.Find(conn.User())
	if err != nil {
		return
	}
	f := newForwards(conn, who)
	defer f.close()
	go f.serveRequests(requests)
	for ch := range channels {
		switch ch.ChannelType() {
		case "session":
			go s.serveSession(ch, who)
		case "direct-tcpip":
			go f.directTCP(ch)
		case "direct-streamlocal@openssh.com":
			go f.directUnix(ch)
		default:
			_ = ch.Reject(ssh.UnknownChannelType, "unknown channel type")
		}
	}
}

func (s *Server) serveSession(ch ssh.NewChannel, who *accounts.Login) {
	c, requests, err := ch.Accept()
	if err != nil {
		return
	}
	(&shell{server: s, who: who, channel: c}).serve(requests)
}
