package cacert

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bawn.dev/bawn/internal/guest/etc"
)

// A distribution makes its lists anew from the certificates in a directory, its anchors: when a package
// of certificates or Java comes, or when a person calls update-ca-certificates(8) or update-ca-trust(8).
// So bawn's certificates are there too, each in a file of its own: Debian's tools take the first
// certificate of a file alone.

// ownAnchors is the directory of Debian and Alpine for certificates that a machine adds. It is made where it is
// missing.
const ownAnchors = "/usr/local/share/ca-certificates"

// otherAnchors are those of other distributions, where they are.
var otherAnchors = []string{
	"/etc/pki/ca-trust/source/anchors",          // Fedora
	"/etc/pki/trust/anchors",                    // openSUSE
	"/etc/ca-certificates/trust-source/anchors", // Arch
}

// hashDir is where OpenSSL looks for a certificate by a hash of its name, and Debian's package of Java's
// list for all files that end in .pem.
const hashDir = "/etc/ssl/certs"

// anchorPrefix begins the names of bawn's files and links.
const anchorPrefix = "bawn-"

// writeAnchors replaces bawn's certificates in the directories of anchors, and the links to them in
// hashDir, by others. root is put before all paths.
func writeAnchors(root string, certs []*x509.Certificate) error {
	for _, dir := range append([]string{ownAnchors}, otherAnchors...) {
		if _, err := os.Stat(root + dir); dir != ownAnchors && err != nil {
			continue
		}
		for _, c := range certs {
			if err := etc.Replace(root+dir+"/"+anchorName(c), encode(c), 0o644); err != nil {
				return err
			}
		}
		if err := removeOthers(root+dir, certs); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(root+hashDir, 0o755); err != nil {
		return err
	}
	if err := removeLinks(root+hashDir, certs); err != nil {
		return err
	}
	for _, c := range certs {
		if err := addLinks(root+hashDir, c); err != nil {
			return err
		}
	}
	return nil
}

// anchorName returns the name of a certificate's file. It is the certificate's own, so the name of another's
// file never leads to this one.
func anchorName(c *x509.Certificate) string {
	return fmt.Sprintf("%s%x.crt", anchorPrefix, sha256.Sum256(c.Raw))
}

// removeOthers removes bawn's files in a directory that are of none of the certificates.
func removeOthers(dir string, certs []*x509.Certificate) error {
	files, err := filepath.Glob(dir + "/" + anchorPrefix + "*.crt")
	if err != nil {
		return err
	}
	for _, file := range files {
		if !slices.ContainsFunc(certs, func(c *x509.Certificate) bool { return anchorName(c) == filepath.Base(file) }) {
			if err := os.Remove(file); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeLinks removes the links of a directory to bawn's files that are of none of the certificates:
// those of addLinks and of update-ca-certificates.
func removeLinks(dir string, certs []*x509.Certificate) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil || !strings.HasPrefix(filepath.Base(target), anchorPrefix) {
			continue
		}
		name := strings.TrimSuffix(strings.TrimSuffix(filepath.Base(target), ".pem"), ".crt") + ".crt" // a hash leads to a name, or to the file
		if !slices.ContainsFunc(certs, func(c *x509.Certificate) bool { return anchorName(c) == name }) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// addLinks makes the links to a certificate that update-ca-certificates(8) would make: its name, which
// Debian's package of Java's list reads when it is installed later, and HASH.N, by which OpenSSL finds it
// (openssl-rehash(1)), at the first N that no other certificate has.
func addLinks(dir string, cert *x509.Certificate) error {
	name := anchorName(cert)
	file := ownAnchors + "/" + name
	link := strings.TrimSuffix(name, ".crt") + ".pem"
	if err := os.Symlink(file, filepath.Join(dir, link)); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	hash, err := subjectHash(cert)
	if err != nil {
		return err
	}
	for n := range 100 {
		path := filepath.Join(dir, hashName(hash, n))
		if target, err := os.Readlink(path); err == nil && (target == link || target == file) {
			return nil
		}
		if err := os.Symlink(link, path); !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return fmt.Errorf("certificate: too many with the same name in %s", dir)
}
