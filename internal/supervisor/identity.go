package supervisor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/crypto/ssh"

	"bawn.dev/bawn/internal/egress/gitssh"
	"bawn.dev/bawn/internal/inspect"
	"bawn.dev/bawn/internal/login"
	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/supervisor/vm"
	"bawn.dev/bawn/internal/sys/xdg"
	"bawn.dev/bawn/internal/wire"
)

// authority returns the certificate of the authority that the guest has to trust. Rules about
// requests and logins of agents need it, as secrets do; one that does not exist is made for them.
func (s *supervisor) authority(state string) ([]byte, error) {
	rules, err := s.dir.Rules()
	needed := err == nil && policy.Compile(rules).AboutRequests() // a mistake in the rules denies all traffic
	for _, name := range s.spec.AgentNames() {
		needed = needed || s.logsIn(name)
	}
	if needed {
		if _, err := inspect.OpenCA(context.Background(), state); err != nil {
			return nil, err
		}
	}
	return inspect.CACertificate(state)
}

// sshAuthority returns the public key of the authority whose host keys the guest's ssh has to know. It is
// always made: a rule about a repository may come while the sandbox runs. A builder has none.
func (s *supervisor) sshAuthority(state string) ([]byte, error) {
	if s.spec.Builder {
		return nil, nil
	}
	a, err := gitssh.OpenAuthority(context.Background(), state)
	if err != nil {
		return nil, err
	}
	return a.PublicKey(), nil
}

// logsIn reports whether the logins of an agent are kept on the host. If that is not known, TLS to its
// hosts does not pass.
func (s *supervisor) logsIn(agent string) bool {
	all, err := login.Open()
	if err != nil {
		return true
	}
	_, err = all.Get(agent)
	return !errors.Is(err, login.ErrNone)
}

// identity returns what no other sandbox has: its name, keys and addresses, and a fresh seed
// for the guest's random generator.
func (s *supervisor) identity() (*wire.Identity, error) {
	seed := make([]byte, 64)
	if _, err := rand.Read(seed); err != nil {
		return nil, err
	}
	hostKey, err := os.ReadFile(s.dir.File(store.HostKeyFile))
	if err != nil {
		return nil, err
	}
	client, err := os.ReadFile(s.dir.File(store.ClientKeyFile))
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(client)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", store.ClientKeyFile, err)
	}
	state, err := xdg.State()
	if err != nil {
		return nil, err
	}
	authority, err := s.authority(state)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	s.trusted.Store(len(authority) > 0)
	sshAuthority, err := s.sshAuthority(state)
	if err != nil {
		return nil, err
	}
	v4, v6 := vm.GuestAddrs(s.spec.ID)
	return &wire.Identity{
		Hostname:       s.spec.Name,
		MachineID:      vm.MachineID(s.spec.ID),
		Seed:           seed,
		Time:           time.Now(),
		HostKey:        hostKey,
		AuthorizedKeys: []string{string(ssh.MarshalAuthorizedKey(signer.PublicKey()))},
		MAC:            vm.GuestMAC(s.spec.ID).String(),
		Addresses:      []string{v4.String(), v6.String()},
		Workdir:        s.spec.Project.Guest,
		CACert:         authority,
		SSHAuthority:   sshAuthority,
		Author:         wire.Author(s.spec.Boot.Author),
		Sign:           s.spec.Signs(),
	}, nil
}
