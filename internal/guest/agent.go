package guest

import (
	"log"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/guest/accounts"
	"bawn.dev/bawn/internal/guest/attrib"
	"bawn.dev/bawn/internal/guest/device"
	"bawn.dev/bawn/internal/guest/dockerd"
	"bawn.dev/bawn/internal/guest/modprobe"
	"bawn.dev/bawn/internal/guest/netif"
	"bawn.dev/bawn/internal/guest/process"
	"bawn.dev/bawn/internal/guest/sshd"
	"bawn.dev/bawn/internal/guest/watch"
	"bawn.dev/bawn/internal/wire"
)

// agent is process 1. Fields without a lock of their own are used by the machine lane only
// (see lanes), whose requests are answered one after the other.
type agent struct {
	version   string
	devices   *device.Events
	processes *process.Table
	logins    *accounts.Logins
	ssh       *sshd.Server
	mux       *mux
	docker    *dockerd.Daemon
	watches   watch.Streams
	owners    attrib.Finder
	git       *gitSettings
	local     localDirs
	disk      *os.File    // root of the sandbox's own disk; nil before setup
	prepared  bool        // image and modules are mounted
	card      *netif.Card // nil without a network, and before setup
	hostCAs   []byte      // certificates of the host, as of setup
	machineID string      // as of the last setup or identify
	off       sync.Mutex  // held for ever by the first powerOff
}

// runAgent runs process 1. It ends the process when the control port fails, and so the
// machine.
func runAgent(version string) {
	log.SetFlags(0)
	log.SetPrefix("bawn: ")
	if err := bootstrap(); err != nil {
		log.Fatal(err)
	}
	devices, err := device.Listen()
	if err != nil {
		log.Fatal(err)
	}
	logins := accounts.NewLogins("")
	group, err := openGroup()
	if err != nil {
		log.Fatal(err)
	}
	a := &agent{version: version, devices: devices, processes: process.NewTable(group), logins: logins, git: &gitSettings{system: gitConfig, own: ownGitConfig}}
	a.ssh = sshd.New(logins, a.processes)
	a.docker = dockerd.New(a.processes)
	a.watchSignals()

	control, err := devices.Port(wire.PortControl)
	if err != nil {
		log.Fatal(err)
	}
	muxPort, err := devices.Port(wire.PortMux)
	if err != nil {
		log.Fatal(err)
	}
	a.mux = &mux{port: muxPort, serve: a.serveStream}
	log.Fatal(serveControl(control, a.lanes()...))
}

// lanes returns the agent's requests by what may hold them up: a share's mount, for
// instance, must not delay the answer to whose a connection is, nor a shutdown.
func (a *agent) lanes() []lane {
	return []lane{a.machine(), {
		wire.OpMount:   handle(a.mount),
		wire.OpUnmount: handle(a.unmount),
		wire.OpLocal:   handle(a.local.set),
	}, {
		wire.OpMux: handle(func(r wire.MuxRequest) (any, error) { return nil, a.mux.restart(r.Nonce) }),
	}, {
		wire.OpProcess: handle(func(list []wire.ProcessRequest) (any, error) { return a.owners.Find(list), nil }),
	}, {
		wire.OpTime:  handle(keepTime),
		wire.OpClock: handle(correctClock),
	}, {
		wire.OpShutdown: handle(a.shutdown),
	}}
}

// machine returns the requests that change the machine as a whole.
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
	return wire.HelloReply{Version: a.version, Kernel: modprobe.Release()}, nil
}

// serveStream serves one stream of the mux session, and closes it.
func (a *agent) serveStream(c net.Conn) {
	h, err := readHeader(c)
	switch {
	case err == nil && h.Kind == wire.StreamSSH:
		a.ssh.Serve(c, h.Umask)
	case err == nil && h.Kind == wire.StreamTCP:
		serveTCP(c, h.Port)
	case err == nil && h.Kind == wire.StreamPorts:
		portWatch{proc: "/proc", dial: probeLoopback}.serve(c, h.Ports)
	case err == nil && h.Kind == wire.StreamWatch:
		a.watches.Serve(c, shareRoots(h.Mounts))
	default:
		c.Close()
	}
}

// watchSignals reaps children at SIGCHLD, powers the machine off at offSignals, and handles
// other signals by doing nothing. They are handled and not ignored, since children inherit
// what is ignored.
func (a *agent) watchSignals() {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	go func() {
		for range children {
			a.processes.Reap()
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

// offSignals are the signals that poweroff, halt and reboot send to process 1: those of
// busybox (TERM, USR1, USR2), of systemd (SIGRTMIN+3 to +5), and the kernel's own (INT for
// Ctrl-Alt-Del, PWR). Each of them powers the machine off; only the host starts it again.
var offSignals = []os.Signal{
	syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGINT, syscall.SIGPWR,
	syscall.Signal(37), syscall.Signal(38), syscall.Signal(39),
}
