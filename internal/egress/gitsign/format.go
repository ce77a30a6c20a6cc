package gitsign

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// The formats of signatures (git-config(1), gpg.format).
const (
	openpgp = "openpgp"
	ssh     = "ssh"
	x509    = "x509"
)

// format is how one kind of signature is made.
type format struct {
	name       string
	program    string // without a setting
	pkg        string // of Debian, that has it
	settings   []string
	begin, end string // the first and the last line of a signature
}

// formats are those that git knows. A later setting wins over an earlier one.
var formats = []format{
	{openpgp, "gpg", "gnupg", []string{"gpg.openpgp.program", "gpg.program"}, "-----BEGIN PGP SIGNATURE-----", "-----END PGP SIGNATURE-----"},
	{ssh, "ssh-keygen", "openssh-client", []string{"gpg.ssh.program"}, "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"},
	{x509, "gpgsm", "gpgsm", []string{"gpg.x509.program"}, "-----BEGIN SIGNED MESSAGE-----", "-----END SIGNED MESSAGE-----"},
}

// formatOf returns the format of a name; none is OpenPGP.
func formatOf(name string) (*format, error) {
	if name == "" {
		name = openpgp
	}
	for i := range formats {
		if formats[i].name == name {
			return &formats[i], nil
		}
	}
	return nil, setup(stepSSH, "the format %.20q of signatures (gpg.format) is not known: it is openpgp, ssh or x509", name)
}

// find returns the path of the format's program.
func (f *format) find(conf map[string]string) (string, error) {
	for _, key := range f.settings {
		if name := conf[key]; name != "" {
			path, err := findProgram(name)
			if err != nil {
				return "", setup("git config --global --unset "+key, "git's signing program (%s) cannot be used: %v", key, err)
			}
			return path, nil
		}
	}
	path, err := findProgram(f.program)
	if err != nil {
		return "", setup("", "git's signing program cannot be used: %v; install the package %s", err, f.pkg)
	}
	return path, nil
}

// check returns an error unless b is one signature of the format.
func (f *format) check(b []byte) error {
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	if lines[0] != f.begin || lines[len(lines)-1] != f.end {
		return fmt.Errorf("it printed no signature of the format %s", f.name)
	}
	for _, c := range b {
		if c != '\n' && (c < ' ' || c > '~') {
			return errors.New("its signature has a character that none has")
		}
	}
	if n := bytes.Count(b, []byte("-----")); n != 4 {
		return errors.New("it printed more than one signature")
	}
	return nil
}
