package guest

import (
	"bytes"
	"fmt"

	"bawn.dev/bawn/internal/guest/etc"
)

// The host keys that all users of the guest know (ssh_known_hosts(5)) are the guest's administrator's. The
// agent changes one line, which a comment marks: that of the authority by which the host ends git over SSH.

const sshKnownHosts = "/etc/ssh/ssh_known_hosts"

// knowHosts makes the guest's ssh know the host keys that an authority certifies, and forget an authority of before.
// Without one it does nothing where nothing is to be forgotten.
func knowHosts(file string, authority []byte) error {
	old := etc.Read(file)
	text := withAuthority(old, authority)
	if bytes.Equal(old, text) {
		return nil
	}
	if err := etc.Replace(file, text, 0o644); err != nil {
		return fmt.Errorf("known hosts of ssh: %w", err)
	}
	return nil
}

// withAuthority returns a file of known hosts with the line of an authority, given by its public key.
func withAuthority(old, key []byte) []byte {
	var out []byte
	for line := range bytes.Lines(old) {
		if !bytes.HasSuffix(bytes.TrimRight(line, "\r\n"), []byte(ownLine)) {
			out = append(out, line...)
		}
	}
	if key = bytes.TrimSpace(key); len(key) == 0 {
		return out
	}
	if len(out) > 0 && out[len(out)-1] != '\n' {
		out = append(out, '\n')
	}
	return fmt.Appendf(out, "@cert-authority * %s %s\n", key, ownLine)
}
