package sshlogin

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh/knownhosts"

	"bawn.dev/bawn/internal/egress/gitssh/gitsshtest"
	"bawn.dev/bawn/internal/sys/proc/proctest"
)

// distrust makes a directory one that guests can write to.
func distrust(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	proctest.Share(t, dir)
}

// TestAttackConfigurationThatAGuestWrites: where a file of the person's ssh lies in a directory that a guest can
// write to (a repository of dotfiles), no command of it runs (Match exec), also none that is there a moment later.
func TestAttackConfigurationThatAGuestWrites(t *testing.T) {
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("ssh is not installed")
	}
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("SSH_AUTH_SOCK", "")
	project, mark, config := filepath.Join(home, "dotfiles"), filepath.Join(home, "mark"), filepath.Join(home, ".ssh/config")
	hostile := "Match exec \"touch " + mark + "\"\n\tUser eve\n"
	signer, _ := gitsshtest.NewKey(t)
	known := knownhosts.Line([]string{"git.example.org"}, signer.PublicKey()) + "\n"
	for _, c := range []struct {
		name string
		file string // in the project, hostile
		text string // of ~/.ssh/config; empty: a link to the file
	}{
		{"a link to it", "ssh/config", ""},
		{"an included file", "ssh/extra", "Host a\n\tUser b\nInclude " + project + "/ssh/extra\n"},
		{"an included file, from home", "ssh/extra", "include=\"~/dotfiles/ssh/extra\"\n"},
		{"one among several files", "ssh/extra.conf", "Include /etc/none " + project + "/ssh/*.conf\n"},
		{"in a block for others", "ssh/extra", "Host other.example.org\n\tInclude " + project + "/ssh/extra\n"},
		{"in a block by a command", "ssh/extra", "Match exec true\n\tInclude " + project + "/ssh/extra\n"},
		{"a folder without a file yet", "", "Include " + project + "/ssh/*.conf\n"},
		{"a file that is not there yet", "", "Host *\n\tInclude \"" + project + "/later\"\n"},
		{"a file that is named by a variable", "", "Include ${HOME}/dotfiles/later\n"},
	} {
		proctest.Share(t)
		if err := errors.Join(os.RemoveAll(project), os.RemoveAll(config), os.RemoveAll(mark)); err != nil {
			t.Fatal(err)
		}
		if c.file != "" {
			write(t, filepath.Join(project, c.file), hostile)
		}
		write(t, config, c.text)
		if c.text == "" {
			if err := errors.Join(os.Remove(config), os.Symlink(filepath.Join(project, c.file), config)); err != nil {
				t.Fatal(err)
			}
		}
		distrust(t, project)
		_, _, err := Config(t.Context(), "git.example.org", 22, "git")
		var failed *Error
		if !errors.As(err, &failed) || strings.Contains(failed.Reason, home) || !strings.Contains(failed.Detail, "dotfiles") {
			t.Errorf("%s: %v", c.name, err)
		}
		if _, err := os.Stat(mark); err == nil {
			t.Errorf("%s: a command of the guest ran on the host", c.name)
		}
	}
	// The person's own commands count as before.
	write(t, config, "Match exec \"touch "+mark+"\"\n\tIdentityAgent none\n\tUser alice\nInclude config.d/*\nInclude ~/.ssh/none\n")
	write(t, filepath.Join(home, ".ssh/config.d/a"), "Host git.example.org\n\tIdentityFile ~/.ssh/k\n")
	write(t, filepath.Join(home, ".ssh/known_hosts"), known)
	if s, err := readSettings(t.Context(), "git.example.org", "git"); err != nil || s.user != "alice" {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := os.Stat(mark); err != nil {
		t.Error(err)
	}
}

// TestAttackKnownHostsThatAGuestWrites: a guest does not choose which server is believed, nor by which key the person
// logs in.
func TestAttackKnownHostsThatAGuestWrites(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	project := filepath.Join(home, "dotfiles")
	signer, key := gitsshtest.NewKey(t)
	write(t, filepath.Join(project, "known_hosts"), knownhosts.Line([]string{"git.example.org"}, signer.PublicKey())+"\n")
	writeKey(t, filepath.Join(project, "id"), key)
	s := &settings{keyFiles: []string{filepath.Join(project, "id")}}
	keys, done, err := s.keys(t.Context())
	if err != nil || len(keys) != 1 {
		t.Fatal(keys, err)
	}
	done()
	distrust(t, project)
	for _, name := range []string{"known_hosts", "known_hosts2"} { // the latter is not there yet
		if _, err := readHostKeys([]string{filepath.Join(project, name)}, "git.example.org", 22); err == nil || !strings.Contains(err.Error(), "can write to") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if keys, _, err := s.keys(t.Context()); err == nil || !strings.Contains(err.Error(), "a guest") {
		t.Errorf("%v, %v", keys, err)
	}
}

// TestAttackSSHThatTellsNothing: what ssh reads is not guessed.
func TestAttackSSHThatTellsNothing(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	write(t, filepath.Join(home, "bin/ssh"), "#!/bin/sh\necho user alice\n")
	if err := os.Chmod(filepath.Join(home, "bin/ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Join(home, "bin")+":"+os.Getenv("PATH"))
	if s, err := readSettings(t.Context(), "git.example.org", "git"); err != nil || s.user != "alice" {
		t.Errorf("without a file: %+v, %v", s, err)
	}
	write(t, filepath.Join(home, ".ssh/config"), "User bob\n")
	var failed *Error
	if _, err := readSettings(t.Context(), "git.example.org", "git"); !errors.As(err, &failed) || !strings.Contains(failed.Detail, "does not tell") {
		t.Error(err)
	}
}

// TestABrokenConfiguration is an error, as for the person's own ssh: without it, other keys would be used.
func TestABrokenConfiguration(t *testing.T) {
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("ssh is not installed")
	}
	home := t.TempDir()
	t.Setenv("HOME", home)
	write(t, filepath.Join(home, ".ssh/config"), "IdentitiesOnly perhaps\n")
	var failed *Error
	if _, _, err := Config(t.Context(), "git.example.org", 22, "git"); !errors.As(err, &failed) || !strings.Contains(failed.Detail, "line 1") {
		t.Error(err)
	}
}
