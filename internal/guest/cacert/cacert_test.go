package cacert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

func newCA(t *testing.T, subject pkix.Name) (*x509.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: subject, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestSubjectHashIsOpenSSLs(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("needs openssl")
	}
	for _, subject := range []pkix.Name{
		{CommonName: "bawn sandbox CA"},
		{Organization: []string{"  Bawn   Dev "}, CommonName: "Ünïcode  CA", Country: []string{"DE"}},
	} {
		cert, text := newCA(t, subject)
		cmd := exec.Command("openssl", "x509", "-noout", "-subject_hash")
		cmd.Stdin = strings.NewReader(string(text))
		want, err := cmd.Output()
		must(t, err)
		got, err := subjectHash(cert)
		if err != nil || fmt.Sprintf("%08x\n", got) != string(want) {
			t.Errorf("%v: got %08x, %v; openssl says %s", subject, got, err, want)
		}
	}
}

func TestBundleHoldsOurCertificatesOnce(t *testing.T) {
	old, _ := newCA(t, pkix.Name{CommonName: "old"})
	one, oneText := newCA(t, pkix.Name{CommonName: "one"})
	two, twoText := newCA(t, pkix.Name{CommonName: "two"})
	b := withCerts([]byte("theirs"), nil, []*x509.Certificate{old})
	b = withCerts(slices.Concat(twoText, b), []*x509.Certificate{old}, []*x509.Certificate{one, two}) // update-ca-certificates has its own order
	b = withCerts(b, []*x509.Certificate{one, two}, []*x509.Certificate{one, two})
	if string(b) != "theirs\n"+string(oneText)+string(twoText) {
		t.Errorf("got %s", b)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
