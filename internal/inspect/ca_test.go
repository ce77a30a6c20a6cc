package inspect

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestAuthority: the key is in one file of mode 0600, the certificate has no key and can
// certify servers only, and both are the same at the next opening.
func TestAuthority(t *testing.T) {
	state := t.TempDir()
	if b, err := CACertificate(state); b != nil || err != nil {
		t.Fatal("before the first use:", err)
	}
	ca, err := OpenCA(t.Context(), state)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := CACertificate(state)
	if err != nil || bytes.Contains(cert, []byte("PRIVATE")) {
		t.Fatal(err)
	}
	block, rest := pem.Decode(cert)
	if block == nil || len(rest) != 0 || !bytes.Equal(block.Bytes, ca.cert.Raw) {
		t.Error("another certificate than the authority's")
	}
	fi, err := os.Stat(filepath.Join(state, caKeyFile))
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Error(fi.Mode(), err)
	}
	again, err := OpenCA(t.Context(), state)
	if err != nil || !again.cert.Equal(ca.cert) {
		t.Error(err)
	}
	if err := os.Chmod(filepath.Join(state, caKeyFile), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCA(t.Context(), state); err == nil {
		t.Error("a key that others can read is used")
	}
	if err := os.WriteFile(filepath.Join(state, caKeyFile), cert, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCA(t.Context(), state); err == nil {
		t.Error("an authority without a key")
	}
}

// TestLeaves are for one name, for servers, valid under the authority, and bounded in number.
func TestLeaves(t *testing.T) {
	ca, err := OpenCA(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	for i := range maxLeaves + 10 {
		name := fmt.Sprintf("h%d.example.test", i)
		l, err := ca.leaf(name)
		if err != nil {
			t.Fatal(err)
		}
		if again, _ := ca.leaf(name); again != l {
			t.Error("made again:", name)
		}
		if i > 3 {
			continue
		}
		for _, at := range []time.Time{time.Now(), time.Now().Add(-clockSkew / 2)} {
			if _, err := l.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: at}); err != nil {
				t.Error(err)
			}
		}
		for _, other := range []string{"example.test", "x." + name, "h9.example.test"} {
			if l.Leaf.VerifyHostname(other) == nil {
				t.Errorf("%s is valid for %s", name, other)
			}
		}
		if l.Leaf.IsCA || l.Leaf.KeyUsage != x509.KeyUsageDigitalSignature || len(l.Leaf.DNSNames) != 1 {
			t.Errorf("%+v", l.Leaf)
		}
	}
	if len(ca.leaves) > maxLeaves {
		t.Errorf("%d leaves are kept", len(ca.leaves))
	}
}
