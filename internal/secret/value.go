package secret

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"bawn.dev/bawn/internal/sys/atomicfile"
	"bawn.dev/bawn/internal/sys/bounded"
	"bawn.dev/bawn/internal/sys/proc"
	"bawn.dev/bawn/internal/sys/settings"
)

const (
	// commandTime bounds how long a secret's command may run. It may ask the person to
	// unlock something.
	commandTime = time.Minute
	// cacheTime is how long the output of a command is used again.
	cacheTime = 5 * time.Minute
	// failureTime is how long the failure of a command or of the keyring is given as the answer,
	// before it is tried again: each try may ask the person something, and a guest can make
	// thousands of requests at once.
	failureTime = 5 * time.Second
)

// fetch is the fetching of a value: under way until done is closed, then its outcome, which is used
// again until a time.
type fetch struct {
	done  chan struct{}
	value string
	err   error
	until time.Time
}

// over reports whether the value must be fetched anew.
func (f *fetch) over(now time.Time) bool {
	select {
	case <-f.done:
		return !now.Before(f.until)
	default:
		return false
	}
}

// ring is a keyring.
type ring interface {
	// Available reports whether there seems to be one.
	Available() bool
	Set(id, value string) error
	Get(id string) (string, error)
	Delete(id string) error
}

func (s *Store) valuePath(id string) string { return filepath.Join(s.config, valueFolder, id) }

// keep stores the value of a new entry: in the keyring if there is one that takes it, else in
// a file. It sets the entry's keeper.
func (s *Store) keep(sec *Secret, value string) error {
	if sec.Keeper == Command {
		return nil
	}
	if s.ring.Available() {
		if err := s.ring.Set(sec.Stored, value); err == nil {
			sec.Keeper = Keyring
			return nil
		}
	}
	path := s.valuePath(sec.Stored)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return atomicfile.Write(path, []byte(value))
}

// Keep stores a value that is not in the index, such as a token of a login, and sets the entry's keeper
// and what names the value in it.
func (s *Store) Keep(sec *Secret, value string) error {
	if err := CheckValue(value); err != nil {
		return fmt.Errorf("the value of %s cannot be used: %w", sec.Name, err)
	}
	sec.Keeper, sec.Stored = File, newID()
	return s.keep(sec, value)
}

// Forget removes the value of an entry.
func (s *Store) Forget(sec *Secret) error {
	switch sec.Keeper {
	case Keyring:
		return s.ring.Delete(sec.Stored)
	case File:
		if err := os.Remove(s.valuePath(sec.Stored)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Value returns the value of a secret. The output of a command is used for five minutes. The
// error names the secret and what failed, and never has the value.
func (s *Store) Value(ctx context.Context, sec *Secret) (v string, err error) {
	switch sec.Keeper {
	case Keyring:
		v, err = s.fetched(ctx, sec.Stored, 0, func(context.Context) (string, error) { return s.ring.Get(sec.Stored) })
	case File:
		var b []byte
		b, err = ReadOwn(s.valuePath(sec.Stored), MaxValue)
		v = string(b)
	case Command:
		v, err = s.fetched(ctx, sec.Stored, cacheTime, func(ctx context.Context) (string, error) {
			out, err := run(ctx, sec.Command)
			if err == nil && sec.Place.Where == InSignature {
				out, _, err = cleanKeyPair(out)
			}
			return out, err
		})
	default:
		err = fmt.Errorf("%q keeps it", sec.Keeper)
	}
	if err == nil {
		err = CheckValue(v)
	}
	if err == nil && sec.Place.Where == InSignature {
		_, _, err = cleanKeyPair(v)
	}
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		err = path.Err // a guest reads this, and the path is none of its business
	}
	if err != nil {
		return "", fmt.Errorf("the value of the secret %s is not available: %w", sec.Name, err)
	}
	return v, nil
}

// fetched returns what get returns, which is called once for all who want the value at the same time. A
// value is used again for as long as keep, a failure for failureTime. get goes on after the end of ctx,
// for the others.
func (s *Store) fetched(ctx context.Context, id string, keep time.Duration, get func(context.Context) (string, error)) (string, error) {
	s.mu.Lock()
	f := s.fetches[id]
	if now := time.Now(); f == nil || f.over(now) {
		for id, f := range s.fetches {
			if f.over(now) {
				delete(s.fetches, id)
			}
		}
		f = &fetch{done: make(chan struct{})}
		s.fetches[id] = f
		go func() {
			defer close(f.done)
			if f.value, f.err = get(context.WithoutCancel(ctx)); f.err == nil {
				f.err = CheckValue(f.value)
			}
			if f.until = expiry(f.value, time.Now().Add(keep)); f.err != nil {
				f.value, f.until = "", time.Now().Add(failureTime)
			}
		}()
	}
	s.mu.Unlock()
	select {
	case <-f.done:
		return f.value, f.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// passed are the variables by which password managers find their files and agents.
var passed = []string{
	"XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS",
	"SSH_AUTH_SOCK", "GNUPGHOME", "PASSWORD_STORE_DIR",
}

// folders are those of passed that name folders with settings, which may name code.
var folders = []string{"XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "GNUPGHOME", "PASSWORD_STORE_DIR"}

// trustCommand returns an error if a command, or a folder from which it takes its settings, is one that a guest or
// another user could have written.
func trustCommand(command string) error {
	if err := settings.CheckCommand(command); err != nil {
		return err
	}
	if err := settings.CheckFolders(folders...); err != nil {
		return err
	}
	return settings.CheckGnuPG()
}

// agentEnv returns those that are set, for a command.
func agentEnv() (env []string) {
	for _, k := range passed {
		if v, ok := os.LookupEnv(k); ok {
			env = append(env, k+"="+v)
		}
	}
	return env
}

// UnsafeError is why a file of the store is not read, a command not run, or a keyring not asked.
type UnsafeError struct {
	Why error // for the person: it may name paths of the host
}

// Error is for the guest too: it names nothing of the host.
func (e *UnsafeError) Error() string {
	return "it comes from a file, a command or a service that a guest or another user may have changed: on the host, bawn secret check or bawn login names it"
}

// run runs a command without input, in an environment in which it finds no program that a
// guest could have written (package proc), and returns what it printed, without the end of the line.
// What it says about errors is left out of the error: it may have the value.
func run(ctx context.Context, command string) (string, error) {
	if err := trustCommand(command); err != nil {
		return "", &UnsafeError{err}
	}
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	out := &bounded.Writer{Max: MaxValue + 2} // with the end of a line
	c := proc.Command(ctx, "/bin/sh", "-c", command)
	c.Env = append(c.Env, agentEnv()...)
	c.Stdout = out
	c.Dir = "/"
	proc.InSession(c)
	err := c.Run()
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("its command did not end within %s", commandTime)
	case notFound(err) && len(proc.LeftOut()) > 0:
		return "", &UnsafeError{leftOut(err)}
	case err != nil:
		return "", fmt.Errorf("its command failed (%w): run it on the host to see why", err)
	case out.Over:
		return "", fmt.Errorf("its command printed more than %d bytes", MaxValue)
	}
	return strings.TrimRight(string(out.Kept), "\r\n"), nil
}

// notFound reports whether a shell found no program (POSIX, 2.8.2: status 127).
func notFound(err error) bool {
	var failed *exec.ExitError
	return errors.As(err, &failed) && failed.ExitCode() == 127
}

// leftOut says of a command that a shell did not find that it searched fewer folders than the person's shell does.
func leftOut(err error) error {
	var list []string
	for _, s := range proc.LeftOut() {
		list = append(list, s.Path+" ("+s.Why+")")
	}
	return fmt.Errorf("its command failed (%w): it may need a program of these entries of the PATH, which are not searched: %s", err, strings.Join(list, "; "))
}
