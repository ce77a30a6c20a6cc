package attack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Names of files that the probe makes.
const (
	setuidName = "setuid"
	deviceName = "device"
	newSuffix  = ".new"
)

// maxSaid bounds what is reported of a file, in bytes.
const maxSaid = 500

// content returns the beginning of a file, or the error.
func content(name string) string {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSaid))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func read(path func(*probe) string) func(*probe) (string, error) {
	return func(p *probe) (string, error) { return content(path(p)), nil }
}

// up is a path that leads from the project to the host's root, if .. leads out of it.
func up(path string) string { return strings.Repeat("../", 20) + strings.TrimPrefix(path, "/") }

func (p *probe) dotdot() (string, error) {
	return content("../secret") + "; " + content(up(p.Secret)), nil
}

func (p *probe) symlink() (string, error) {
	var said []string
	for i, target := range []string{p.Secret, "../secret", up(p.Secret)} {
		name := fmt.Sprint("symlink", i)
		if err := os.Symlink(target, name); err != nil {
			said = append(said, err.Error())
			continue
		}
		said = append(said, content(name))
	}
	return strings.Join(said, "; "), nil
}

func (p *probe) hardLink() (string, error) {
	var said []string
	for i, target := range []string{p.Secret, "../secret"} {
		name := fmt.Sprint("hardlink", i)
		if err := os.Link(target, name); err != nil {
			said = append(said, err.Error())
			continue
		}
		said = append(said, content(name))
	}
	return strings.Join(said, "; "), nil
}

func (p *probe) procRoot() (string, error) {
	return content("/proc/self/root"+p.Secret) + "; " + content("/proc/1/root"+p.Secret), nil
}

// raceTime is how long the race with the host's exchange is run.
const raceTime = time.Second

func (p *probe) swap() (string, error) {
	for end := time.Now().Add(raceTime); time.Now().Before(end); {
		for _, name := range []string{"dir", "link"} {
			if s := content(filepath.Join(swapName, name, "secret")); s != untouched && !errorText(s) {
				return s, nil
			}
		}
	}
	return "nothing but the directory's own file", nil
}

// errorText reports whether content returned an error.
func errorText(s string) bool { return strings.HasPrefix(s, "open ") || strings.HasPrefix(s, "read ") }

func (p *probe) write() (string, error) {
	var errs []error
	for _, name := range []string{p.Target, "../target", up(p.Target), "/proc/1/root" + p.Target} {
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_TRUNC, 0) // not made: one of the sandbox's own would show nothing
		if err == nil {
			_, err = f.WriteString(p.Nonce)
			err = errors.Join(err, f.Close())
		}
		errs = append(errs, err, os.WriteFile(name+newSuffix, []byte(p.Nonce), 0o600))
	}
	return fmt.Sprint(errors.Join(errs...)), nil
}

func (p *probe) setuid() (string, error) {
	err := os.WriteFile(setuidName, []byte("#!/bin/sh\n"), 0o755) //nolint:gosec // an attack
	return fmt.Sprint(errors.Join(err, os.Chmod(setuidName, 0o755|os.ModeSetuid))), nil
}

func (p *probe) device() (string, error) {
	return fmt.Sprint(unix.Mknod(deviceName, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))), nil // /dev/null's numbers (null(4))
}

// processes calls f with the number of each process that the sandbox shows, except this one.
func processes(f func(pid int)) {
	list, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	for _, e := range list {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid != os.Getpid() {
			f(pid)
		}
	}
}

func (p *probe) kill() (string, error) {
	said := "the sandbox does not show the process"
	processes(func(pid int) {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && bytes.Contains(b, []byte(p.Victim)) {
			said = fmt.Sprintf("kill: %v", unix.Kill(pid, unix.SIGKILL))
		}
	})
	return said, nil
}

// environment looks for the variable in its own environment and in those of all processes.
func (p *probe) environment() (string, error) {
	if v := os.Getenv(canary); v != "" {
		return v, nil
	}
	said := "no process that the sandbox shows has the variable"
	processes(func(pid int) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if i := bytes.Index(b, []byte(canary+"=")); err == nil && i >= 0 {
			said = string(b[i:min(len(b), i+100)])
		}
	})
	return said, nil
}

// writeIn writes a file of the project, and makes its directory.
func writeIn(name string) func(*probe) (string, error) {
	return func(p *probe) (string, error) {
		err := os.MkdirAll(filepath.Dir(name), 0o755)                                        //nolint:gosec // an attack
		return fmt.Sprint(errors.Join(err, os.WriteFile(name, []byte(p.Nonce), 0o755))), nil //nolint:gosec // an attack
	}
}
