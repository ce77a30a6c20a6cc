package cacert

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"bawn.dev/bawn/internal/guest/etc"
)

// Trusted returns, in PEM, the certificates that Install added, and all that the guest trusts.
func Trusted() (own, all []byte) { return etc.Read(ourCA), etc.Read(currentBundle()) }

// HasPEM reports whether a text has a certificate in PEM.
func HasPEM(text []byte) (has bool) {
	eachPEM(text, func(*pem.Block) { has = true })
	return has
}

// eachPEM calls do for each certificate in PEM of a text.
func eachPEM(text []byte, do func(block *pem.Block)) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			do(block)
		}
	}
}

// Combine returns the first text as it is, followed by the certificates of the others, in PEM, that
// are not there yet.
func Combine(texts ...[]byte) []byte {
	if len(texts) == 0 {
		return nil
	}
	seen := map[string]bool{}
	eachPEM(texts[0], func(b *pem.Block) { seen[string(b.Bytes)] = true })
	out := bytes.Clone(texts[0])
	if len(out) > 0 && out[len(out)-1] != '\n' {
		out = append(out, '\n')
	}
	for _, text := range texts[1:] {
		eachPEM(text, func(b *pem.Block) {
			if !seen[string(b.Bytes)] {
				seen[string(b.Bytes)] = true
				out = append(out, pem.EncodeToMemory(&pem.Block{Type: b.Type, Bytes: b.Bytes})...)
			}
		})
	}
	return out
}

// Certificates returns the certificates of texts in PEM. What is damaged is left out.
func Certificates(texts ...[]byte) (certs []*x509.Certificate) {
	for _, text := range texts {
		eachPEM(text, func(b *pem.Block) {
			if c, err := x509.ParseCertificate(b.Bytes); err == nil {
				certs = append(certs, c)
			}
		})
	}
	return certs
}

// ByHash returns each certificate of a text in PEM, in PEM, under the name by which OpenSSL looks for
// it in a directory (openssl-rehash(1)).
func ByHash(text []byte) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, c := range Certificates(text) {
		hash, err := subjectHash(c)
		if err != nil {
			return nil, err
		}
		n := 0
		for files[hashName(hash, n)] != nil {
			n++
		}
		files[hashName(hash, n)] = encode(c)
	}
	return files, nil
}

// hashName returns the name under which OpenSSL looks for the nth certificate with a hash.
func hashName(hash uint32, n int) string { return fmt.Sprintf("%08x.%d", hash, n) }
