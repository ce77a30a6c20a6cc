package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/session"
	"bawn.dev/bawn/internal/sys/atomicfile"
	"bawn.dev/bawn/internal/sys/lockfile"
	"bawn.dev/bawn/internal/sys/proc"
	"bawn.dev/bawn/internal/sys/settings"
)

// The user's ssh_config gets one line, an Include of a file in the state folder
// (store.SSHInclude). That file includes the SSHConfigFile in each sandbox's folder by a
// pattern, so that nothing is to be rewritten when sandboxes come and go, and no block
// outlives its sandbox.

// InstallSSHConfig makes the user's ssh_config at path reach all sandboxes, those to come
// included: its first line becomes an Include, before any block that could change what the
// sandboxes' blocks say. A file that does not exist is made. A symbolic link is followed.
func (e *Engine) InstallSSHConfig(ctx context.Context, path string) error {
	l, err := e.lockSSHConfig(ctx)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := e.checkSSHReads(ctx); err != nil {
		return err
	}
	names, err := e.sandboxes.Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		d := e.sandboxes.Dir(name)
		err := session.MakeKeys(d, name)
		if err == nil {
			err = e.keepSSHConfig(d, name)
		}
		if err != nil {
			return err
		}
	}
	text := "# Written by bawn ssh-config --install: the hosts bawn-NAME, one for each sandbox.\n" +
		session.IncludeLine(e.sandboxes.Root(), "sandboxes/*/"+store.SSHConfigFile) + "\n"
	if err := atomicfile.Write(e.sandboxes.SSHInclude(), []byte(text)); err != nil {
		return err
	}
	return e.changeSSHConfig(path, session.WithInclude)
}

// UninstallSSHConfig takes back what InstallSSHConfig did to the ssh_config at path. A file
// in which nothing else stands is removed.
func (e *Engine) UninstallSSHConfig(ctx context.Context, path string) error {
	l, err := e.lockSSHConfig(ctx)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := e.changeSSHConfig(path, session.WithoutInclude); err != nil {
		return err
	}
	if err := os.Remove(e.sandboxes.SSHInclude()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// lockSSHConfig orders the changes of several processes.
func (e *Engine) lockSSHConfig(ctx context.Context) (*lockfile.Lock, error) {
	return lockfile.Acquire(ctx, e.sandboxes.SSHInclude()+".lock")
}

// changeSSHConfig replaces the ssh_config at path by what change makes of it and of the
// line that includes the store's.
func (e *Engine) changeSSHConfig(path string, change func(config []byte, line string) []byte) error {
	line := session.IncludeLine(e.sandboxes.Root(), filepath.Base(e.sandboxes.SSHInclude()))
	if err := settings.Check(path); err != nil { // a guest would choose the text, and by a link the file
		return because(SSHConfigFile, "", fmt.Errorf("%s is not changed: %w\nthe line is: %s", path, err, line))
	}
	if err := replaceSSHConfig(path, func(b []byte) []byte { return change(b, line) }); err != nil {
		return because(SSHConfigFile, "", fmt.Errorf("%w\nthe line is: %s", err, line))
	}
	return nil
}

func replaceSSHConfig(path string, change func([]byte) []byte) error {
	file, err := followed(path)
	if err != nil {
		return err
	}
	was, err := os.ReadFile(file)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return err
	}
	now := change(was)
	switch {
	case string(now) == string(was):
		return nil
	case len(now) == 0 && file == path:
		return os.Remove(file)
	case missing:
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return err
		}
	}
	return atomicfile.Replace(file, now, 0o600)
}

// followed returns the file that a path leads to: a regular one, or one that does not exist.
func followed(path string) (string, error) {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return path, nil
	}
	if err != nil {
		return "", err
	}
	file := path
	if fi.Mode()&fs.ModeSymlink != 0 {
		if file, err = filepath.EvalSymlinks(path); err != nil {
			return "", fmt.Errorf("the symbolic link %s cannot be followed: %w", path, err)
		}
		if fi, err = os.Lstat(file); err != nil {
			return "", err
		}
	}
	if !fi.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a regular file", file)
	}
	return file, nil
}

// CollectedSSH returns the options, one a string, that ssh would apply to a sandbox because
// of other blocks of the ssh_config at path, and that no block of bawn's can forbid
// (session.Collected). It runs ssh, which must be installed.
func (e *Engine) CollectedSSH(ctx context.Context, path, name string) ([]string, error) {
	d, err := e.folder(name)
	if err != nil {
		return nil, err
	}
	out, err := effectiveSSH(ctx, path, name)
	if err != nil {
		return nil, err
	}
	return session.Collected(d, out), nil
}

// effectiveSSH returns what ssh makes of a configuration for a sandbox. It runs no command of the configuration
// (proc.IdleShell), so that the blocks that depend on one do not count.
func effectiveSSH(ctx context.Context, path, name string) (string, error) {
	idle, err := proc.IdleShell()
	if err != nil {
		return "", err
	}
	c := proc.Command(ctx, "ssh", "-G", "-F", path, session.HostAlias(name))
	c.Env = append(c.Env, idle)
	out, err := c.Output()
	if err != nil {
		var failed *exec.ExitError
		if errors.As(err, &failed) {
			err = fmt.Errorf("%w: %s", err, failed.Stderr)
		}
		return "", fmt.Errorf("ssh -G: %w", err)
	}
	return string(out), nil
}

// checkSSHReads returns an error if the ssh of this host does not know an option of bawn's
// blocks: included in the user's configuration, they would keep it from every host. A host
// without ssh has nothing to lose.
func (e *Engine) checkSSHReads(ctx context.Context) error {
	if _, err := proc.Find("ssh"); err != nil {
		return nil
	}
	const name = "check"
	text, err := e.sshConfig(e.sandboxes.Dir(name), name)
	if err != nil {
		return err
	}
	sample := e.sandboxes.SSHInclude() + ".check"
	if err := atomicfile.Write(sample, []byte(text)); err != nil {
		return err
	}
	defer func() { _ = os.Remove(sample) }()
	if _, err := effectiveSSH(ctx, sample, name); err != nil {
		return because(SSHTooOld, "", err)
	}
	return nil
}
