package session

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/crypto/ssh"

	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/sys/atomicfile"
)

// HostAlias returns the host name under which a sandbox's key is in known_hosts.
func HostAlias(name string) string { return "bawn-" + name }

// MakeKeys makes the keys of the sandbox in d that do not exist yet: one for the host's
// side, one for the guest's SSH server. It also writes a known_hosts file with the
// guest's key, for OpenSSH clients. A key file that cannot be read as a key is an error.
func MakeKeys(d store.Dir, name string) error {
	for _, f := range []string{store.ClientKeyFile, store.HostKeyFile} {
		if _, err := Signer(d, f); err == nil {
			continue
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := makeKey(d.File(f), "bawn "+name); err != nil {
			return err
		}
	}
	host, err := Signer(d, store.HostKeyFile)
	if err != nil {
		return err
	}
	line := HostAlias(name) + " " + string(ssh.MarshalAuthorizedKey(host.PublicKey()))
	return atomicfile.Write(d.File(store.KnownHostsFile), []byte(line))
}

func makeKey(path, comment string) error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(key, comment)
	if err != nil {
		return err
	}
	return atomicfile.Write(path, pem.EncodeToMemory(block))
}

// Signer reads one of the sandbox's private keys: store.ClientKeyFile or
// store.HostKeyFile. A file that does not exist is fs.ErrNotExist.
func Signer(d store.Dir, file string) (ssh.Signer, error) {
	b, err := os.ReadFile(d.File(file))
	if err != nil {
		return nil, err
	}
	s, err := ssh.ParsePrivateKey(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w (remove the file: bawn makes a new key at the next start)", d.File(file), err)
	}
	return s, nil
}
