package sshlogin

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/egress/gitssh/gitsshtest"
)

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func writeKey(t *testing.T, file string, key ed25519.PrivateKey) {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, string(pem.EncodeToMemory(block)))
}

// TestSettings are those that the person's ssh has; where the connection goes is not among them.
func TestSettings(t *testing.T) {
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("ssh is not installed")
	}
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("SSH_AUTH_SOCK", "/run/agent")
	t.Setenv("OTHER_AGENT", "/run/other")
	write(t, filepath.Join(home, ".ssh/config"), `Host git.example.org
	User alice
	HostName elsewhere.example
	ProxyCommand false
	IdentityFile ~/.ssh/%h-%r
	IdentityFile /keys/x
	IdentitiesOnly yes
	IdentityAgent $OTHER_AGENT
	UserKnownHostsFile ~/.ssh/known /k2
Host quiet.example.org
	IdentityAgent none
	UserKnownHostsFile none
Host null.example.org
	UserKnownHostsFile /dev/null
	IdentityFile /dev/null
`)
	read := func(name string) *settings {
		s, err := readSettings(t.Context(), name, "git")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := read("git.example.org")
	if s.user != "alice" || !s.onlyNamed || s.agent != "/run/other" || !slices.Equal(s.keyFiles, []string{filepath.Join(home, ".ssh/git.example.org-git"), "/keys/x"}) ||
		len(s.knownHosts) < 2 || !slices.Contains(s.knownHosts, filepath.Join(home, ".ssh/known")) || !slices.Contains(s.knownHosts, "/k2") {
		t.Errorf("%+v", s)
	}
	if s := read("quiet.example.org"); s.agent != "" || slices.Contains(s.knownHosts, "none") {
		t.Errorf("%+v", s)
	}
	if s := read("null.example.org"); slices.Contains(s.knownHosts, os.DevNull) {
		t.Errorf("%+v", s)
	} else if _, _, err := s.keys(t.Context()); err == nil || strings.Contains(err.Error(), "can change") {
		t.Error(err)
	}
	s = read("other.example.org")
	if s.agent != "/run/agent" || s.onlyNamed || !slices.Contains(s.keyFiles, filepath.Join(home, ".ssh/id_ed25519")) || !slices.Contains(s.knownHosts, "/etc/ssh/ssh_known_hosts") {
		t.Errorf("%+v", s)
	}
}

// TestOrderOfKeys: the agent's keys that the settings name come first, then its others, unless only named
// ones may be used, then those in files.
func TestOrderOfKeys(t *testing.T) {
	dir := t.TempDir()
	names := map[string]string{}
	var held []ed25519.PrivateKey
	for _, name := range []string{"first", "named"} {
		s, key := gitsshtest.NewKey(t)
		held = append(held, key)
		names[string(s.PublicKey().Marshal())] = name
		if name == "named" {
			write(t, filepath.Join(dir, "named.pub"), string(ssh.MarshalAuthorizedKey(s.PublicKey())))
		}
	}
	s, key := gitsshtest.NewKey(t)
	names[string(s.PublicKey().Marshal())] = "file"
	writeKey(t, filepath.Join(dir, "file"), key)
	socket := gitsshtest.Agent(t, held...)
	for only, want := range map[bool]string{false: "named first file", true: "named file"} {
		set := &settings{agent: socket, keyFiles: []string{filepath.Join(dir, "named"), filepath.Join(dir, "file"), filepath.Join(dir, "absent")}, onlyNamed: only}
		keys, done, err := set.keys(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, k := range keys {
			got = append(got, names[string(k.PublicKey().Marshal())])
		}
		if done(); strings.Join(got, " ") != want {
			t.Errorf("only named ones: %v: %q", only, got)
		}
	}
}

// TestKeysThatCannotBeUsed: a pipe in a key's place makes nobody wait.
func TestKeysThatCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "text"), "no key")
	set := &settings{keyFiles: []string{pipe, filepath.Join(dir, "text")}}
	if _, _, err := set.keys(t.Context()); err == nil || !strings.Contains(err.Error(), "no ssh-agent is known") || !strings.Contains(err.Error(), "run ssh-add") {
		t.Error(err)
	}
	if _, err := readHostKeys([]string{pipe}, "git.example.org", 22); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Error(err)
	}
}

// TestHostKeys: by name and port, by a certificate of an authority that is known, with revoked keys refused. An
// authority's own key is no host key.
func TestHostKeys(t *testing.T) {
	key, _ := gitsshtest.NewKey(t)
	other, _ := gitsshtest.NewKey(t)
	ca, _ := gitsshtest.NewKey(t)
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ssh.NewPublicKey(&curve.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	cert := &ssh.Certificate{Key: key.PublicKey(), CertType: ssh.HostCert, ValidPrincipals: []string{"git.example.org"}, ValidBefore: ssh.CertTimeInfinity}
	if err := cert.SignCert(rand.Reader, ca); err != nil {
		t.Fatal(err)
	}
	line := func(k ssh.PublicKey, names ...string) string { return knownhosts.Line(names, k) + "\n" }
	authority := "@cert-authority *.example.org " + string(ssh.MarshalAuthorizedKey(ca.PublicKey()))
	for _, c := range []struct {
		name, file string
		port       uint16
		key        ssh.PublicKey
		want       string // empty: it is known
		first      string // algorithm that is asked for first
	}{
		{"known", line(key.PublicKey(), "git.example.org"), 22, key.PublicKey(), "", ssh.KeyAlgoED25519},
		{"known, hashed", line(key.PublicKey(), knownhosts.HashHostname("git.example.org")), 22, key.PublicKey(), "", ssh.KeyAlgoED25519},
		{"of another type", line(ecKey, "git.example.org"), 22, ecKey, "", ssh.KeyAlgoECDSA256},
		{"at another port", line(key.PublicKey(), "git.example.org"), 2222, key.PublicKey(), "run `ssh -p 2222 git@git.example.org`", ""},
		{"known at that port", line(key.PublicKey(), "[git.example.org]:2222"), 2222, key.PublicKey(), "", ssh.KeyAlgoED25519},
		{"of another host", line(key.PublicKey(), "other.example.org"), 22, key.PublicKey(), "is not known", ""},
		{"nothing", "", 22, key.PublicKey(), "is not known", ""},
		{"another", line(other.PublicKey(), "git.example.org"), 22, key.PublicKey(), "somebody may be in between", ssh.KeyAlgoED25519},
		{"revoked", line(key.PublicKey(), "git.example.org") + "@revoked * " + string(ssh.MarshalAuthorizedKey(key.PublicKey())), 22, key.PublicKey(), "revoked", ""},
		{"certified", authority, 22, cert, "", ssh.CertAlgoED25519v01},
		{"certified beside a key", authority + line(other.PublicKey(), "git.example.org"), 22, cert, "", ssh.CertAlgoED25519v01},
		{"certified for others", "@cert-authority *.example.com " + string(ssh.MarshalAuthorizedKey(ca.PublicKey())), 22, cert, "certificate", ""},
		{"the authority's own key", authority, 22, ca.PublicKey(), "is not known", ssh.CertAlgoED25519v01},
	} {
		file := filepath.Join(t.TempDir(), "known_hosts")
		write(t, file, c.file)
		h, err := readHostKeys([]string{file, file + ".absent"}, "git.example.org", c.port)
		if err != nil {
			t.Fatal(err)
		}
		err = h.check("", nil, c.key)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", c.name, err)
		}
		if got := h.algorithms(); c.first != "" && got[0] != c.first {
			t.Errorf("%s: %s", c.name, got)
		}
	}
}
