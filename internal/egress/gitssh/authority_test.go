package gitssh

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

func TestAuthority(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	a, err := OpenAuthority(t.Context(), state)
	if err != nil {
		t.Fatal(err)
	}
	again, err := OpenAuthority(t.Context(), state)
	if err != nil || string(again.PublicKey()) != string(a.PublicKey()) {
		t.Errorf("%s, then %v, %v", a.PublicKey(), again, err)
	}
	fi, err := os.Stat(filepath.Join(state, keyFile))
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi, err)
	}
	key, err := a.hostKey("git.example.org")
	if err != nil {
		t.Fatal(err)
	}
	check := ssh.CertChecker{IsHostAuthority: func(k ssh.PublicKey, _ string) bool {
		return string(ssh.MarshalAuthorizedKey(k)) == string(a.PublicKey())
	}}
	if err := check.CheckHostKey("git.example.org:22", nil, key.PublicKey()); err != nil {
		t.Error(err)
	}
	if err := check.CheckHostKey("other.example.org:22", nil, key.PublicKey()); err == nil {
		t.Error("the certificate is good for another name")
	}
	other, err := a.hostKey("git.example.org")
	if err != nil || string(other.PublicKey().Marshal()) == string(key.PublicKey().Marshal()) {
		t.Errorf("the host key is used again: %v", err)
	}
}

func TestAuthorityThatMayNotBeUsed(t *testing.T) {
	for name, damage := range map[string]func(file string) error{
		"other users may have read": func(file string) error { return os.Chmod(file, 0o640) },
		"is damaged":                func(file string) error { return os.WriteFile(file, []byte("x"), 0o600) },
	} {
		state := t.TempDir()
		if _, err := OpenAuthority(t.Context(), state); err != nil {
			t.Fatal(err)
		}
		if err := damage(filepath.Join(state, keyFile)); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenAuthority(t.Context(), state); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
