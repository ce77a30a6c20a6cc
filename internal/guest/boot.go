package guest

import (
	"fmt"
	"io/fs"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/wire"
)

// agent is process 1.
type agent struct {
	version   string
	events    *uevents
	processes *processes
	logins    *logins
	ssh       *sshServer
	mux       *mux
	docker    *docker
	trace     trace
	disk      *os.File     // root of the sandbox's own disk, once mounted
	prepared  bool         // image and modules are mounted
	net       *wire.Net    // once set up, where there is a card
	link      netlink.Link // the card
	addresses []string     // that it has from us, in CIDR notation
	machineID string       // that this machine goes by
	off       sync.Mutex
}

// runAgent is the life of process 1. It returns when the control port fails,
// which ends the machine.
func runAgent(version string) {
	log.SetFlags(0)
	log.SetPrefix("bawn: ")
	if err := bootstrap(); err != nil {
		log.Fatal(err)
	}
	events, err := listenUevents()
	if err != nil {
		log.Fatal(err)
	}
	logins := &logins{}
	a := &agent{version: version, events: events, processes: newProcesses(), logins: logins}
	if a.processes.group, err = openGroup(); err != nil {
		log.Fatal(err)
	}
	a.ssh = newSSHServer(logins, a.processes)
	a.docker = &docker{processes: a.processes}
	a.watchSignals()

	control, err := openPort(events, wire.PortControl)
	if err != nil {
		log.Fatal(err)
	}
	muxPort, err := openPort(events, wire.PortMux)
	if err != nil {
		log.Fatal(err)
	}
	a.mux = &mux{port: muxPort, serve: a.serveStream}
	log.Fatal(serveControl(control, a.lanes()...))
}

func (a *agent) lanes() []lane {
	return []lane{a.machine(), {
		wire.OpMount:   handle(a.mount),
		wire.OpUnmount: handle(a.unmount),
	}, {
		wire.OpMux: handle(func(r wire.MuxRequest) (any, error) { return nil, a.mux.restart(r.Nonce) }),
	}, {
		wire.OpProcess: handle(a.process),
	}, {
		wire.OpTime: handle(keepTime),
	}, {
		wire.OpShutdown: handle(a.shutdown),
	}}
}

// machine are the requests that make this machine what it is, one after the other.
func (a *agent) machine() lane {
	return lane{
		wire.OpHello:    handle(a.hello),
		wire.OpPrepare:  handle(a.prepare),
		wire.OpSetup:    handle(a.setup),
		wire.OpIdentify: handle(a.identify),
		wire.OpSuspend:  handle(a.suspend),
		wire.OpResume:   handle(a.resume),
		wire.OpQuiesce:  handle(func(struct{}) (any, error) { unix.Sync(); return nil, nil }),
	}
}

func (a *agent) hello(struct{}) (any, error) {
	return wire.HelloReply{Version: a.version, Kernel: release()}, nil
}

// release is uname -r.
func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// serveStream serves one stream of the mux session.
func (a *agent) serveStream(c net.Conn) {
	h, err := readHeader(c)
	switch {
	case err == nil && h.Kind == wire.StreamSSH:
		a.ssh.serve(c)
	case err == nil && h.Kind == wire.StreamTCP:
		serveTCP(c, h.Port)
	default:
		c.Close()
	}
}

// kernelMounts are what a Linux system has from the start.
var kernelMounts = []struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
}{
	{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"sysfs", "/sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=755"},
	{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=755"},
	{"cgroup2", "/sys/fs/cgroup", "cgroup2", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "gid=5,mode=620,ptmxmode=666"},
	{"tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
	{"mqueue", "/dev/mqueue", "mqueue", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
}

// bootstrap makes the initramfs a place to work in.
func bootstrap() error {
	for _, m := range kernelMounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	for link, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "fd/0", "/dev/stdout": "fd/1", "/dev/stderr": "fd/2", "/dev/ptmx": "pts/ptmx",
		// Where the kernel looks when it needs a module (kernel.modprobe).
		"/sbin/modprobe": "/init",
	} {
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			return err
		}
		_ = os.Remove(link) // devtmpfs may have its own
		if err := os.Symlink(target, link); err != nil {
			return err
		}
	}
	if err := loadBootModules(); err != nil {
		return err
	}
	// Descriptors: the usual soft limit is for programs that use select(2),
	// of which few are left.
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 65536, Max: 1 << 20}); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	return nil
}

// bootModules is initramfs.ModulesFolder; that package is the host's.
const bootModules = "/lib/modules-boot"

// loadBootModules loads what the host packed, in order of names.
func loadBootModules() error {
	list, err := os.ReadDir(bootModules)
	if err != nil {
		return fmt.Errorf("boot modules: %w", err)
	}
	for _, e := range list {
		_, file, _ := strings.Cut(e.Name(), "-") // behind its number
		if err := loadModule(filepath.Join(bootModules, e.Name()), moduleName(file)); err != nil {
			return err
		}
	}
	return nil
}

// watchSignals reaps children, and keeps everything else from ending process 1.
// Handlers, unlike ignored signals, are not inherited by children.
func (a *agent) watchSignals() {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	go func() {
		for range children {
			a.processes.reap()
		}
	}()
	others := make(chan os.Signal, 1)
	signal.Notify(others, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE, syscall.SIGALRM, syscall.SIGTSTP,
		syscall.SIGTTIN, syscall.SIGTTOU)
	off := make(chan os.Signal, 1)
	signal.Notify(off, offSignals...)
	go func() {
		<-off
		a.powerOff()
	}()
}

// offSignals are what poweroff, halt and reboot send to process 1: those of
// busybox (TERM, USR1, USR2), of systemd (SIGRTMIN+3 to +5), the kernel's own
// (INT for Ctrl-Alt-Del, PWR). The machine ends in each case; it is the host's
// to start it again.
var offSignals = []os.Signal{
	syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGINT, syscall.SIGPWR,
	syscall.Signal(37), syscall.Signal(38), syscall.Signal(39),
}

// owner is who a file belongs to.
func owner(fi fs.FileInfo) (uid, gid int) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return -1, -1
	}
	return int(st.Uid), int(st.Gid)
}

const oNonblock = syscall.O_NONBLOCK
