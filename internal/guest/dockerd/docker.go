// Package dockerd starts the image's Docker daemon when somebody first uses its socket, or
// at once where the daemon has containers to restart (restart.go).
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
	"bawn.dev/bawn/internal/guest/oci"
	"bawn.dev/bawn/internal/guest/process"
)

// DataDir is Docker's folder of images and containers.
const DataDir = "/var/lib/docker"

const (
	listenFD = 3 // SD_LISTEN_FDS_START (sd_listen_fds(3))

	// restartPause limits how often a daemon that cannot start is started.
	restartPause = time.Second
)

// ActivateMode is the name under which the agent executes itself to become a program
// that takes over a listening socket.
const ActivateMode = "bawn-activate"

// Daemon is the image's Docker daemon, which is started when a client first connects to its
// socket, or by Listen if it has containers to restart. Its methods may be called concurrently.
//
// The agent holds the listening socket, and the daemon inherits it, as with systemd's
// socket activation. The first client waits in the socket's queue until the daemon accepts
// it. While no daemon runs, the agent waits for the socket to become readable. Clients of a daemon that
// fails get the reason (refuse.go).
type Daemon struct {
	processes    *process.Table
	socket       string
	data         string // the daemon's folder
	log          string // the daemon's output, of its last start
	restartPause time.Duration
	refusalTime  time.Duration

	mu      sync.Mutex
	running *process.Process
	ending  bool
}

// New returns a daemon that will run as a child in the table, after Listen.
func New(processes *process.Table) *Daemon {
	return &Daemon{processes: processes, socket: "/run/docker.sock", data: DataDir, log: "/var/log/docker.log", restartPause: restartPause, refusalTime: refusalTime}
}

// Listen opens the socket and waits for clients in the background. It does nothing if the
// image has no daemon.
func (d *Daemon) Listen() error {
	daemon, err := exec.LookPath("dockerd")
	if err != nil {
		if daemon, err = exec.LookPath("/usr/sbin/dockerd"); err != nil {
			return nil //nolint:nilerr // the image has none
		}
	}
	return d.listen(daemon)
}

// listen is Listen for a daemon at that path.
func (d *Daemon) listen(daemon string) error {
	_ = os.Remove(d.socket)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: d.socket, Net: "unix"})
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
		_ = os.Chown(d.socket, 0, int(gid))
	}
	if err := os.Chmod(d.socket, 0o660); err != nil {
		return fmt.Errorf("docker: %w", err)
	}
	go d.serve(f, daemon, hasContainersToStart(d.data))
	return nil
}

// serve starts the daemon, at once or for a client that waits, and for a client again
// whenever it has ended.
func (d *Daemon) serve(socket *os.File, daemon string, atOnce bool) {
	fd := int(socket.Fd())
	slow := 0 // starts in a row that took too long
	for {
		if !atOnce {
			if err := waitReadable(fd); err != nil {
				log.Printf("docker: %v", err)
				return
			}
		}
		atOnce = false
		p, err := d.start(socket, daemon)
		switch {
		case err != nil:
			log.Printf("docker: %v", err)
		case p == nil:
			return
		default:
			<-p.Done
			log.Printf("docker: the daemon ended; its log is %s", d.log)
			reason := failure(p.Status, d.log)
			if atOnce = wasSlow(reason) && slow < maxSlowStarts; atOnce {
				slow++ // the clients wait
			} else if slow = 0; reason != "" {
				refuse(socket, reason, d.refusalTime)
			}
		}
		time.Sleep(d.restartPause)
	}
}

// waitReadable waits until a client connects to the listening socket.
func waitReadable(fd int) error {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if err == unix.EINTR || err == nil && n == 0 {
			continue
		}
		return err
	}
}

// start starts the daemon. It returns nil, nil after Stop.
func (d *Daemon) start(socket *os.File, daemon string) (*process.Process, error) {
	out, err := os.OpenFile(d.log, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o640)
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
		Dir: "/", Env: []string{"PATH=" + oci.Path(accounts.RootPath), "HOME=/root"},
		Files: []uintptr{null.Fd(), out.Fd(), out.Fd(), socket.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	return d.running, err
}

// Stop makes the daemon stop its containers and itself, waits for that up to the limit, and
// prevents another start. Call it before other processes are ended: the daemon stops
// containers through helper processes.
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

// Activate replaces this process by the program in argv, and passes it the socket at
// descriptor 3 by the protocol of sd_listen_fds(3). It returns, with an exit status, only if
// that fails.
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
