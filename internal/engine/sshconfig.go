package engine

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"

	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/session"
	"bawn.dev/bawn/internal/sys/atomicfile"
)

// The reasons about SSH.
const (
	// SSHConfigQuoting is the reason when ssh_config(5) cannot hold a path or the command.
	SSHConfigQuoting Reason = "ssh-config-cannot-quote"
	// SSHConfigFile is the reason when the user's own ssh_config cannot be changed.
	SSHConfigFile Reason = "ssh-config-file"
	// SSHTooOld is the reason when ssh does not know the options that a sandbox needs.
	SSHTooOld Reason = "ssh-too-old"
)

// SSHConfig returns the Host block of ssh_config(5) with which OpenSSH clients reach a
// sandbox as the user's own user, through the command of Options.SSHProxy. The sandbox's
// keys are made if it has none.
func (e *Engine) SSHConfig(name string) (string, error) {
	d, err := e.dirOf(name)
	if err != nil {
		return "", err
	}
	if err := session.MakeKeys(d, name); err != nil {
		return "", err
	}
	return e.sshConfig(d, name)
}

// sshConfig is SSHConfig for a sandbox that has its keys.
func (e *Engine) sshConfig(d store.Dir, name string) (string, error) {
	text, err := session.SSHConfig(d, name, GuestUser().Name, e.sshProxy(name))
	if errors.Is(err, session.ErrUnquotable) {
		err = because(SSHConfigQuoting, name, err)
	}
	return text, err
}

// keepSSHConfig writes the sandbox's file for InstallSSHConfig, so that ssh finds each
// sandbox from its first start on, and no longer when its folder is removed. Where
// ssh_config(5) cannot hold it there is none: SSHConfig reports that to who asks for it.
func (e *Engine) keepSSHConfig(d store.Dir, name string) error {
	if e.sshProxy == nil {
		return nil
	}
	text, err := e.sshConfig(d, name)
	if ReasonOf(err) == SSHConfigQuoting {
		if err := os.Remove(d.File(store.SSHConfigFile)); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if err != nil {
		return err
	}
	return atomicfile.Write(d.File(store.SSHConfigFile), []byte(text))
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
