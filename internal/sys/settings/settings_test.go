package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/sys/proc/proctest"
)

// TestAttackSettingsThatAGuestWrites: a file in a shared directory is not read as the user's, nor by a link to it.
func TestAttackSettingsThatAGuestWrites(t *testing.T) {
	home, shared := t.TempDir(), t.TempDir()
	proctest.Share(t, shared)
	own, evil, link := filepath.Join(home, "own"), filepath.Join(shared, "evil"), filepath.Join(home, "link")
	for _, f := range []string{own, evil} {
		if err := os.WriteFile(f, []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(evil, link); err != nil {
		t.Fatal(err)
	}
	if text, err := Read(own, 4); string(text) != "text" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	if text, err := Read(os.DevNull, 4); len(text) > 0 || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	for _, f := range []string{evil, link} {
		if text, err := Read(f, 4); text != nil || err == nil || !strings.Contains(err.Error(), "is not used: ") {
			t.Errorf("%s: %q, %v", f, text, err)
		}
	}
	if _, err := Read(filepath.Join(shared, "none"), 4); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// TestAttackCommandsThatNameFilesOfAGuest: a command of the person's settings names a script in a project.
func TestAttackCommandsThatNameFilesOfAGuest(t *testing.T) {
	home, shared := t.TempDir(), t.TempDir()
	proctest.Share(t, shared)
	t.Setenv("HOME", home)
	script, own := filepath.Join(shared, "a script"), filepath.Join(home, "own")
	for _, f := range []string{script, own} {
		if err := os.WriteFile(f, nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(shared, filepath.Join(home, "dots")); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{
		"'" + script + "' x", "sh \"" + script + "\"", strings.ReplaceAll(script, " ", "\\ "), "~/dots/a\\ script", "ls ~/dots|cat", "$HOME/dots/'a script'",
		"\"${HOME}/dots/a script\"", "true;ENV=" + shared + " sh", "cat <" + shared + "/x <" + shared, "x --config=" + shared, "echo \"$(ls " + shared + ")\"", "`" + shared + "`",
	} {
		if err := CheckCommand(command); err == nil || !strings.Contains(err.Error(), "a guest can write to") {
			t.Errorf("%s: %v", command, err)
		}
	}
	for _, command := range []string{"", "less -R", own + " x 2>/dev/null", "~/own", "sed -n /token/p " + shared + "/none", "/bin/sh -c 'true'", "cat \"", "x \\"} {
		if err := CheckCommand(command); err != nil {
			t.Errorf("%s: %v", command, err)
		}
	}
}

// TestAttackCertificatesOfAGuest: who writes the authorities chooses which servers are believed.
func TestAttackCertificatesOfAGuest(t *testing.T) {
	own, shared := t.TempDir(), t.TempDir()
	proctest.Share(t, shared)
	file, folder := filepath.Join(shared, "ca.pem"), filepath.Join(own, "certs")
	for _, err := range []error{os.WriteFile(file, nil, 0o600), os.Mkdir(folder, 0o700), os.WriteFile(filepath.Join(own, "ca.pem"), nil, 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	check := func(file, folders string, refused string) {
		t.Helper()
		t.Setenv("SSL_CERT_FILE", file)
		t.Setenv("SSL_CERT_DIR", folders)
		err := CheckCertificates()
		if use := UseCertificates(); fmt.Sprint(use) != fmt.Sprint(err) {
			t.Errorf("%q, %q: used: %v", file, folders, use)
		}
		if refused == "" && err != nil || refused != "" && (err == nil || !strings.Contains(err.Error(), refused)) {
			t.Errorf("%q, %q: %v", file, folders, err)
		}
	}
	check("", "", "")
	check(filepath.Join(own, "ca.pem"), folder+":"+own, "")
	check(file, "", "SSL_CERT_FILE")
	check("", own+":"+shared, "SSL_CERT_DIR")
	check("ca.pem", "", "SSL_CERT_FILE")
	if err := os.Symlink(file, filepath.Join(folder, "link.pem")); err != nil {
		t.Fatal(err)
	}
	check("", folder, "link.pem")
}
