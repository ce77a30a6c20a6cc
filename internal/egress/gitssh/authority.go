package gitssh

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/time/rate"

	"bawn.dev/bawn/internal/sys/atomicfile"
	"bawn.dev/bawn/internal/sys/keyfile"
)

// The host's keys that guests see.
//
// Theory of operation. A guest's ssh must know the key of the server that the gateway is in place of
// another. So guests have one line in /etc/ssh/ssh_known_hosts, for all names: the public key of an
// authority of this user's, which certifies a host key for the name of each connection
// (sshd(8), "@cert-authority"). The line is the same for all guests and at all times, so templates and
// suspended sandboxes keep theirs. The authority's key is in a file outside every share; a host key is
// made for each connection and kept nowhere.

// keyFile is the file of the authority's key, in the state folder. No share can have that folder.
const keyFile = "ssh-ca.key"

const (
	certLife = 30 * 24 * time.Hour
	// clockSkew is how far the guest's clock may be behind.
	clockSkew = 24 * time.Hour
)

// Authority certifies host keys. Safe for concurrent use.
type Authority struct{ signer ssh.Signer }

// OpenAuthority returns the authority of a state folder, and makes it at the first use. A key file
// that others can read is an error.
func OpenAuthority(ctx context.Context, state string) (*Authority, error) {
	const then = "start the sandboxes again"
	path := filepath.Join(state, keyFile)
	b, err := keyfile.Read(ctx, path, then, func() error { return makeAuthority(path) })
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(b)
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: %w: remove it, and %s", path, err, then)
	}
	return &Authority{signer}, nil
}

// makeAuthority writes the key of a new authority.
func makeAuthority(path string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(key, "bawn: authority of SSH host keys for sandboxes")
	if err != nil {
		return err
	}
	if err := atomicfile.Write(path, pem.EncodeToMemory(block)); err != nil {
		return fmt.Errorf("make the authority of SSH host keys: %w", err)
	}
	return nil
}

// PublicKey returns the authority's public key as a line of authorized_keys has it.
func (a *Authority) PublicKey() []byte { return ssh.MarshalAuthorizedKey(a.signer.PublicKey()) }

// hostKey returns a new host key with a certificate for exactly that name.
func (a *Authority) hostKey(name string) (ssh.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	cert := &ssh.Certificate{
		Key: signer.PublicKey(), CertType: ssh.HostCert, KeyId: "bawn: " + name, ValidPrincipals: []string{name},
		ValidAfter: uint64(now.Add(-clockSkew).Unix()), ValidBefore: uint64(now.Add(certLife).Unix()),
	}
	if err := cert.SignCert(rand.Reader, a.signer); err != nil {
		return nil, err
	}
	return ssh.NewCertSigner(cert, &slowSigner{signer, rate.NewLimiter(rate.Every(exchangeEvery), maxExchanges)})
}

const (
	// maxExchanges bounds the key exchanges of one connection at once, each of which costs signatures;
	// one more is allowed each exchangeEvery. Clients exchange keys after some GiB.
	maxExchanges  = 8
	exchangeEvery = 5 * time.Second
)

// slowSigner signs no oftener than its limit: each exchange of keys is signed, and the guest may ask for
// one at any time.
type slowSigner struct {
	ssh.Signer
	limit *rate.Limiter
}

var errExchanges = errors.New("the client asked for too many exchanges of keys")

// Sign signs one exchange of keys.
func (s *slowSigner) Sign(random io.Reader, data []byte) (*ssh.Signature, error) {
	if !s.limit.Allow() {
		return nil, errExchanges
	}
	return s.Signer.Sign(random, data)
}
