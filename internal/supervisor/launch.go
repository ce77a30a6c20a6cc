package supervisor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/sys/lockfile"
)

// The hidden verbs of bawn that are processes of this package.
const (
	Verb      = "__supervise"
	ShareVerb = "__share"
)

// Inherited descriptors: the first after standard error (os/exec, ExtraFiles).
const (
	readyFD = 3 // a supervisor's news for who launched it
	lockFD  = 4 // the sandbox's lock
	ShareFD = 3 // a share server's vhost-user socket
)

// news is one line from a starting supervisor to who launched it.
type news struct {
	Stage string `json:"stage,omitempty"` // what it is doing
	// Reachable says that the guest's SSH server answers, though not everything
	// is ready yet.
	Reachable bool   `json:"reachable,omitempty"`
	Note      string `json:"note,omitempty"`    // what the person should know
	Error     string `json:"error,omitempty"`   // why it failed
	Crashed   bool   `json:"crashed,omitempty"` // with Error: the guest's kernel or QEMU did
	Ready     bool   `json:"ready,omitempty"`
	Cold      bool   `json:"cold,omitempty"` // with Ready: it booted, no template was there
}

// keptEnv are the variables that a supervisor inherits: where things lie and
// how names resolve. Whatever else the person has set (tokens among it) stays
// out of a process that lives for weeks. So does LOCALDOMAIN: with it, Go's own
// resolver forgets the host's search domains.
var keptEnv = []string{
	"HOME", "USER", "LOGNAME", "PATH", "LANG", "TZ", "TMPDIR",
	"XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR",
	"BAWN_ACCEL", "BAWN_DEBUG", "BAWN_TEMPLATES", "GODEBUG", "RES_OPTIONS",
}

func supervisorEnv() []string {
	var env []string
	for _, k := range keptEnv {
		if v, ok := os.LookupEnv(k); ok {
			env = append(env, k+"="+v)
		}
	}
	return env
}

// Start is how a sandbox started.
type Start struct {
	Cold  bool     // it had to boot (see LaunchTemplate)
	Notes []string // what the person should know
}

// Progress is told how far a start is. Neither function may block.
type Progress struct {
	Stage     func(string)
	Reachable func() // the guest's SSH server answers; commands must wait for the end
}

// Launch starts a supervisor for the sandbox in d, in a session of its own,
// and returns when the sandbox is ready, or with the reason why it is not. When ctx ends first, the
// supervisor is told to give up and waited for. lock is the sandbox's, which the
// supervisor takes over: so whoever looks sees a sandbox that starts, also when
// this process is killed before the supervisor has its feet.
func Launch(ctx context.Context, d store.Dir, lock *lockfile.Lock, on Progress) (how Start, err error) {
	return launch(ctx, Verb, d, lock, on)
}

// giveUpLimit is how long a supervisor may take to give a start up. One that stands
// still never does.
const giveUpLimit = 30 * time.Second

func launch(ctx context.Context, verb string, d store.Dir, lock *lockfile.Lock, on Progress) (how Start, err error) {
	defer lock.Close()
	self, err := os.Executable()
	if err != nil {
		return how, err
	}
	if err := d.WriteState(sandbox.State{Phase: sandbox.Starting}); err != nil {
		return how, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return how, err
	}
	defer r.Close()
	out, err := os.OpenFile(d.File(store.SupervisorLogFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		w.Close()
		return how, err
	}
	defer out.Close()
	cmd := exec.Command(self, verb, d.Path) //nolint:noctx // it outlives this process
	cmd.Dir = "/"
	cmd.Env = supervisorEnv()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = []*os.File{w, lock.File()}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return how, fmt.Errorf("start the supervisor: %w", err)
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	lock.Close() // the supervisor has it

	result := make(chan error, 1)
	go func() {
		var err error
		how, err = hear(r, on)
		result <- err
	}()
	select {
	case err = <-result:
		if err != nil {
			<-exited
		}
		return how, err
	case <-ctx.Done():
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-exited:
		case <-time.After(giveUpLimit):
			_ = cmd.Process.Kill() // an error means that it is gone already
			<-exited
		}
		return Start{}, context.Cause(ctx)
	}
}

// hear reads a starting supervisor's news until it is ready or has failed.
func hear(r *os.File, on Progress) (how Start, err error) {
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		var n news
		if err := json.Unmarshal(sc.Bytes(), &n); err != nil {
			return how, fmt.Errorf("supervisor: %w", err)
		}
		switch {
		case n.Error != "" && n.Crashed:
			return how, crashError(n.Error)
		case n.Error != "":
			return how, errors.New(n.Error)
		case n.Note != "":
			how.Notes = append(how.Notes, n.Note)
			continue
		case n.Ready:
			how.Cold = n.Cold
			return how, nil
		}
		if n.Reachable {
			on.Reachable()
			continue
		}
		on.Stage(n.Stage)
	}
	return how, errors.New("the supervisor ended without a word (see its log: bawn logs --supervisor)")
}

// crashError is why a start failed in which the guest's kernel or QEMU crashed.
type crashError string

func (e crashError) Error() string { return string(e) }

// Crashed says whether a start failed because the guest's kernel panicked or QEMU
// crashed (qemu.ErrCrashed): under software emulation both were seen, once in some
// hundred boots, and the next went well.
func Crashed(err error) bool {
	var p crashError
	return errors.As(err, &p)
}

// AwaitStart returns when a sandbox that starts, launched by another process,
// has started or failed.
func AwaitStart(ctx context.Context, d store.Dir) error {
	for {
		st, err := d.State()
		if err != nil || st.Phase != sandbox.Starting {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// AwaitExit returns when no supervisor holds the sandbox any more.
func AwaitExit(ctx context.Context, d store.Dir) error {
	return d.AwaitUnlock(ctx)
}

// Kill ends the sandbox's supervisor, and with it the machine, by SIGKILL.
func Kill(ctx context.Context, d store.Dir) error {
	st, err := d.State()
	for err == nil && st.PID == 0 && st.Phase == sandbox.Starting { // it has not said yet
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(10 * time.Millisecond):
		}
		st, err = d.State()
	}
	if err != nil || st.PID == 0 {
		return err
	}
	fd, err := unix.PidfdOpen(st.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("supervisor %d: %w", st.PID, err)
	}
	defer unix.Close(fd)
	if !supervises(st.PID, d) { // the number was given to another process
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill supervisor %d: %w", st.PID, err)
	}
	return AwaitExit(ctx, d)
}

// supervises says whether a process holds the sandbox's lock. Its command line
// would not tell: it may have waited for a sandbox (pool.go).
func supervises(pid int, d store.Dir) bool {
	lock, err := os.Stat(d.LockPath())
	if err != nil {
		return false
	}
	folder := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	fds, err := os.ReadDir(folder)
	if err != nil {
		return false
	}
	for _, fd := range fds {
		if fi, err := os.Stat(filepath.Join(folder, fd.Name())); err == nil && os.SameFile(fi, lock) {
			return true
		}
	}
	return false
}
