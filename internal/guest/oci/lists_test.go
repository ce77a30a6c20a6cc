package oci

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bawn.dev/bawn/internal/guest/cacert"
)

// newCA returns a certificate in PEM.
func newCA(t *testing.T, name string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	must(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// image makes the root of a container: files by their paths, "-> TARGET" is a link.
func image(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for path, text := range files {
		must(t, os.MkdirAll(filepath.Dir(root+path), 0o755))
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			must(t, os.Symlink(target, root+path))
		} else {
			must(t, os.WriteFile(root+path, []byte(text), 0o600))
		}
	}
	return root
}

// TestListsOfImages: the files that containers of images of each layout get.
func TestListsOfImages(t *testing.T) {
	own, guest, theirs, private := newCA(t, "own"), newCA(t, "guest"), newCA(t, "theirs"), newCA(t, "private")
	java := string(cacert.JavaStore(cacert.Certificates([]byte(private))))
	outside := filepath.Join(t.TempDir(), "outside.pem")
	must(t, os.WriteFile(outside, []byte(private), 0o600))
	volume := image(t, map[string]string{"/ca.pem": private, "/out.pem": "-> " + outside})
	mounts := []mount{
		{Destination: "/dev", Type: "tmpfs"}, {Destination: "/ca.pem", Type: "bind", Source: filepath.Join(volume, "ca.pem")},
		{Destination: "/volume", Source: volume, Options: []string{"rbind", "ro"}}, {Destination: "/tmp", Type: "tmpfs"},
		{Destination: "/empty", Type: "bind", Source: filepath.Join(volume, "none")},
	}
	for name, test := range map[string]struct {
		files map[string]string
		env   string
		want  map[string]string // what the certificates of a file are, by names
	}{
		"Debian": {map[string]string{imageLists[0]: theirs}, "", map[string]string{systemFile: "theirs own", allFile: "theirs guest own", javaFile: "theirs own"}},
		"Alpine": {map[string]string{imageLists[0]: theirs, "/etc/ssl/cert.pem": "-> certs/ca-certificates.crt"}, "", map[string]string{systemFile: "theirs own"}},
		"RHEL": {
			map[string]string{imageLists[1]: theirs, "/etc/pki/tls/certs/ca-bundle.crt": "-> /etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"}, "",
			map[string]string{systemFile: "theirs own"},
		},
		"two lists":       {map[string]string{imageLists[0]: theirs, imageLists[3]: private}, "", map[string]string{systemFile: "theirs private own"}},
		"scratch":         {nil, "", map[string]string{systemFile: "guest own", allFile: "guest own", javaFile: "guest own", ownFile: "own"}},
		"Java":            {map[string]string{imageLists[0]: theirs, cacert.JavaLists[0]: java}, "", map[string]string{systemFile: "theirs own", javaFile: "private own"}},
		"Java's home":     {map[string]string{"/x/jre/lib/security/cacerts": java}, "JAVA_HOME=/x", map[string]string{javaFile: "private own"}},
		"Java of Debian":  {map[string]string{"/usr/lib/jvm/java-21/lib/security/cacerts": java}, "", map[string]string{javaFile: "private own"}},
		"no certificates": {map[string]string{cacert.JavaLists[0]: "x"}, "", map[string]string{javaFile: "guest own"}},
		"a variable": {
			map[string]string{imageLists[0]: theirs, "/mine.pem": private}, "CURL_CA_BUNDLE=/mine.pem",
			map[string]string{systemFile: "theirs own", allFile: "theirs guest private own", combinedFile("/mine.pem"): "private own"},
		},
		"a variable for a file that is mounted": {nil, "SSL_CERT_FILE=/ca.pem", map[string]string{combinedFile("/ca.pem"): "private own"}},
		"for one on a volume":                   {nil, "SSL_CERT_FILE=/volume/ca.pem", map[string]string{combinedFile("/volume/ca.pem"): "private own"}},
		"for one out of a volume":               {nil, "SSL_CERT_FILE=/volume/out.pem", map[string]string{combinedFile("/volume/out.pem"): ""}},
		"for one below a mount":                 {map[string]string{"/tmp/x.pem": private}, "SSL_CERT_FILE=/tmp/x.pem", map[string]string{combinedFile("/tmp/x.pem"): ""}},
		"for one on a volume that is not there": {nil, "SSL_CERT_FILE=/empty/x.pem", map[string]string{combinedFile("/empty/x.pem"): ""}},
		"for a directory":                       {map[string]string{"/d/x.pem": private}, "REQUESTS_CA_BUNDLE=/d", map[string]string{combinedFile("/d"): ""}},
		"for none":                              {nil, "REQUESTS_CA_BUNDLE=", map[string]string{combinedFile(""): ""}},
		"a link out of the image":               {map[string]string{imageLists[0]: "-> " + outside}, "", map[string]string{systemFile: "guest own"}},
		"a relative link out of the image":      {map[string]string{imageLists[0]: "-> " + strings.Repeat("../", 40) + outside[1:]}, "", map[string]string{systemFile: "guest own"}},
		"a folder that leads out":               {map[string]string{"/etc/ssl/certs": "-> " + filepath.Dir(outside)}, "SSL_CERT_FILE=/etc/ssl/certs/outside.pem", map[string]string{allFile: "guest own"}},
		"a link to itself":                      {map[string]string{imageLists[0]: "-> " + imageLists[0]}, "", map[string]string{systemFile: "guest own"}},
		"a link through proc":                   {map[string]string{imageLists[0]: "-> /proc/1/root/etc/ssl/certs/ca-certificates.crt"}, "", map[string]string{systemFile: "guest own"}},
	} {
		l, err := collectWith([]byte(own), []byte(guest), image(t, test.files), []string{test.env}, mounts)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		files, err := l.files()
		must(t, err)
		for file, want := range test.want {
			certs := append(cacert.Certificates(files[file]), cacert.InStores(files[file])...)
			var got []string
			for _, c := range certs {
				got = append(got, c.Subject.CommonName)
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%s: %s has %q, want %q", name, file, got, want)
			}
		}
	}
}

// TestHostileFilesOfImages: what is no list is not opened, and what is too large is refused.
func TestHostileFilesOfImages(t *testing.T) {
	own := []byte(newCA(t, "own"))
	root := image(t, map[string]string{imageLists[0]: ""})
	must(t, os.Remove(root+imageLists[0]))
	must(t, syscall.Mkfifo(root+imageLists[0], 0o600))
	if l, err := collectWith(own, nil, root, nil, nil); err != nil || len(l.image) != 0 {
		t.Errorf("a pipe: %+v %v", l, err)
	}
	root = image(t, map[string]string{imageLists[0]: ""})
	must(t, os.Truncate(root+imageLists[0], 1<<40))
	if _, err := collectWith(own, nil, root, nil, nil); err == nil || !strings.Contains(err.Error(), imageLists[0]) {
		t.Errorf("a terabyte: %v", err)
	}
	if _, err := collectWith(nil, nil, root, nil, nil); err == nil {
		t.Error("without a certificate of the host")
	}
}
