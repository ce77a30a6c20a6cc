package cacert

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // the format's checksum, no protection
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"
)

// Numbers of the file format JKS (sun.security.provider.JavaKeyStore). Java reads it
// whatever its default format is (keystore.type.compat in java.security).
const (
	jksMagic       = 0xfeedfeed
	jksVersion     = 2
	jksCertificate = 2 // tag of an entry that is a trusted certificate
)

const (
	// javaPassword is the password of every cacerts: a checksum, no protection.
	javaPassword = "changeit"
	// jksSalt comes between the password and the contents in the checksum.
	jksSalt = "Mighty Aphrodite"
	// jksAlias begins the aliases of bawn's entries. Java compares aliases in lower case.
	jksAlias = "bawn-"
)

// jksEntry is a trusted certificate in a keystore.
type jksEntry struct {
	alias string
	date  int64 // when the entry was made, in milliseconds since 1970
	cert  []byte
}

// newEntry returns the entry of a certificate that bawn adds. Its alias is the certificate's own.
func newEntry(c *x509.Certificate) jksEntry {
	return jksEntry{fmt.Sprintf("%s%x", jksAlias, sha256.Sum256(c.Raw)), c.NotBefore.UnixMilli(), c.Raw}
}

// JavaStore returns a keystore of Java with trusted certificates, each once.
func JavaStore(certs []*x509.Certificate) []byte {
	var entries []jksEntry
	seen := map[string]bool{}
	for _, c := range certs {
		if !seen[string(c.Raw)] {
			seen[string(c.Raw)] = true
			entries = append(entries, newEntry(c))
		}
	}
	return writeJKS(entries)
}

// writeJKS returns a keystore.
func writeJKS(entries []jksEntry) []byte {
	b := binary.BigEndian.AppendUint32(nil, jksMagic)
	b = binary.BigEndian.AppendUint32(b, jksVersion)
	b = binary.BigEndian.AppendUint32(b, uint32(len(entries)))
	for _, e := range entries {
		b = binary.BigEndian.AppendUint32(b, jksCertificate)
		b = appendText(b, e.alias)
		b = binary.BigEndian.AppendUint64(b, uint64(e.date))
		b = appendText(b, "X.509")
		b = binary.BigEndian.AppendUint32(b, uint32(len(e.cert)))
		b = append(b, e.cert...)
	}
	return append(b, jksChecksum(b)...)
}

// appendText appends a short ASCII text as DataOutput.writeUTF writes it.
func appendText(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

// jksChecksum returns the checksum behind the contents of a keystore.
func jksChecksum(contents []byte) []byte {
	sum := sha1.New() //nolint:gosec // as the format wants it
	for _, unit := range utf16.Encode([]rune(javaPassword)) {
		sum.Write([]byte{byte(unit >> 8), byte(unit)})
	}
	sum.Write([]byte(jksSalt))
	sum.Write(contents)
	return sum.Sum(nil)
}

// readJKS returns the entries of a keystore that has trusted certificates only, and the usual
// password.
func readJKS(store []byte) ([]jksEntry, error) {
	end := len(store) - sha1.Size
	if end < 12 || binary.BigEndian.Uint32(store) != jksMagic || binary.BigEndian.Uint32(store[4:]) != jksVersion {
		return nil, errors.New("not in the format JKS")
	}
	if !bytes.Equal(jksChecksum(store[:end]), store[end:]) {
		return nil, errors.New("damaged, or with a password of its own")
	}
	var entries []jksEntry
	r := jksReader{rest: store[12:end]}
	for range binary.BigEndian.Uint32(store[8:]) {
		tag := r.number(4)
		e := jksEntry{alias: string(r.take(r.number(2))), date: int64(r.number(8))}
		kind := string(r.take(r.number(2)))
		e.cert = r.take(r.number(4))
		if r.short || tag != jksCertificate || kind != "X.509" {
			return nil, errors.New("has an entry that is no trusted certificate")
		}
		entries = append(entries, e)
	}
	if len(r.rest) > 0 {
		return nil, errors.New("has more than its entries")
	}
	return entries, nil
}

// jksReader reads numbers and texts; short says that there were too few bytes.
type jksReader struct {
	rest  []byte
	short bool
}

func (r *jksReader) take(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.short, r.rest = true, nil
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *jksReader) number(size uint64) (n uint64) {
	for _, b := range r.take(size) {
		n = n<<8 | uint64(b)
	}
	return n
}

// withJava returns a keystore in which bawn's entries are those of the certificates. All others stay.
func withJava(store []byte, certs []*x509.Certificate) ([]byte, error) {
	entries, err := readJKS(store)
	if err != nil {
		return nil, err
	}
	entries = slices.DeleteFunc(entries, func(e jksEntry) bool { return strings.HasPrefix(e.alias, jksAlias) })
	for _, c := range certs {
		entries = append(entries, newEntry(c))
	}
	return writeJKS(entries), nil
}

// maxCandidates bounds how many places of a keystore are tried as certificates.
const maxCandidates = 4096

// InStores returns the certificates in Java's keystores: JKS and PKCS #12 without encryption, as
// cacerts is. Both have each certificate as it is (DER), so it is looked for without reading the rest.
func InStores(stores ...[]byte) (certs []*x509.Certificate) {
	for _, store := range stores {
		tried := 0
		for at := 0; at+8 < len(store) && tried < maxCandidates; at++ {
			// A SEQUENCE of 256 to 65535 bytes that begins with a SEQUENCE of at least 128.
			if store[at] != 0x30 || store[at+1] != 0x82 || store[at+4] != 0x30 || store[at+5] != 0x82 && store[at+5] != 0x81 {
				continue
			}
			end := at + 4 + int(binary.BigEndian.Uint16(store[at+2:]))
			if end > len(store) {
				continue
			}
			tried++
			if c, err := x509.ParseCertificate(store[at:end]); err == nil {
				certs = append(certs, c)
				at = end - 1
			}
		}
	}
	return certs
}
