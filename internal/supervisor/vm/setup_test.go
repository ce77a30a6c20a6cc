package vm

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"testing"

	"bawn.dev/bawn/internal/policy"
)

// TestGuestAddresses: every sandbox has its own, none has the gateway's, and no rule about
// real addresses applies to them.
func TestGuestAddresses(t *testing.T) {
	seen := map[string]bool{}
	for i := range 2000 {
		id := fmt.Sprintf("%012x", i*7919)
		v4, v6 := GuestAddrs(id)
		mac := GuestMAC(id)
		if again4, again6 := GuestAddrs(id); again4 != v4 || again6 != v6 {
			t.Fatalf("%s: another address the second time", id)
		}
		if v4.Addr() == Gateway4.Addr() || v6.Addr() == Gateway6.Addr() || mac.String() == GatewayMAC.String() || mac.String() == cardMAC {
			t.Errorf("%s: %v, %v, %v: an address of the gateway's", id, v4, v6, mac)
		}
		if Pool4.Contains(v4.Addr()) || Pool6.Contains(v6.Addr()) {
			t.Errorf("%s: %v, %v: an address for names", id, v4, v6)
		}
		if mac[0]&3 != 2 {
			t.Errorf("%s: %v is not a locally administered unicast address", id, mac)
		}
		if seen[v6.String()] || seen[mac.String()] {
			t.Errorf("%s: %v or %v is another's too", id, v6, mac)
		}
		seen[v6.String()], seen[mac.String()] = true, true
	}
	if Gateway4 != policy.Gateway4 || len(MachineID("a")) != 32 || MachineID("a") == MachineID("b") {
		t.Error("machine IDs")
	}
}

// certificate makes one.
func certificate(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der, Headers: map[string]string{"Comment": "left out"}})
}

// TestHostCAs: certificates are passed on, and nothing else of their files; a private key
// above all is not.
func TestHostCAs(t *testing.T) {
	dir := t.TempDir()
	one, two := certificate(t), certificate(t)
	for name, content := range map[string][]byte{
		"a.crt":   append([]byte("a comment\n"), one...),
		"b.crt":   append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret")}), two...),
		"c.crt":   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("none")}),
		"d.crt":   []byte("\x00\xff"),
		"e.other": one,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "f.crt"), 0o700); err != nil {
		t.Fatal(err)
	}
	var want []byte
	for _, c := range [][]byte{one, two} {
		block, _ := pem.Decode(c)
		want = append(want, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})...)
	}
	if got := hostCAs(filepath.Join(dir, "*.crt")); !bytes.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for i := range 400 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("g%d.crt", i)), bytes.Repeat(one, 3), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := hostCAs(filepath.Join(dir, "*.crt")); len(got) > maxCAs || len(got) < maxCAs/2 {
		t.Errorf("%d bytes are passed on", len(got))
	}
}
