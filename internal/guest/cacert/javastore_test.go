package cacert

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// keytool runs Java's program for keystores.
func keytool(t *testing.T, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("keytool"); err != nil {
		t.Skip("needs keytool")
	}
	out, err := exec.Command("keytool", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("keytool %q: %v\n%s", args, err, out)
	}
	return string(out)
}

func TestJavaReadsOurStore(t *testing.T) {
	one, _ := newCA(t, pkix.Name{CommonName: "one"})
	two, _ := newCA(t, pkix.Name{CommonName: "two"})
	file := filepath.Join(t.TempDir(), "store")
	must(t, os.WriteFile(file, JavaStore([]*x509.Certificate{one, two, one}), 0o600))
	got := keytool(t, "-list", "-keystore", file, "-storepass", javaPassword, "-v")
	if strings.Count(got, "trustedCertEntry") != 2 || !strings.Contains(got, "CN=one") || !strings.Contains(got, "CN=two") {
		t.Error(got)
	}
}

func TestCertificatesOfJavasStoresAreFound(t *testing.T) {
	dir := t.TempDir()
	one, text := newCA(t, pkix.Name{CommonName: "one"})
	file := filepath.Join(dir, "one.pem")
	must(t, os.WriteFile(file, text, 0o600))
	for _, format := range []string{"jks", "pkcs12"} {
		store := filepath.Join(dir, format)
		keytool(t, "-importcert", "-noprompt", "-alias", "x", "-file", file, "-keystore", store, "-storetype", format, "-storepass", javaPassword,
			"-J-Dkeystore.pkcs12.certProtectionAlgorithm=NONE", "-J-Dkeystore.pkcs12.macAlgorithm=NONE")
		b, err := os.ReadFile(store)
		must(t, err)
		if got := InStores(b[:len(b)/2], b); len(got) != 1 || !got[0].Equal(one) {
			t.Errorf("%s: %v", format, got)
		}
	}
}

func TestDamagedStoresHaveNoCertificates(t *testing.T) {
	for name, store := range map[string][]byte{
		"empty": nil, "short": {0x30, 0x82}, "text": []byte("no store at all"),
		"candidates": []byte(strings.Repeat("\x30\x82\x01\x00\x30\x82", 100000)),
	} {
		if got := InStores(store); got != nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestJavasListIsKept: an update adds our certificates, removes those of the last one, and keeps the rest.
func TestJavasListIsKept(t *testing.T) {
	dir := t.TempDir()
	theirs, text := newCA(t, pkix.Name{CommonName: "theirs"})
	old, _ := newCA(t, pkix.Name{CommonName: "old"})
	now, _ := newCA(t, pkix.Name{CommonName: "now"})
	file, store := filepath.Join(dir, "pem"), filepath.Join(dir, "cacerts")
	must(t, os.WriteFile(file, text, 0o600))
	keytool(t, "-importcert", "-noprompt", "-alias", "debian:theirs.pem", "-file", file, "-keystore", store, "-storetype", "jks", "-storepass", javaPassword)
	for range 2 {
		updateJava([]string{store}, []*x509.Certificate{old})
		updateJava([]string{store, filepath.Join(dir, "none"), file}, []*x509.Certificate{now})
	}
	got := keytool(t, "-list", "-keystore", store, "-storepass", javaPassword)
	b, err := os.ReadFile(store)
	must(t, err)
	if certs := InStores(b); len(certs) != 2 || !certs[0].Equal(theirs) || !certs[1].Equal(now) || !strings.Contains(got, "debian:theirs.pem,") {
		t.Errorf("%v %s", certs, got)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != string(text) {
		t.Errorf("what is no list of Java changed: %v", err)
	}
}

func TestStoresThatStayAsTheyAre(t *testing.T) {
	cert, _ := newCA(t, pkix.Name{CommonName: "x"})
	good := JavaStore([]*x509.Certificate{cert})
	entries := bytes.Clone(good[:len(good)-20])
	sealed := func(b []byte) []byte { return append(b, jksChecksum(b)...) }
	key, more := bytes.Clone(entries), bytes.Clone(entries)
	key[15], more[11] = 1, 2 // a private key; two entries
	for name, store := range map[string][]byte{
		"empty": nil, "short": good[:31], "checksum": append(good[:len(good)-1:len(good)-1], good[len(good)-1]^1),
		"private key": sealed(key), "count": sealed(more), "rest": sealed(append(bytes.Clone(entries), 0)),
		"long certificate": sealed(entries[:len(entries)-1]),
	} {
		if got, err := withJava(store, nil); err == nil {
			t.Errorf("%s: %x", name, got)
		}
	}
	if got, err := withJava(good, []*x509.Certificate{cert}); err != nil || !bytes.Equal(got, good) {
		t.Errorf("%v %x", err, got)
	}
}

func FuzzReadJKS(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0})
	f.Add(writeJKS([]jksEntry{{"a", 1, []byte("b")}})[:34])
	f.Fuzz(func(t *testing.T, contents []byte) {
		store := slices.Concat(contents, jksChecksum(contents))
		if entries, err := readJKS(store); err == nil && !bytes.Equal(writeJKS(entries), store) {
			t.Errorf("%x becomes %x", store, writeJKS(entries))
		}
	})
}
