// Package dockerd starts the image's Docker daemon when somebody first uses its socket.
package dockerd

import (
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/guest/accounts"
	"bawn.dev/bawn/internal/guest/process"
)

const (
	dockerSocket = "/run/docker.sock"
	DataDir      = "/var/lib/docker"
	dockerLog    = "/var/log/docker.log"
	listenFD     = 3 // SD_LISTEN_FDS_START (sd_listen_fds(3))

	// restartPause keeps a daemon that cannot start from being started all the
	// time.
	restartPause = time.Second
)

// ActivateMode is the name under which the agent executes itself to become a program
// that takes over a listening socket.
const ActivateMode = "bawn-activate"

// Daemon starts the image's Docker daemon when somebody first asks for it.
//
// The agent holds the listening socket, and the daemon inherits it, as with
// systemd's socket activation: the first client waits in the socket's queue
// until the daemon takes it. While no daemon runs, the agent waits for a client.
type Daemon struct {
	processes *process.Table

	mu      sync.Mutex
	running *process.Process
	ending  bool
}

// New returns a daemon that is not yet asked for; it starts as a child of the table.
func New(processes *process.Table) *Daemon { return &Daemon{processes: processes} }

// Listen opens the socket, if the image has a daemon.
func (d *Daemon) Listen() error {
	daemon, err := exec.LookPath("dockerd")
	if err != nil {
		if daemon, err = exec.LookPath("/usr/sbin/dockerd"); err != nil {
			return nil //nolint:nilerr // the image has none
		}
	}
	_ = os.Remove(dockerSocket)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dockerSocket, Net: "unix"})
	if err != nil {
		return fmt.Errorf("docker: %w", err)
	}
	f, err := l.File()
	l.SetUnlinkOnClose(false)
	l.Close()
	if err != nil {
		return fmt.Errorf("docker: %w", err)
	}
	if gid, ok := accounts.GroupID("/etc/group", accounts.DockerGroup); ok {
		_ = os.Chown(dockerSocket, 0, int(gid))
	}
	if err := os.Chmod(dockerSocket, 0o660); err != nil {
		return fmt.Errorf("docker: %w", err)
	}
	go d.serve(f, daemon)
	return nil
}

func (d *Daemon) serve(socket *os.File, daemon string) {
	fd := int(socket.Fd())
	for {
		if err := waitReadable(fd); err != nil {
			log.Printf("docker: %v", err)
			return
		}
		p, err := d.start(socket, daemon)
		switch {
		case err != nil:
			log.Printf("docker: %v", err)
		case p == nil:
			return
		default:
			<-p.Done
			log.Printf("docker: the daemon ended: %s", dockerLog)
		}
		time.Sleep(restartPause)
	}
}

func waitReadable(fd int) error {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if err == unix.EINTR || err == nil && n == 0 {
			continue
		}
		return err
	}
}

// start starts the daemon; nil when the machine is about to end.
func (d *Daemon) start(socket *os.File, daemon string) (*process.Process, error) {
	out, err := os.OpenFile(dockerLog, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o640)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ending {
		return nil, nil
	}
	argv := []string{ActivateMode, daemon, "-H", "fd://", "--exec-opt", "native.cgroupdriver=cgroupfs"}
	d.running, err = d.processes.Start(process.Self, argv, &syscall.ProcAttr{
		Dir: "/", Env: []string{"PATH=" + accounts.RootPath, "HOME=/root"},
		Files: []uintptr{null.Fd(), out.Fd(), out.Fd(), socket.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	return d.running, err
}

// Stop has the daemon stop its containers and itself, and waits for that up to
// the limit. It comes before anything else is ended, since the daemon stops
// containers through helpers that would be gone.
func (d *Daemon) Stop(limit time.Duration) {
	d.mu.Lock()
	d.ending = true
	p := d.running
	d.mu.Unlock()
	if p == nil {
		return
	}
	d.processes.SignalGroup(p, syscall.SIGTERM)
	select {
	case <-p.Done:
	case <-time.After(limit):
		log.Printf("docker: the daemon does not stop")
	}
}

// Activate becomes the program of its arguments, telling it about the socket
// that it inherits.
func Activate(argv []string) int {
	if len(argv) == 0 {
		return 2
	}
	env := append(os.Environ(), "LISTEN_FDS=1", "LISTEN_PID="+strconv.Itoa(os.Getpid()))
	_, _ = unix.FcntlInt(listenFD, unix.F_SETFD, 0)
	err := syscall.Exec(argv[0], argv, env)
	fmt.Fprintf(os.Stderr, "%s: %v\n", argv[0], err)
	return 126 // as shells report it (POSIX XCU 2.8.2)
}
