package engine

import (
	"context"
	"errors"
	"net"

	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/session"
)

// The reasons about SSH.
const (
	// SSHConfigQuoting is the reason when ssh_config(5) cannot hold a path or the command.
	SSHConfigQuoting Reason = "ssh-config-cannot-quote"
)

// SSHConfig returns the Host block of ssh_config(5) with which OpenSSH clients reach a
// sandbox as the user's own user. proxy is the shell command that joins its standard
// input and output to the guest's SSH server (DialSSH). The sandbox's keys are made if it
// has none.
func (e *Engine) SSHConfig(name, proxy string) (string, error) {
	d, err := e.dirOf(name)
	if err != nil {
		return "", err
	}
	if err := session.MakeKeys(d, name); err != nil {
		return "", err
	}
	text, err := session.SSHConfig(d, name, GuestUser().Name, proxy)
	if errors.Is(err, session.ErrUnquotable) {
		err = because(SSHConfigQuoting, name, err)
	}
	return text, err
}

// DialSSH connects to the SSH server of a sandbox's guest, for a client that speaks SSH
// itself. A sandbox that does not run is started. The caller closes the connection.
func (e *Engine) DialSSH(ctx context.Context, name string) (net.Conn, error) {
	d, err := e.dirOf(name)
	if err != nil {
		return nil, err
	}
	if err := e.EnsureRunning(ctx, name); err != nil {
		return nil, err
	}
	return d.Dial(ctx, store.SSHSocket)
}
