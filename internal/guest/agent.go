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
	"bawn.dev/bawn/internal/wire"
)

// agent is process 1.
type agent struct {
	version   string
	devices   *device.Events
	processes *process.Table
	logins    *accounts.Logins
	ssh       *sshd.Server
	mux       *mux
	docker    *dockerd.Daemon
	owners    attrib.Finder
	disk      *os.File    // root of the sandbox's own disk, once mounted
	prepared  bool        // image and modules are mounted
	card      *netif.Card // nil without a network, and before setup
	machineID string      // as of the last setup or identify
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
	devices, err := device.Listen()
	if err != nil {
		log.Fatal(err)
	}
	logins := accounts.NewLogins("")
	group, err := openGroup()
	if err != nil {
		log.Fatal(err)
	}
	a := &agent{version: version, devices: devices, processes: process.NewTable(group), logins: logins}
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

func (a *agent) lanes() []lane {
	return []lane{a.machine(), {
		wire.OpMount:   handle(a.mount),
		wire.OpUnmount: handle(a.unmount),
	}, {
		wire.OpMux: handle(func(r wire.MuxRequest) (any, error) { return nil, a.mux.restart(r.Nonce) }),
	}, {
		wire.OpProcess: handle(func(list []wire.ProcessRequest) (any, error) { return a.owners.Find(list), nil }),
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
	return wire.HelloReply{Version: a.version, Kernel: modprobe.Release()}, nil
}

// serveStream serves one stream of the mux session.
func (a *agent) serveStream(c net.Conn) {
	h, err := readHeader(c)
	switch {
	case err == nil && h.Kind == wire.StreamSSH:
		a.ssh.Serve(c)
	case err == nil && h.Kind == wire.StreamTCP:
		serveTCP(c, h.Port)
	default:
		c.Close()
	}
}

// watchSignals reaps children, and keeps everything else from ending process 1.
// Handlers, unlike ignored signals, are not inherited by children.
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

// offSignals are what poweroff, halt and reboot send to process 1: those of
// busybox (TERM, USR1, USR2), of systemd (SIGRTMIN+3 to +5), the kernel's own
// (INT for Ctrl-Alt-Del, PWR). The machine ends in each case; it is the host's
// to start it again.
var offSignals = []os.Signal{
	syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGINT, syscall.SIGPWR,
	syscall.Signal(37), syscall.Signal(38), syscall.Signal(39),
}
