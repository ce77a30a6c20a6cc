package sshlogin

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"bawn.dev/bawn/internal/sys/proc"
	"bawn.dev/bawn/internal/sys/regular"
)

// maxKnownHosts bounds a file of known hosts, in bytes.
const maxKnownHosts = 16 << 20

// hostKeys are what is known of a server.
type hostKeys struct {
	name  string
	port  uint16
	known ssh.HostKeyCallback
	plain []ssh.PublicKey // its own keys
	cas   bool            // authorities may certify its key
}

// readHostKeys reads files of known hosts. Those that do not exist have nothing.
func readHostKeys(list []string, name string, port uint16) (*hostKeys, error) {
	texts := map[string][]byte{}
	var files []string
	unused := func(err error) error {
		return &Error{"the known hosts of SSH on the host cannot be used: bawn logs --supervisor says there why", err.Error()}
	}
	for _, path := range list {
		// Whoever can write it chooses which server is believed.
		if err := proc.Trusted(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, unused(err)
		}
		b, err := regular.Read(path, maxKnownHosts, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, unused(err)
		}
		texts[path] = b
		files = append(files, path)
	}
	known, err := knownhosts.New(files...)
	if err != nil {
		return nil, unused(fmt.Errorf("%w: correct or remove that line", err))
	}
	h := &hostKeys{name: name, port: port, known: known}
	var lines *knownhosts.KeyError
	if !errors.As(known(h.at(), anyAddr, noKey{}), &lines) {
		return nil, errors.New("the known hosts cannot be read")
	}
	for _, k := range lines.Want { // the library does not tell the lines of authorities from others
		if isAuthority(texts[k.Filename], k.Line) {
			h.cas = true
		} else {
			h.plain = append(h.plain, k.Key)
		}
	}
	return h, nil
}

// isAuthority reports whether a line of a file, counted from 1, is about an authority.
func isAuthority(text []byte, line int) bool {
	n := 0
	for l := range bytes.Lines(text) {
		if n++; n == line {
			return bytes.HasPrefix(bytes.TrimSpace(l), []byte("@cert-authority"))
		}
	}
	return true // it has changed: then it has no key of the server's
}

// at is the server as the files name it.
func (h *hostKeys) at() string { return fmt.Sprintf("%s:%d", h.name, h.port) }

// anyAddr is an address that is not looked at: the name alone counts, whatever its address, and whatever proxy
// is in between.
var anyAddr = &net.TCPAddr{IP: net.IPv4zero, Port: 22}

// noKey is a key that no server has.
type noKey struct{}

func (noKey) Type() string                        { return "none" }
func (noKey) Marshal() []byte                     { return nil }
func (noKey) Verify([]byte, *ssh.Signature) error { return errors.New("no key") }

// plainAlgorithms are those of keys without a certificate, certAlgorithms of those with one.
var (
	plainAlgorithms = []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	certAlgorithms  = []string{ssh.CertAlgoED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoECDSA384v01, ssh.CertAlgoECDSA521v01, ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01}
)

// algorithms returns the algorithms to ask for: those of keys that are known come first, so that the server
// shows one of them. A certificate is asked for only where an authority is known.
func (h *hostKeys) algorithms() (list []string) {
	if h.cas {
		list = append(list, certAlgorithms...)
	}
	for _, k := range h.plain {
		if k.Type() == ssh.KeyAlgoRSA {
			list = append(list, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
		} else if slices.Contains(plainAlgorithms, k.Type()) {
			list = append(list, k.Type())
		}
	}
	for _, a := range plainAlgorithms {
		if !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	return list
}

// check is the ssh.HostKeyCallback. Its errors are in words, with the next step.
func (h *hostKeys) check(_ string, _ net.Addr, key ssh.PublicKey) error {
	err := h.known(h.at(), anyAddr, key)
	shown := ssh.FingerprintSHA256(key)
	var revoked *knownhosts.RevokedError
	_, isCert := key.(*ssh.Certificate)
	switch {
	case err == nil && (isCert || has(h.plain, key)):
		return nil
	case errors.As(err, &revoked):
		return fmt.Errorf("the host key of %s (%s) is revoked by the host's known_hosts", h.name, shown)
	case isCert && err != nil:
		return fmt.Errorf("the host certificate of %s: %w", h.name, err)
	case len(h.plain) == 0:
		return fmt.Errorf("the host key of %s (%s) is not known on the host: compare it with what the server's operator publishes, run `%s` on the host once, and try again", h.name, shown, h.login())
	}
	return fmt.Errorf("the host key of %s (%s) is not the one in the host's known_hosts: somebody may be in between; if the server has a new key, correct known_hosts on the host", h.name, shown)
}

// login is the command by which the person connects to the server.
func (h *hostKeys) login() string {
	if h.port == 22 {
		return "ssh " + gitUser + "@" + h.name
	}
	return fmt.Sprintf("ssh -p %d %s@%s", h.port, gitUser, h.name)
}
