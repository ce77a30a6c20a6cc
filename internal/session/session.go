// Package session is the host's end of the SSH connection to a guest: it runs commands
// there as if they ran here, with their terminal, signals, streams and exit status
// (run.go, signal.go, terminal.go), and opens SFTP.
//
// The connection is end to end: the supervisor passes the bytes on and cannot read them.
// The guest's key is the one that bawn made for this sandbox (keys.go), so a guest that
// answers with another key is refused.
package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/wire"
)

// ErrUser means that the guest has no user of the name.
var ErrUser = errors.New("no such user in the guest")

// Client is one connection to a guest. Its methods may be called concurrently.
type Client struct {
	ssh         *ssh.Client
	answerLimit time.Duration // see expectAnswer
	current     bool          // the agent knows the requests of wire.SSHVersion
}

// Dial connects to the guest of the running sandbox in d, as user. The caller closes the
// client. The context bounds the dialling only. A guest that has no such user is ErrUser.
func Dial(ctx context.Context, d store.Dir, user string) (*Client, error) {
	key, err := Signer(d, store.ClientKeyFile)
	if err != nil {
		return nil, err
	}
	host, err := Signer(d, store.HostKeyFile)
	if err != nil {
		return nil, err
	}
	conn, err := d.Dial(ctx, store.SSHSocket)
	if err != nil {
		return nil, fmt.Errorf("the sandbox does not answer: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	c, err := handshake(conn, user, key, host.PublicKey())
	if err != nil {
		conn.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		} else if strings.Contains(err.Error(), "unable to authenticate") { // the library has no value for it
			return nil, fmt.Errorf("%w: %s", ErrUser, user)
		}
		return nil, fmt.Errorf("ssh to the guest: %w", err)
	}
	current := strings.HasPrefix(string(c.ServerVersion()), wire.SSHVersion)
	return &Client{ssh: c, answerLimit: defaultAnswerLimit, current: current}, nil
}

func handshake(conn net.Conn, user string, key ssh.Signer, host ssh.PublicKey) (*ssh.Client, error) {
	cfg := &ssh.ClientConfig{
		User:              user,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(key)},
		HostKeyCallback:   ssh.FixedHostKey(host),
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
	}
	// The fastest algorithms that are sound. The bytes never leave this machine, and
	// software emulation makes multiplications slow.
	cfg.KeyExchanges = []string{ssh.KeyExchangeCurve25519}
	cfg.Ciphers = []string{ssh.CipherChaCha20Poly1305, ssh.CipherAES128GCM}
	c, chans, reqs, err := ssh.NewClientConn(conn, "guest", cfg)
	if err != nil {
		return nil, err
	}
	return ssh.NewClient(c, chans, reqs), nil
}

// Close ends the connection. The guest kills the commands that still run.
func (c *Client) Close() error { return c.ssh.Close() }

// SFTP opens the guest's file transfer, for an SFTP client. The caller closes it; it ends
// with c at the latest.
func (c *Client) SFTP() (io.ReadWriteCloser, error) {
	s, err := c.ssh.NewSession()
	if err != nil {
		return nil, err
	}
	out, oerr := s.StdoutPipe()
	in, ierr := s.StdinPipe()
	if err = errors.Join(oerr, ierr); err == nil {
		err = s.RequestSubsystem("sftp")
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return struct {
		io.Reader
		io.WriteCloser
	}{out, in}, nil
}
