package engine_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/engine/enginetest"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/sys/proc"
	"bawn.dev/bawn/internal/sys/xdg"
)

// shareWithGuest makes a sandbox whose guest can write to a directory.
func shareWithGuest(t *testing.T, sandboxes *store.Store, dir string) {
	t.Helper()
	if _, err := sandboxes.Create(&sandbox.Spec{
		ID: sandbox.NewID(), Name: "guest", Dir: dir, Project: sandbox.Source{Host: dir, Guest: dir}, CPUs: 1, Memory: 1 << 30, Disk: 1 << 30,
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { proc.Distrust(nil) })
}

// TestAttackSSHConfigOfAGuest: the person's ssh_config includes a file that a guest writes, which runs a command.
func TestAttackSSHConfigOfAGuest(t *testing.T) {
	e, sandboxes, config := sshHome(t)
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("no ssh here")
	}
	dots := t.TempDir()
	shareWithGuest(t, sandboxes, dots)
	mark := filepath.Join(t.TempDir(), "mark")
	writeConfig(t, filepath.Join(dots, "config"), "Match exec \"touch "+mark+"\"\n  RemoteForward 8080 localhost:80\n")
	writeConfig(t, config, "Include "+filepath.Join(dots, "config")+"\n")
	if err := e.InstallSSHConfig(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	if _, err := e.CollectedSSH(t.Context(), config, "shop"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("a command of the guest ran")
	}
}

// TestAttackInstallSSHConfigBehindALink: what bawn writes to a file in a shared directory is the guest's to choose, and
// so is where.
func TestAttackInstallSSHConfigBehindALink(t *testing.T) {
	e, sandboxes, config := sshHome(t)
	dots := t.TempDir()
	shareWithGuest(t, sandboxes, dots)
	const text = "Host a\n"
	writeConfig(t, filepath.Join(dots, "config"), text)
	if err := errors.Join(os.MkdirAll(filepath.Dir(config), 0o700), os.Symlink(filepath.Join(dots, "config"), config)); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]error{"install": e.InstallSSHConfig(t.Context(), config), "uninstall": e.UninstallSSHConfig(t.Context(), config)} {
		if engine.ReasonOf(change) != engine.SSHConfigFile || !strings.Contains(change.Error(), "the line is: Include ") {
			t.Errorf("%s: %v", what, change)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dots, "config")); string(b) != text || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}

// TestAttackCertificatesInAShareOfAStart: the certificates by which a supervisor would believe servers lie where a guest
// writes, since the environment (direnv) leads there. Verbs that connect to no server do not need them.
func TestAttackCertificatesInAShareOfAStart(t *testing.T) {
	dots := t.TempDir()
	enginetest.TempHome(t)
	sandboxes, err := store.Open()
	if err != nil {
		t.Fatal(err)
	}
	shareWithGuest(t, sandboxes, dots)
	if err := os.WriteFile(filepath.Join(dots, "ca.pem"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for variable, value := range map[string]string{"SSL_CERT_FILE": filepath.Join(dots, "ca.pem"), "SSL_CERT_DIR": dots} {
		t.Run(variable, func(t *testing.T) {
			t.Setenv("SSL_CERT_FILE", "")
			t.Setenv("SSL_CERT_DIR", "")
			t.Setenv(variable, value)
			e, err := engine.Open(engine.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := e.EnsureRunning(t.Context(), "guest"); err == nil || !strings.Contains(err.Error(), "the certificates that "+variable+" names are not believed") {
				t.Errorf("a start: %v", err)
			}
			if err := e.Stop(t.Context(), "guest", false); err != nil {
				t.Errorf("a stop: %v", err)
			}
		})
	}
}

// TestAttackFoldersOfBawnInAShare: what bawn keeps lies where a guest writes, since a link or the environment (direnv)
// leads there by now.
func TestAttackFoldersOfBawnInAShare(t *testing.T) {
	dots, home := t.TempDir(), t.TempDir()
	t.Setenv("HOME", home)
	state := filepath.Join(home, "state")
	for k, v := range map[string]string{"XDG_STATE_HOME": state, "XDG_CACHE_HOME": "", "XDG_CONFIG_HOME": "", "SSL_CERT_FILE": "", "SSL_CERT_DIR": ""} {
		t.Setenv(k, v)
	}
	sandboxes, err := store.Open()
	if err != nil {
		t.Fatal(err)
	}
	shareWithGuest(t, sandboxes, dots)
	open := func(want string) {
		t.Helper()
		_, err := engine.Open(engine.Options{})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("want %q: %v", want, err)
		}
	}
	open("")
	if dir, err := xdg.Cache(); dir != filepath.Join(home, ".cache/bawn") || err != nil {
		t.Errorf("%q, %v", dir, err)
	}
	t.Setenv("XDG_CACHE_HOME", filepath.Join(dots, ".cache"))
	if dir, err := xdg.Cache(); dir != "" || err == nil || !strings.Contains(err.Error(), "the guest of sandbox guest can write to") {
		t.Errorf("%q, %v", dir, err)
	}
	if err := sandboxes.CheckShare(dots, false); err == nil {
		t.Error("the directory with the cache may be shared")
	}
	t.Setenv("XDG_CACHE_HOME", "")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	programs := filepath.Dir(self)
	if _, err := sandboxes.Create(&sandbox.Spec{ID: sandbox.NewID(), Name: "builds", Dir: programs, Project: sandbox.Source{Host: programs, Guest: programs}}); err != nil {
		t.Fatal(err)
	}
	open("bawn itself ")
	if err := errors.Join(os.RemoveAll(sandboxes.Dir("builds").Path), os.Remove(filepath.Join(state, "bawn/shared"))); err != nil {
		t.Fatal(err)
	}
	open("")
	if err := errors.Join(os.Rename(state, filepath.Join(dots, "state")), os.Symlink(filepath.Join(dots, "state"), state)); err != nil {
		t.Fatal(err)
	}
	open("bawn's own folder ")
}
