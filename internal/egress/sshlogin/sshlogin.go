// Package sshlogin knows how the person logs in to a server by SSH: the settings that OpenSSH has for the
// server, the keys of the ssh-agent and those in files, and the host keys that are known. It asks nobody
// anything, and learns no host key.
package sshlogin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"bawn.dev/bawn/internal/sys/proc"
	"bawn.dev/bawn/internal/sys/regular"
)

// Theory of operation. `ssh -G NAME` prints the settings by which the person's own ssh would log in: files of
// keys, the agent's socket, files of known hosts (settings.go). Where the connection goes is not theirs to say
// here: HostName, Port and ProxyCommand are left aside. Such settings can run commands (Match exec), so each file of
// theirs must be one that no guest can write (trust.go). The keys of the agent are tried first, those that the
// settings name before the others, then those in files that have no passphrase.

const (
	// agentTime bounds what the agent may take for all its answers, in which it may ask the person.
	agentTime = time.Minute
	// maxKeys bounds the keys that are offered to a server, which counts attempts.
	maxKeys = 12
	// maxKeyFile bounds a file with a key, in bytes.
	maxKeyFile = 64 << 10
	// gitUser is the user that servers of git have for all their people.
	gitUser = "git"
)

// Config returns the configuration by which to log in to a server as a user, on this host's terms. done frees
// what it takes, and is not nil without an error. An error that names files of the host is an *Error.
func Config(ctx context.Context, name string, port uint16, user string) (conf *ssh.ClientConfig, done func(), err error) {
	s, err := readSettings(ctx, name, user)
	if err != nil {
		return nil, nil, err
	}
	return config(ctx, s, name, port, user)
}

// Error is why the person's settings or known hosts are not used.
type Error struct {
	Reason string // for the guest: no path of the host
	Detail string // for the person
}

func (e *Error) Error() string { return e.Reason + ": " + e.Detail }

func config(ctx context.Context, s *settings, name string, port uint16, user string) (conf *ssh.ClientConfig, done func(), err error) {
	if user != gitUser && user != s.user {
		return nil, nil, fmt.Errorf("the user of the remote is %.64q: it must be git, or the one that ~/.ssh/config of the host names for %s (User)", user, name)
	}
	known, err := readHostKeys(s.knownHosts, name, port)
	if err != nil {
		return nil, nil, err
	}
	keys, done, err := s.keys(ctx)
	if err != nil {
		return nil, nil, err
	}
	return &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(keys...)}, ClientVersion: "SSH-2.0-bawn",
		HostKeyCallback: known.check, HostKeyAlgorithms: known.algorithms(),
	}, done, nil
}

// keys returns the keys to log in with.
func (s *settings) keys(ctx context.Context) (list []ssh.Signer, done func(), err error) {
	var reasons []string
	held, done, err := s.agentKeys(ctx)
	if err != nil {
		reasons = append(reasons, err.Error())
	}
	var named []ssh.PublicKey // in files, with or without a passphrase
	var inFiles []ssh.Signer
	for _, file := range s.keyFiles {
		signer, public, why := readKey(file)
		if public != nil {
			named = append(named, public)
		}
		if signer != nil {
			inFiles = append(inFiles, signer)
		}
		if why != "" {
			reasons = append(reasons, why)
		}
	}
	var others []ssh.Signer
	for _, k := range held {
		if has(named, k.PublicKey()) {
			list = append(list, k)
		} else if !s.onlyNamed {
			others = append(others, k)
		}
	}
	list = append(list, others...)
	for _, k := range inFiles {
		if !slices.ContainsFunc(list, func(o ssh.Signer) bool { return same(o.PublicKey(), k.PublicKey()) }) {
			list = append(list, k)
		}
	}
	if len(list) == 0 {
		done()
		reasons = append(reasons, "run ssh-add on the host, or name a key without a passphrase in its ~/.ssh/config (IdentityFile)")
		return nil, nil, errors.New("there is no key to log in with: " + strings.Join(reasons, "; "))
	}
	return list[:min(len(list), maxKeys)], done, nil
}

// agentKeys returns the keys of the ssh-agent. done is never nil.
func (s *settings) agentKeys(ctx context.Context) (list []ssh.Signer, done func(), err error) {
	done = func() {}
	if s.agent == "" {
		return nil, done, errors.New("no ssh-agent is known (SSH_AUTH_SOCK was not set where the sandbox was started)")
	}
	c, err := (&net.Dialer{Timeout: agentTime}).DialContext(ctx, "unix", s.agent)
	if err != nil {
		return nil, done, errors.New("the host's ssh-agent is not there any more: restart the sandbox where one runs, or set IdentityAgent in ~/.ssh/config")
	}
	stop := context.AfterFunc(ctx, func() { c.Close() }) // it may be asking the person
	done = func() { stop(); c.Close() }
	_ = c.SetDeadline(time.Now().Add(agentTime))
	if list, err = agent.NewClient(c).Signers(); err != nil {
		return nil, done, errors.New("the host's ssh-agent does not answer")
	}
	if len(list) == 0 {
		err = errors.New("the host's ssh-agent has no keys")
	}
	return list, done, err
}

// readKey reads a file with a key. signer is nil if the key cannot be used, and public if it is not known.
func readKey(file string) (signer ssh.Signer, public ssh.PublicKey, why string) {
	if b, err := regular.Read(file+".pub", maxKeyFile, 0); err == nil {
		public, _, _, _, _ = ssh.ParseAuthorizedKey(b)
	}
	b, err := regular.Read(file, maxKeyFile, 0)
	if err != nil {
		return nil, public, ""
	}
	if proc.Trusted(file) != nil {
		return nil, public, "a key is in a file that a guest or another user can change, and is not used"
	}
	signer, err = ssh.ParsePrivateKey(b)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		if locked.PublicKey != nil {
			public = locked.PublicKey
		}
		return nil, public, "a key in a file has a passphrase, which only the ssh-agent asks for"
	}
	if err != nil {
		return nil, public, ""
	}
	return signer, signer.PublicKey(), ""
}

func has(list []ssh.PublicKey, key ssh.PublicKey) bool {
	return slices.ContainsFunc(list, func(k ssh.PublicKey) bool { return same(k, key) })
}

func same(a, b ssh.PublicKey) bool { return bytes.Equal(a.Marshal(), b.Marshal()) }

// home returns the person's home directory.
func home() string {
	h, _ := os.UserHomeDir()
	return h
}
