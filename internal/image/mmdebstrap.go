package image

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/debian"
	"bawn.dev/bawn/internal/ext4"
	"bawn.dev/bawn/internal/progress"
	"bawn.dev/bawn/internal/sys/proc"
	"bawn.dev/bawn/internal/sys/proxyenv"
)

// watcher is a shell script that runs mmdebstrap ("$@") beside a process which waits for
// the other end of the pipe at descriptor 3 to close, and then ends their process group:
// by SIGTERM, and after five seconds by SIGKILL, since mmdebstrap ignores signals between
// its steps. The process is of that group, so the group's number is not reused meanwhile.
const watcher = `(
	trap '' TERM
	cat <&3
	kill -TERM -$$
	for i in 0 1 2 3 4 5 6 7 8 9; do kill -0 $$ && sleep 0.5; done
	kill -KILL -$$
) >/dev/null 2>&1 &
exec "$@" 3<&-`

// mmdebstrap returns the command that writes the system as a tar stream to its standard
// output, and a log of what it does to its standard error.
func mmdebstrap(ctx context.Context, mode string, m debian.Mirror, conf []string) (*exec.Cmd, error) {
	path, err := proc.Find("mmdebstrap")
	if err != nil {
		return nil, err
	}
	proxies, err := proxyenv.Read()
	if err != nil {
		return nil, err
	}
	conf, ofApt, err := debian.ProxyVariables(conf)
	if err != nil {
		return nil, err
	}
	args := []string{
		"-c", watcher, "sh", path,
		"--mode=" + mode, "--variant=minbase", "--format=tar", "--verbose",
		"--architectures=" + debian.Arch(), "--keyring=" + debian.Keyring,
		"--include=" + strings.Join(packages(), ","),
		"--customize-hook=" + customize,
	}
	for _, e := range pathExcludes {
		args = append(args, "--dpkgopt="+e)
	}
	for _, l := range conf {
		args = append(args, "--aptopt="+l)
	}
	args = append(args, debian.Suite, "-")
	for _, s := range m.Sources() {
		args = append(args, fmt.Sprintf("deb [signed-by=%s] %s %s main", debian.Keyring, s.URI, s.Suite))
	}
	cmd := proc.Command(ctx, "/bin/sh", args...)
	cmd.Env = slices.Concat(cmd.Env, proxies.Environ(), ofApt) // os/exec takes the last of two
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if mode == modeRoot {
		// Its mounts end with it, even if it is killed, and a leftover folder can be
		// removed without walking into /sys. Go makes the mounts private.
		cmd.SysProcAttr.Unshareflags = unix.CLONE_NEWNS
	}
	return cmd, nil
}

// buildTo runs mmdebstrap and turns its output into the ext4 file out.
func buildTo(ctx context.Context, cmd *exec.Cmd, out string, r progress.Reporter) error {
	p, err := startWatched(cmd)
	if err != nil {
		return err
	}
	defer p.release()
	show := newMmdebstrapProgress(r)
	read := make(chan struct{})
	go func() {
		defer close(read)
		show.read(p.stderr)
	}()
	cerr := ext4.FromTar(io.TeeReader(p.stdout, byteCounter{show}), out, maxDefault)
	_, _ = io.Copy(io.Discard, p.stdout) // mmdebstrap must be able to finish, also after an error here
	<-read
	err = cmd.Wait()
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case err != nil:
		err = fmt.Errorf("mmdebstrap: %w:\n%s", err, show.lastLines())
	default:
		err = cerr
	}
	show.done(err)
	return err
}

// watched is a command that runs beside its watcher.
type watched struct {
	stdout, stderr io.Reader
	alive          *os.File // when it is closed, the watcher ends the command
}

func (w *watched) release() { w.alive.Close() }

// startWatched starts a command of watcher. Its context ends it through the watcher, so
// that mmdebstrap can clean up.
func startWatched(cmd *exec.Cmd) (*watched, error) {
	theirs, ours, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr.Setpgid = true
	cmd.Cancel = func() error { return ours.Close() }
	w := &watched{alive: ours}
	if w.stdout, err = cmd.StdoutPipe(); err == nil {
		w.stderr, err = cmd.StderrPipe()
	}
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		w.release()
		return nil, err
	}
	return w, nil
}
