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

func TestBundleHoldsOurCertificateOnce(t *testing.T) {
	_, old := newCA(t, pkix.Name{CommonName: "old"})
	_, cert := newCA(t, pkix.Name{CommonName: "new"})
	b := withCert([]byte("theirs"), nil, old)
	b = withCert(b, old, cert)
	b = withCert(b, cert, cert)
	if string(b) != "theirs\n"+string(cert) {
		t.Errorf("got %s", b)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
