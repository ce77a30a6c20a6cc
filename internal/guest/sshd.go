package guest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"sync"

	"golang.org/x/crypto/ssh"
)

// sshServer serves SSH connections: sessions, SFTP and forwards.
type sshServer struct {
	logins    *logins
	processes *processes

	mu   sync.Mutex
	host ssh.Signer
	keys [][]byte // authorized, in wire form
}

// configure sets the host key and the keys that may log in, as any user.
func (s *sshServer) configure(hostKey []byte, authorized []string) error {
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
	return nil
}

var errNotReady = errors.New("the guest is not set up")

// maxAuthTries lets a client with many keys in its agent get to the right one.
const maxAuthTries = 100

func (s *sshServer) config() (*ssh.ServerConfig, error) {
	s.mu.Lock()
	host, keys := s.host, s.keys
	s.mu.Unlock()
	if host == nil {
		return nil, errNotReady
	}
	cfg := &ssh.ServerConfig{
		MaxAuthTries:  maxAuthTries,
		ServerVersion: "SSH-2.0-brig",
		PublicKeyCallback: func(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			got := key.Marshal()
			for _, k := range keys {
				if bytes.Equal(k, got) {
					_, err := s.logins.find(c.User())
					return nil, err
				}
			}
			return nil, errors.New("key not authorized")
		},
	}
	cfg.AddHostKey(host)
	return cfg, nil
}

// serve serves one connection until it ends.
func (s *sshServer) serve(c net.Conn) {
	defer c.Close()
	cfg, err := s.config()
	if err != nil {
		return
	}
	conn, channels, requests, err := ssh.NewServerConn(c, cfg)
	if err != nil {
		return // the client has been told
	}
	defer conn.Close()
	who, err := s.logins.find(conn.User())
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

func (s *sshServer) serveSession(ch ssh.NewChannel, who *login) {
	c, requests, err := ch.Accept()
	if err != nil {
		return
	}
	(&shell{server: s, who: who, channel: c}).serve(requests)
}
