// Package store keeps sandboxes on disk.
//
// Everything of a sandbox is in one folder that only its owner can open (mode
// 0700): see Dir for the names. No process needs to run for a sandbox to exist. The
// supervisor that runs one holds its lock, so the kernel answers "is it running?"
// (fcntl_locking(2)), and not a file that a crash leaves behind.
package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/atomicfile"
	"bawn.dev/bawn/internal/sys/lockfile"
	"bawn.dev/bawn/internal/sys/xdg"
)

// Names of the files in a sandbox's folder.
const (
	specFile      = "spec.json"
	stateFile     = "state.json"
	lockFile      = "lock"       // held by the supervisor while it lives
	startLockFile = "start.lock" // held by whoever starts, changes or removes the sandbox
	ownerLockFile = "owner.lock" // held by the bawn whose command a throwaway sandbox is for

	DiskFile          = "disk.raw"
	ClientKeyFile     = "id_ed25519"     // OpenSSH private key of the host's side
	HostKeyFile       = "host_ed25519"   // OpenSSH private key given to the guest
	KnownHostsFile    = "known_hosts"    // for OpenSSH clients
	SSHConfigFile     = "ssh_config"     // for OpenSSH clients; SSHInclude of the store includes it
	ConsoleFile       = "console.log"    // what the guest printed, bounded
	SupervisorLogFile = "supervisor.log" // the supervisor's own log, bounded
	ControlSocket     = "control.sock"   // CLI to supervisor (package control)
	SSHSocket         = "ssh.sock"       // raw bytes to the guest's SSH server
	GDBSocket         = "gdb.sock"       // the machine's gdb stub, where BAWN_GDB is set
	PolicyFile        = "policy"         // network rules of this sandbox
	ProjectPolicyFile = "policy.project" // rules of the project's bawn.yaml, as approved
	NetLogFile        = "net.log"        // decisions on traffic, bounded
	FilesLogFile      = "files.log"      // changes of guarded paths, bounded
	SignFolder        = "sign"           // what is being signed; empty or missing otherwise
	PrivateFolder     = "private"        // the guest's own versions of guarded paths, by share

	PoolKeyFile = "key"        // of a pool member: which sandboxes it can become
	ClaimSocket = "claim.sock" // of a pool member: where it is claimed

	// AgentsFolder, in the store's folder, has the homes of agents.
	AgentsFolder = "agents"
	// VolumesFolder, in the store's folder, has the volumes (package volume).
	VolumesFolder = "volumes"

	SuspendedFolder = "suspended"         // holds SuspendedState, whole or not there
	SuspendedState  = "suspended/machine" // a snapshot (package snapshot) that belongs to DiskFile
	SnapshotsFolder = "snapshots"         // snapshots by name
	UndoFolder      = "undo"              // what the guest changed in the project (package undo)
)

// Store is the folder that holds all sandboxes of one user.
type Store struct {
	root string
}

// Open returns the user's store, making its folder (mode 0700) if need be.
// It stands in $XDG_STATE_HOME/bawn, by default ~/.local/state/bawn.
func Open() (*Store, error) {
	root, err := xdg.State()
	if err != nil {
		return nil, err
	}
	return OpenAt(root)
}

// OpenAt returns the store in the folder root.
func OpenAt(root string) (*Store, error) {
	if err := os.MkdirAll(filepath.Join(root, "sandboxes"), 0o700); err != nil {
		return nil, fmt.Errorf("state folder: %w (set XDG_STATE_HOME to a folder that you own)", err)
	}
	if err := private(root); err != nil {
		return nil, err
	}
	return &Store{root: root}, nil
}

// private sets the mode of dir so that other users cannot enter it.
func private(dir string) error {
	fi, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("state folder %s belongs to user %d, and bawn keeps private keys there: set XDG_STATE_HOME to a folder that you own", dir, st.Uid)
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return os.Chmod(dir, 0o700) //nolint:gosec // a folder
	}
	return nil
}

// Pool returns the store of the pool machines.
func (s *Store) Pool() (*Store, error) { return OpenAt(filepath.Join(s.root, "pool")) }

// Root returns the store's folder.
func (s *Store) Root() string { return s.root }

// sandboxesPath returns the folder with the sandboxes' folders.
func (s *Store) sandboxesPath() string { return filepath.Join(s.root, "sandboxes") }

// SSHInclude returns the ssh_config(5) that includes the SSHConfigFile of every sandbox.
func (s *Store) SSHInclude() string { return filepath.Join(s.root, "ssh_config") }

// Dir is one sandbox's folder.
type Dir struct {
	Path string
}

// Dir returns the folder of the sandbox of that name, which need not exist.
func (s *Store) Dir(name string) Dir { return Dir{filepath.Join(s.sandboxesPath(), name)} }

// LockPath returns the file that a supervisor holds open while it lives.
func (d Dir) LockPath() string { return d.File(lockFile) }

// StartLockPath returns the path of the lock for starting, changing or removing the sandbox.
func (d Dir) StartLockPath() string { return d.File(startLockFile) }

// File returns the path of a file in the folder.
func (d Dir) File(name string) string { return filepath.Join(d.Path, name) }

// Private returns the folder of the private versions of the share that the guest has at a path
// (package share). A fork, which has its shares at the same paths, has the same names.
func (d Dir) Private(guest string) string {
	sum := sha256.Sum256([]byte(guest))
	return filepath.Join(d.File(PrivateFolder), hex.EncodeToString(sum[:8]))
}

// Spec reads the sandbox's spec.
func (d Dir) Spec() (*sandbox.Spec, error) {
	b, err := os.ReadFile(d.File(specFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", errNotFound, filepath.Base(d.Path))
	}
	if err != nil {
		return nil, err
	}
	var s sandbox.Spec
	if err := decode(b, &s, d.File(specFile)); err != nil {
		return nil, err
	}
	return &s, nil
}

// WriteSpec replaces the sandbox's spec, after what it shares for writing is recorded. The
// caller holds the start lock.
func (d Dir) WriteSpec(s *sandbox.Spec) error {
	if err := d.RecordShared(writable(s)...); err != nil {
		return err
	}
	return atomicfile.WriteJSON(d.File(specFile), s)
}

// WriteState replaces the sandbox's state file.
func (d Dir) WriteState(s sandbox.State) error { return atomicfile.WriteJSON(d.File(stateFile), s) }

// State returns the state of the sandbox: the content of its state file, corrected by
// whether a supervisor holds the lock.
func (d Dir) State() (sandbox.State, error) {
	alive, err := d.alive()
	if err != nil {
		return sandbox.State{}, err
	}
	s := sandbox.State{Phase: sandbox.Stopped}
	b, err := os.ReadFile(d.File(stateFile))
	if err == nil {
		// A state file that cannot be read counts as one that is missing.
		_ = json.Unmarshal(b, &s)
	}
	switch {
	case alive && (s.Phase == sandbox.Stopped || s.Phase == sandbox.Dead):
		s.Phase = sandbox.Starting // the lock is held, but the state file is not written yet
	case !alive && s.Phase != sandbox.Stopped:
		s.Phase, s.PID = sandbox.Dead, 0
	}
	return s, nil
}

// alive reports whether a supervisor holds the lock.
func (d Dir) alive() (bool, error) { return lockfile.Held(d.File(lockFile)) }

// Lock takes the supervisor's lock. It fails at once if another process has it.
// The lock belongs to the open file (fcntl_locking(2), F_OFD_SETLK), so it can be
// handed to the supervisor when it is started, so that one of the two always holds it.
func (d Dir) Lock() (*lockfile.Lock, error) {
	l, err := lockfile.TryAcquire(d.File(lockFile))
	if errors.Is(err, unix.EAGAIN) {
		return nil, fmt.Errorf("sandbox %s is already running", filepath.Base(d.Path))
	}
	return l, err
}

// AwaitUnlock returns when no supervisor holds the sandbox, or ctx ends. It
// polls, and never takes the lock, which would make the start of a supervisor fail.
func (d Dir) AwaitUnlock(ctx context.Context) error { return d.await(ctx, lockFile) }

// AwaitSettled returns when nobody starts, changes or removes the sandbox.
func (d Dir) AwaitSettled(ctx context.Context) error { return d.await(ctx, startLockFile) }

func (d Dir) await(ctx context.Context, lock string) error {
	for {
		held, err := lockfile.Held(d.File(lock))
		if err != nil || !held {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// StartLocked reports whether a process starts, changes or removes the sandbox now.
func (d Dir) StartLocked() bool {
	held, err := lockfile.Held(d.File(startLockFile))
	return held || err != nil
}

// LockStart takes the lock for starting, changing or removing the sandbox. It waits while
// another bawn command has it, until ctx ends.
func (d Dir) LockStart(ctx context.Context) (*lockfile.Lock, error) {
	return lockfile.Acquire(ctx, d.File(startLockFile))
}

// Own takes the owner's lock of a throwaway sandbox, for as long as its command runs. The
// sandbox is removed when the owner has ended.
func (d Dir) Own() (*lockfile.Lock, error) { return lockfile.TryAcquire(d.File(ownerLockFile)) }

// Owned reports whether a process holds the owner's lock.
func (d Dir) Owned() (bool, error) { return lockfile.Held(d.File(ownerLockFile)) }

// RemoveAbandoned removes a throwaway sandbox whose owner was killed and that does
// not run. It does nothing to other sandboxes, or while another process is
// about to start or remove this one.
func (d Dir) RemoveAbandoned() error { return d.removeThrowaway(ownerLockFile, lockFile) }

// RemoveUnowned is RemoveAbandoned for the sandbox's supervisor, which still has its
// lock, so that a process that waits for the lock finds no sandbox.
func (d Dir) RemoveUnowned() error { return d.removeThrowaway(ownerLockFile) }

func (d Dir) removeThrowaway(unlessHeld ...string) error {
	spec, err := d.Spec()
	if err != nil || !spec.Throwaway {
		return nil // it is gone, or it cannot be told
	}
	l, err := lockfile.TryAcquire(d.File(startLockFile))
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer l.Close()
	for _, lock := range unlessHeld {
		if held, err := lockfile.Held(d.File(lock)); held || err != nil {
			return err
		}
	}
	return d.Remove()
}

// LockNames takes the lock for making and naming sandboxes.
func (s *Store) LockNames(ctx context.Context) (*lockfile.Lock, error) {
	return lockfile.Acquire(ctx, filepath.Join(s.root, "lock"))
}

// Create makes the folder of a new sandbox and writes its spec. The caller
// holds the names' lock.
func (s *Store) Create(spec *sandbox.Spec) (Dir, error) {
	d, err := s.Reserve(spec.Name)
	if err != nil {
		return d, err
	}
	return d, d.WriteSpec(spec)
}

// CreateOwned is Create of a throwaway sandbox; the lock is Own's. It also removes
// those that killed owners left.
func (s *Store) CreateOwned(spec *sandbox.Spec) (owner *lockfile.Lock, err error) {
	names, err := s.Names()
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if err := s.Dir(n).RemoveAbandoned(); err != nil {
			return nil, err
		}
	}
	d, err := s.Reserve(spec.Name)
	if err != nil {
		return nil, err
	}
	if owner, err = d.Own(); err != nil {
		return nil, err
	}
	if err := d.WriteSpec(spec); err != nil {
		owner.Close()
		return nil, err
	}
	return owner, nil
}

// Reserve makes the folder of a new sandbox. The sandbox exists once its spec is written; the
// caller holds the names' lock until then. So a folder without a spec was left by a crash,
// and is removed (sweep).
func (s *Store) Reserve(name string) (Dir, error) {
	d := s.Dir(name)
	if _, err := d.Spec(); err == nil {
		return d, fmt.Errorf("a sandbox named %s exists already", name)
	} else if !IsNotFound(err) {
		return d, err
	}
	if err := s.sweep(); err != nil {
		return d, err
	}
	return d, os.MkdirAll(d.Path, 0o700)
}

// sweep removes the folders without a spec.
func (s *Store) sweep() error {
	entries, err := os.ReadDir(s.sandboxesPath())
	if err != nil {
		return err
	}
	for _, e := range entries {
		d := s.Dir(e.Name())
		if _, err := os.Lstat(d.File(specFile)); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.RemoveAll(d.Path); err != nil {
			return err
		}
	}
	return nil
}

// Remove deletes a sandbox's folder, spec first, so that a crash on the way
// leaves no half-removed sandbox. What it shared stays on record.
func (d Dir) Remove() error {
	if spec, err := d.Spec(); err == nil { // of a build that kept no record, maybe
		if err := d.RecordShared(writable(spec)...); err != nil {
			return err
		}
	}
	if err := os.Remove(d.File(specFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(d.Path)
}

// Names lists the sandboxes, sorted.
func (s *Store) Names() ([]string, error) {
	entries, err := os.ReadDir(s.sandboxesPath())
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if _, err := os.Stat(s.Dir(e.Name()).File(specFile)); err == nil {
			names = append(names, e.Name())
		}
	}
	sort.Strings(names)
	return names, nil
}

// Find returns the sandbox whose project directory is dir or the nearest
// parent of dir that has one. Throwaway sandboxes, builders and those with a name of
// their own are not found so, unless they are the only ones there.
func (s *Store) Find(dir string) (*sandbox.Spec, error) {
	names, err := s.Names()
	if err != nil {
		return nil, err
	}
	var best *sandbox.Spec
	for _, n := range names {
		spec, err := s.Dir(n).Spec()
		if err != nil || spec.Throwaway || spec.Builder || !sandbox.Beneath(spec.Dir, dir) {
			continue
		}
		if best == nil || len(spec.Dir) > len(best.Dir) ||
			len(spec.Dir) == len(best.Dir) && spec.Created.Before(best.Created) {
			best = spec
		}
	}
	if best == nil {
		return nil, fmt.Errorf("%w for %s", errNotFound, dir)
	}
	return best, nil
}

// FreeName returns base, or base with the lowest number that makes it unused.
func (s *Store) FreeName(base string) (string, error) {
	for i := 1; i < 10000; i++ {
		name := base
		if i > 1 {
			name = base + "-" + strconv.Itoa(i)
		}
		_, err := s.Dir(name).Spec()
		if IsNotFound(err) {
			return name, nil
		}
	}
	return "", fmt.Errorf("too many sandboxes named %s", base)
}

// ShareRefusal is a reason for which a path of the host must not be shared.
type ShareRefusal string

// The refusals. A path of ReadOnlyShare may be shared read-only.
const (
	OwnShare      ShareRefusal = "share-of-bawn"       // it holds, or lies in, bawn's own folders
	HomeShare     ShareRefusal = "share-of-home"       // it holds the whole home directory
	KernelShare   ShareRefusal = "share-of-kernel"     // it lies in a file system of the kernel's
	ReadOnlyShare ShareRefusal = "share-not-read-only" // the host's system needs it unchanged
)

// ShareError says that a path of the host must not be shared with a guest.
type ShareError struct {
	Path   string
	Reason ShareRefusal
	why    string
}

func (e *ShareError) Error() string { return fmt.Sprintf("cannot share %s: %s", e.Path, e.why) }

// CheckShare returns an error unless a host path may be shared with a guest: it must
// exist, and it must not hold, nor lie within, bawn's own state (keys, policy), nor hold bawn itself
// or the system's roots, nor be the whole home directory. Read-only, a
// directory of the system's may be. A refusal is a *ShareError.
func (s *Store) CheckShare(path string, readOnly bool) error {
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("cannot share %s: %w", path, err)
	}
	own := []string{s.root}
	for _, f := range []func() (string, error){xdg.CachePath, xdg.Config} {
		if c, err := f(); err == nil {
			own = append(own, c)
		}
	}
	for _, o := range own {
		o = resolved(o)
		if sandbox.Beneath(path, o) || sandbox.Beneath(o, path) {
			return &ShareError{path, OwnShare, fmt.Sprintf("bawn keeps rules, keys and images in %s, which no guest may reach", o)}
		}
	}
	if self, err := os.Executable(); err == nil && !readOnly && sandbox.Beneath(path, self) {
		return &ShareError{path, OwnShare, fmt.Sprintf("bawn itself is in it (%s), and runs on the host: install it elsewhere", self)}
	}
	if home, err := os.UserHomeDir(); err == nil && sandbox.Beneath(path, home) {
		return &ShareError{path, HomeShare, "your home directory with your credentials is in it"}
	}
	for _, sys := range append([]string{"/run"}, sandbox.KernelDirs...) {
		if sandbox.Beneath(sys, path) {
			return &ShareError{path, KernelShare, "it belongs to the host's kernel"}
		}
	}
	if !readOnly && (slices.Contains(sandbox.SystemDirs, path) || systemFile(path)) {
		return &ShareError{path, ReadOnlyShare, "the host's operating system needs it, so a guest must not write to it"}
	}
	return nil
}

// systemFile reports whether the path is a file of the host's operating system. Directories
// below /etc or /usr may hold somebody's work, single files there do not.
func systemFile(path string) bool {
	fi, err := os.Stat(path)
	if err != nil || fi.IsDir() {
		return false
	}
	return slices.ContainsFunc([]string{"/bin", "/boot", "/etc", "/lib", "/lib64", "/sbin", "/usr/bin", "/usr/lib", "/usr/sbin"}, func(dir string) bool {
		return sandbox.Beneath(dir, path)
	})
}

// resolved returns a path without symbolic links; the end of it need not exist yet.
func resolved(path string) string {
	for at, rest := path, ""; ; at, rest = filepath.Dir(at), filepath.Join(filepath.Base(at), rest) {
		if r, err := filepath.EvalSymlinks(at); err == nil {
			return filepath.Join(r, rest)
		}
		if at == filepath.Dir(at) {
			return path
		}
	}
}

// Listen makes a socket in the sandbox's folder, in place of one that a dead
// supervisor left. The caller holds the sandbox's lock.
func (d Dir) Listen(name string) (*net.UnixListener, error) {
	if err := os.Remove(d.File(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var l *net.UnixListener
	err := d.short(name, func(path string) (err error) {
		l, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		return err
	})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // the short path is gone by then
	return l, os.Chmod(d.File(name), 0o600)
}

// Dial connects to a socket in the sandbox's folder.
func (d Dir) Dial(ctx context.Context, name string) (net.Conn, error) {
	var c net.Conn
	err := d.short(name, func(path string) (err error) {
		c, err = new(net.Dialer).DialContext(ctx, "unix", path)
		return err
	})
	return c, err
}

// DialControl connects to the control socket of the sandbox's supervisor (package
// control).
func (d Dir) DialControl(ctx context.Context) (net.Conn, error) { return d.Dial(ctx, ControlSocket) }

// short gives f a path of the file that fits into a socket address, which is
// limited to 108 bytes (unix(7)), however long the folder's path is.
func (d Dir) short(name string, f func(path string) error) error {
	dir, err := os.Open(d.Path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name))
}

var errNotFound = errors.New("no such sandbox")

// IsNotFound reports whether err means that the sandbox does not exist.
func IsNotFound(err error) bool { return errors.Is(err, errNotFound) }

// DamagedError means that a file of a sandbox is invalid: all that can be done is to
// remove the sandbox.
type DamagedError struct {
	File string
	Err  error
}

func (e *DamagedError) Error() string { return fmt.Sprintf("%s is damaged (%v)", e.File, e.Err) }

// Unwrap returns the cause.
func (e *DamagedError) Unwrap() error { return e.Err }

func decode(b []byte, v any, file string) error {
	if err := json.Unmarshal(b, v); err != nil {
		return &DamagedError{file, err}
	}
	return nil
}
