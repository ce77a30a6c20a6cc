package engine_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
)

// sshHome returns an engine whose state is in a folder with an awkward name, with the
// sandbox shop, and the path of an ssh_config that does not exist.
func sshHome(t *testing.T) (e *engine.Engine, sandboxes *store.Store, config string) {
	t.Helper()
	home := t.TempDir()
	sandboxes, err := store.OpenAt(filepath.Join(home, "a [b] 50% $HOME *"))
	if err != nil {
		t.Fatal(err)
	}
	create(t, sandboxes, "shop")
	e = engine.New(sandboxes, engine.Options{SSHProxy: func(name string) string { return "bawn proxy " + name }})
	return e, sandboxes, filepath.Join(home, ".ssh", "config")
}

func create(t *testing.T, sandboxes *store.Store, name string) {
	t.Helper()
	if _, err := sandboxes.Create(&sandbox.Spec{Name: name}); err != nil {
		t.Fatal(err)
	}
}

// sshOption asks ssh what an option of a host is.
func sshOption(t *testing.T, config, host, option string) string {
	t.Helper()
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		t.Skip("no ssh here")
	}
	out, err := exec.CommandContext(t.Context(), ssh, "-G", "-F", config, host).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for l := range strings.Lines(string(out)) {
		if value, ok := strings.CutPrefix(l, option+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// TestInstallSSHConfigWinsOverEarlierBlocks: of a configuration that forwards the agent to
// every host, also for a sandbox that is made later; a sandbox that is removed leaves no
// block.
func TestInstallSSHConfigWinsOverEarlierBlocks(t *testing.T) {
	e, sandboxes, config := sshHome(t)
	const mine = "Host *\n  ForwardAgent yes\n  StrictHostKeyChecking no\n  User root"
	writeConfig(t, config, mine)
	for range 2 {
		if err := e.InstallSSHConfig(t.Context(), config); err != nil {
			t.Fatal(err)
		}
	}
	for option, want := range map[string]string{"forwardagent": "no", "stricthostkeychecking": "true", "proxycommand": "bawn proxy shop", "user": engine.GuestUser().Name} {
		if got := sshOption(t, config, "bawn-shop", option); got != want {
			t.Errorf("%s is %q, want %q", option, got, want)
		}
	}
	if got := sshOption(t, config, "other", "forwardagent"); got != "yes" {
		t.Errorf("another host's agent forwarding is %s", got)
	}
	if err := sandboxes.Dir("shop").Remove(); err != nil {
		t.Fatal(err)
	}
	if got := sshOption(t, config, "bawn-shop", "proxycommand"); got != "" {
		t.Errorf("a removed sandbox is reached by %q", got)
	}
	if err := e.UninstallSSHConfig(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(config); err != nil || string(b) != mine {
		t.Errorf("after --uninstall: %q, %v", b, err)
	}
}

func writeConfig(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
}

// TestInstallSSHConfigLeavesTheRest: modes, symbolic links, and what cannot be changed.
func TestInstallSSHConfigLeavesTheRest(t *testing.T) {
	t.Run("no file", func(t *testing.T) {
		e, _, config := sshHome(t)
		if err := e.InstallSSHConfig(t.Context(), config); err != nil {
			t.Fatal(err)
		}
		for path, mode := range map[string]fs.FileMode{filepath.Dir(config): 0o700, config: 0o600} {
			if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != mode {
				t.Errorf("%s: %v, %v", path, fi.Mode(), err)
			}
		}
		if err := e.UninstallSSHConfig(t.Context(), config); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(config); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the file stays: %v", err)
		}
	})
	t.Run("symbolic link", func(t *testing.T) {
		e, _, config := sshHome(t)
		target := filepath.Join(t.TempDir(), "dotfiles", "ssh")
		writeConfig(t, target, "Host a\n")
		if err := os.MkdirAll(filepath.Dir(config), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, config); err != nil {
			t.Fatal(err)
		}
		for _, change := range []func(context.Context, string) error{e.InstallSSHConfig, e.UninstallSSHConfig} {
			if err := change(t.Context(), config); err != nil {
				t.Fatal(err)
			}
			if to, err := os.Readlink(config); err != nil || to != target {
				t.Errorf("the link: %q, %v", to, err)
			}
			if fi, err := os.Stat(target); err != nil || fi.Mode().Perm() != 0o640 {
				t.Errorf("the target: %v, %v", fi.Mode(), err)
			}
		}
		if b, _ := os.ReadFile(target); string(b) != "Host a\n" {
			t.Errorf("the target: %q", b)
		}
	})
	for name, put := range map[string]func(config string) error{
		"dangling link": func(config string) error { return os.Symlink("nowhere", config) },
		"directory":     func(config string) error { return os.Mkdir(config, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			e, _, config := sshHome(t)
			if err := os.MkdirAll(filepath.Dir(config), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := put(config); err != nil {
				t.Fatal(err)
			}
			err := e.InstallSSHConfig(t.Context(), config)
			if engine.ReasonOf(err) != engine.SSHConfigFile || !strings.Contains(err.Error(), "Include ") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestCollectedSSH finds what another block adds to a sandbox's.
func TestCollectedSSH(t *testing.T) {
	e, _, config := sshHome(t)
	writeConfig(t, config, "Host *\n  RemoteForward 8080 localhost:80\n  ForwardAgent yes\n")
	if err := e.InstallSSHConfig(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("no ssh here")
	}
	got, err := e.CollectedSSH(t.Context(), config, "shop")
	if err != nil || !slices.Equal(got, []string{"remoteforward 8080 [localhost]:80"}) {
		t.Errorf("%q, %v", got, err)
	}
}

// TestInstallSSHConfigOfAnOldSSH, which knows an option less, changes nothing: an include with
// an error in it would keep the user from every host.
func TestInstallSSHConfigOfAnOldSSH(t *testing.T) {
	e, _, config := sshHome(t)
	const mine = "Host a\n"
	writeConfig(t, config, mine)
	bin := t.TempDir()
	script := "#!/bin/sh\necho 'Bad configuration option: knownhostscommand' >&2\nexit 255\n"
	if err := os.WriteFile(filepath.Join(bin, "ssh"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	err := e.InstallSSHConfig(t.Context(), config)
	if engine.ReasonOf(err) != engine.SSHTooOld || !strings.Contains(err.Error(), "knownhostscommand") {
		t.Errorf("got %v", err)
	}
	if b, err := os.ReadFile(config); err != nil || string(b) != mine {
		t.Errorf("%q, %v", b, err)
	}
}
