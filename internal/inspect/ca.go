package inspect

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"time"

	"bawn.dev/bawn/internal/sys/atomicfile"
	"bawn.dev/bawn/internal/sys/keyfile"
)

// Files of the certificate authority, in the state folder. No share can have that folder.
const (
	caCertFile = "inspect-ca.crt"
	caKeyFile  = "inspect-ca.key" // with the certificate, so that the two always belong together
)

const (
	caLife   = 10 * 365 * 24 * time.Hour
	leafLife = 30 * 24 * time.Hour
	// clockSkew is how far the guest's clock may be behind.
	clockSkew = 24 * time.Hour
	// maxLeaves bounds the certificates that are kept.
	maxLeaves = 256
)

// CA is the user's own certificate authority. Guests trust it for all names; it certifies
// those of hosts with a secret. Safe for concurrent use.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey

	mu     sync.Mutex
	leaves map[string]*tls.Certificate
}

// CACertificate returns the authority's certificate in PEM, without its key; nil if no
// authority has been made in that state folder.
func CACertificate(state string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(state, caCertFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// OpenCA returns the authority of a state folder, and makes it at the first use. A key file
// that others can read is an error.
func OpenCA(ctx context.Context, state string) (*CA, error) {
	const then = "set the secrets again"
	path := filepath.Join(state, caKeyFile)
	b, err := keyfile.Read(ctx, path, then, func() error {
		if err := makeCA(path, filepath.Join(state, caCertFile)); err != nil {
			return fmt.Errorf("make the certificate authority: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(b, b) // key and certificate
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: %w: remove it, and %s", path, err, then)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !pair.Leaf.IsCA {
		return nil, fmt.Errorf("%s is not a certificate authority of bawn's: remove it, and %s", path, then)
	}
	return &CA{cert: pair.Leaf, key: key, leaves: map[string]*tls.Certificate{}}, nil
}

// makeCA writes a new authority: the certificate first, since the key's file says that there
// is one.
func makeCA(keyPath, certPath string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	t := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "bawn (certificate authority of this user, for sandboxes)", Organization: []string{"bawn"}},
		NotBefore: now.Add(-clockSkew), NotAfter: now.Add(caLife),
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
	}
	der, err := sign(t, t, &key.PublicKey, key)
	if err != nil {
		return err
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	both := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), cert...)
	if err := atomicfile.Write(certPath, cert); err != nil {
		return err
	}
	return atomicfile.Write(keyPath, both)
}

// sign makes a certificate with a random serial number (RFC 5280, 4.1.2.2: at most 20
// bytes).
func sign(t, parent *x509.Certificate, pub *ecdsa.PublicKey, by *ecdsa.PrivateKey) ([]byte, error) {
	serial := make([]byte, 16)
	if _, err := rand.Read(serial); err != nil {
		return nil, err
	}
	serial[0] = serial[0]&0x7f | 1
	t.SerialNumber = new(big.Int).SetBytes(serial)
	raw, err := pub.Bytes()
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256(raw)
	t.SubjectKeyId = id[:20]
	return x509.CreateCertificate(rand.Reader, t, parent, pub, by)
}

// leaf returns a certificate for exactly that name, with its key.
func (c *CA) leaf(name string) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if l := c.leaves[name]; l != nil && now.Before(l.Leaf.NotAfter.Add(-leafLife/2)) {
		return l, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := sign(&x509.Certificate{
		Subject: pkix.Name{Organization: []string{"bawn"}}, DNSNames: []string{name},
		NotBefore: now.Add(-clockSkew), NotAfter: now.Add(leafLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}, c.cert, &key.PublicKey, c.key)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	if len(c.leaves) >= maxLeaves {
		clear(c.leaves)
	}
	l := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: parsed}
	c.leaves[name] = l
	return l, nil
}
