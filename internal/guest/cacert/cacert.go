// Package cacert makes the programs of an image trust a certificate of the host.
package cacert

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // a file name of OpenSSL's, no protection
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bawn.dev/bawn/internal/guest/etc"
)

// ourCA is the file with all certificates of the host. Its name ends in no .crt: update-ca-certificates(8)
// must not take it, since it wants one certificate in a file.
const ourCA = "/usr/local/share/ca-certificates/bawn.pem"

// Bundles are the files in which distributions keep all trusted certificates.
var Bundles = []string{
	"/etc/ssl/certs/ca-certificates.crt",                // Debian, Alpine, Arch
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Fedora
	"/etc/ssl/ca-bundle.pem",                            // openSUSE
	"/etc/ssl/cert.pem",                                 // Alpine's libressl
}

// Install adds certificates, in PEM, to those that the image's programs trust,
// and returns the environment variables (KEY=VALUE) that sessions need for programs
// with a list of their own. Certificates that an earlier call added are removed: whoever
// has the key of a trusted certificate can impersonate any server. Containers have lists of their own
// (package oci). With an empty certPEM it does nothing.
func Install(certPEM []byte) (env []string, err error) {
	if len(certPEM) == 0 {
		return nil, nil
	}
	// ourCA is written last, so what it holds is installed already. Parsing certificates takes a tenth
	// of a second of each start.
	if old := etc.Read(ourCA); !bytes.Equal(old, certPEM) {
		if err := addCertificates("", certPEM, old); err != nil {
			return nil, err
		}
	}
	return caEnv(currentBundle()), nil
}

// addCertificates replaces the old certificates by others in all lists of the image. root is put before all paths.
func addCertificates(root string, certPEM, old []byte) error {
	certs, err := parseCerts(certPEM)
	if err != nil {
		return err
	}
	found := false
	for _, path := range Bundles {
		file, err := filepath.EvalSymlinks(root + path)
		if err != nil {
			continue // another distribution's
		}
		if err := etc.Replace(file, withCerts(etc.Read(file), Certificates(old), certs), 0o644); err != nil {
			return err
		}
		found = true
	}
	if !found { // an image without any list: ours is the first
		if err := etc.Replace(root+Bundles[0], withCerts(nil, nil, certs), 0o644); err != nil {
			return err
		}
	}
	if err := writeAnchors(root, certs); err != nil {
		return err
	}
	updateJava(javaStores(root), certs)
	updateBrowsers(root, certs)
	return etc.Replace(root+ourCA, certPEM, 0o644)
}

// currentBundle returns the image's file of all trusted certificates.
func currentBundle() string {
	for _, path := range Bundles {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return Bundles[0]
}

// parseCerts returns the certificates of a PEM text. None is an error.
func parseCerts(in []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, in = pem.Decode(in); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, errors.New("certificate: the PEM block is not a certificate")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate: %w", err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("certificate: no PEM block found")
	}
	return certs, nil
}

// withCerts returns a bundle without the old certificates and with the new ones at the end. It knows a
// certificate by the text that encode makes, which update-ca-certificates(8) copies.
func withCerts(bundle []byte, old, certs []*x509.Certificate) []byte {
	for _, c := range slices.Concat(old, certs) {
		bundle = bytes.ReplaceAll(bundle, encode(c), nil)
	}
	if len(bundle) > 0 && bundle[len(bundle)-1] != '\n' {
		bundle = append(bundle, '\n')
	}
	for _, c := range certs {
		bundle = append(bundle, encode(c)...)
	}
	return bundle
}

// encode returns a certificate in PEM.
func encode(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// caEnv returns the variables that make programs with a list of their own use the bundle:
// Node.js unless it is the image's, Python's requests, httplib2 and pip, gRPC, AWS's and Google's
// tools, Deno.
func caEnv(bundle string) []string {
	return []string{
		"NODE_EXTRA_CA_CERTS=" + ourCA,
		"REQUESTS_CA_BUNDLE=" + bundle,
		"PIP_CERT=" + bundle,
		"AWS_CA_BUNDLE=" + bundle,
		"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH=" + bundle,
		"HTTPLIB2_CA_CERTS=" + bundle,
		"CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE=" + bundle,
		"DENO_TLS_CA_STORE=system",
	}
}

// Variables returns the names of the variables of Install: sudo(8) must keep them.
func Variables() []string {
	env := caEnv("")
	for i, v := range env {
		env[i], _, _ = strings.Cut(v, "=")
	}
	return env
}

// subjectHash returns OpenSSL's hash of a certificate's subject
// (X509_NAME_hash_ex(3)): the first four bytes of SHA-1, little-endian, over
// the name's parts without the sequence around them, each value as UTF-8
// with its ASCII letters in lower case and its white space made single.
func subjectHash(cert *x509.Certificate) (uint32, error) {
	type part struct {
		Type  asn1.ObjectIdentifier
		Value asn1.RawValue
	}
	var parts []asn1.RawValue
	if _, err := asn1.Unmarshal(cert.RawSubject, &parts); err != nil {
		return 0, fmt.Errorf("certificate: subject: %w", err)
	}
	var canonical []byte
	for _, set := range parts {
		var one part
		if _, err := asn1.Unmarshal(set.Bytes, &one); err != nil {
			return 0, fmt.Errorf("certificate: subject: %w", err)
		}
		text := bytes.Join(bytes.FieldsFunc(lowerASCII(one.Value.Bytes), isSpace), []byte(" "))
		one.Value = asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: text}
		der, err := asn1.Marshal([]part{one}) // a sequence of one; as a set, its tag differs
		if err != nil {
			return 0, fmt.Errorf("certificate: subject: %w", err)
		}
		der[0] = asn1.TagSet | 0x20
		canonical = append(canonical, der...)
	}
	sum := sha1.Sum(canonical) //nolint:gosec // a file name
	return binary.LittleEndian.Uint32(sum[:4]), nil
}

func lowerASCII(b []byte) []byte {
	return bytes.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, b)
}

// isSpace is isspace(3) in the C locale.
func isSpace(r rune) bool { return r == ' ' || r >= '\t' && r <= '\r' }
