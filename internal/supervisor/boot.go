package supervisor

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"brig.dev/brig/internal/qemu"
	"brig.dev/brig/internal/sandbox"
	"brig.dev/brig/internal/share"
	"brig.dev/brig/internal/wire"
)

// Serial numbers of the virtio-blk disks, by which the agent finds them
// (20 bytes at most, virtio 1.2 section 5.2.6.1).
const (
	serialImage   = "brig-image"
	serialDisk    = "brig-disk"
	serialModules = "brig-modules"
)

// boot brings the machine up: QEMU, share servers, agent, mounts, mux.
func (s *supervisor) boot(ctx context.Context) error {
	cache, err := sandbox.CacheDir()
	if err != nil {
		return err
	}
	s.tell(news{Stage: "checking the accelerator"})
	if s.accel, err = qemu.Accelerator(ctx, cache); err != nil {
		return err
	}
	s.tell(news{Stage: "booting"})
	conns, err := s.startMachine(ctx)
	if err != nil {
		return err
	}
	s.agent = newAgent(conns.control, conns.mux, s.log)
	s.ports = newPorts(s.agent.dialTCP, s.log)
	var hello wire.HelloReply
	if err := s.agent.call(ctx, wire.OpHello, struct{}{}, &hello); err != nil {
		return err
	}
	s.kernel = printable(hello.Kernel)
	s.tell(news{Stage: "setting up"})
	setup, err := s.setup()
	if err != nil {
		return err
	}
	if err := s.agent.call(ctx, wire.OpSetup, setup, nil); err != nil {
		return err
	}
	s.network.agent.Store(s.agent)
	s.tell(news{Stage: "mounting"})
	if err := s.mountAll(ctx); err != nil {
		return err
	}
	return s.agent.startMux(ctx)
}

// guestConns are the host's ends of the machine's channels.
type guestConns struct {
	control, mux net.Conn
}

// startMachine starts QEMU, confined, with its channels on socket pairs.
func (s *supervisor) startMachine(ctx context.Context) (*guestConns, error) {
	binary, err := qemu.Find(ctx)
	if err != nil {
		return nil, err
	}
	ram, err := qemu.NewRAM(s.spec.Memory)
	if err != nil {
		return nil, err
	}
	defer ram.Close()
	disks, closeDisks, err := s.openDisks()
	if err != nil {
		return nil, err
	}
	defer closeDisks()
	var pairs [4]net.Conn
	var files [4]*os.File
	for i := range pairs {
		if pairs[i], files[i], err = qemu.SocketPair(); err != nil {
			return nil, err
		}
	}
	m := &qemu.Machine{
		Binary: binary.Path, Accel: s.accel,
		CPUs: s.spec.CPUs, Memory: s.spec.Memory, RAM: ram,
		Kernel: s.spec.Boot.Kernel, Initrd: s.spec.Boot.Initrd,
		Console: files[0],
		Ports:   []qemu.Port{{Name: wire.PortControl, File: files[1]}, {Name: wire.PortMux, File: files[2]}},
		Disks:   disks,
		NIC:     &qemu.NIC{File: files[3], MAC: guestMAC(s.spec.ID).String(), MTU: linkMTU},
		// Each place costs the guest some 40 ms of its boot under emulation.
		Plugs: 1 + len(s.spec.Mounts), Balloon: true,
	}
	if s.machine, err = m.Start(ctx, s.self, s.spawner); err != nil {
		return nil, err
	}
	go s.watch()
	if s.network, err = newNetwork(pairs[3], s.dir, s.spec, s.log); err != nil {
		return nil, err
	}
	go s.keepConsole(pairs[0])
	return &guestConns{control: pairs[1], mux: pairs[2]}, nil
}

// openDisks opens what the machine boots from, so that QEMU needs no rights to
// the paths.
func (s *supervisor) openDisks() (disks []qemu.Disk, closeAll func(), err error) {
	closeAll = func() {
		for _, d := range disks {
			d.File.Close()
		}
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	for _, d := range []struct {
		serial, path string
		readOnly     bool
	}{
		{serialImage, s.spec.Boot.Image, true},
		{serialModules, s.spec.Boot.Modules, true},
		{serialDisk, s.dir.File(sandbox.DiskFile), false},
	} {
		flag := os.O_RDWR
		if d.readOnly {
			flag = os.O_RDONLY
		}
		f, err := os.OpenFile(d.path, flag, 0)
		if err != nil {
			return nil, nil, fmt.Errorf("disk of the machine: %w", err)
		}
		disks = append(disks, qemu.Disk{Serial: d.serial, File: f, ReadOnly: d.readOnly})
	}
	return disks, closeAll, nil
}

// keepConsole writes what the guest prints to its bounded log.
func (s *supervisor) keepConsole(from net.Conn) {
	defer from.Close()
	to, err := openLog(s.dir.File(sandbox.ConsoleFile), maxConsoleLog)
	if err != nil {
		s.log.Error("console log", "error", err)
		_, _ = io.Copy(io.Discard, from)
		return
	}
	defer to.Close()
	_, _ = io.Copy(to, from)
}

// setup says who the guest is.
func (s *supervisor) setup() (*wire.SetupRequest, error) {
	seed := make([]byte, 64)
	if _, err := rand.Read(seed); err != nil {
		return nil, err
	}
	hostKey, err := os.ReadFile(s.dir.File(sandbox.HostKeyFile))
	if err != nil {
		return nil, err
	}
	client, err := os.ReadFile(s.dir.File(sandbox.ClientKeyFile))
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(client)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", sandbox.ClientKeyFile, err)
	}
	return &wire.SetupRequest{
		Hostname:       s.spec.Name,
		MachineID:      machineID(s.spec.ID),
		Seed:           seed,
		Time:           time.Now(),
		Timezone:       timezone(),
		HostKey:        hostKey,
		AuthorizedKeys: []string{string(ssh.MarshalAuthorizedKey(signer.PublicKey()))},
		User:           s.user,
		ImageSerial:    serialImage,
		DiskSerial:     serialDisk,
		ModulesSerial:  serialModules,
		ImageEnv:       s.spec.Boot.ImageEnv,
		Workdir:        s.spec.Dir,
		Net:            netSettings(guestMAC(s.spec.ID)),
	}, nil
}

// machineID derives a machine-id(5) from a sandbox's ID: stable over its life
// and unlike any other's.
func machineID(id string) string {
	sum := sha256.Sum256([]byte("brig machine " + id))
	return hex.EncodeToString(sum[:16])
}

// timezone is the host's, as an IANA name; empty when unknown.
func timezone() string {
	if tz := os.Getenv("TZ"); tz != "" && !strings.ContainsAny(tz, ":,<") {
		return tz
	}
	target, err := filepath.EvalSymlinks("/etc/localtime")
	if err != nil {
		return ""
	}
	_, name, _ := strings.Cut(target, "zoneinfo/")
	return name
}

// shareServer is one process that serves one directory.
type shareServer struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

func (sh *shareServer) kill() {
	_ = sh.cmd.Process.Kill() // already gone is as good
	<-sh.exited
}

// sharePlan is one share to be: what it serves and where the guest mounts it.
type sharePlan struct {
	options share.Options
	mount   wire.Mount
}

func (s *supervisor) sharePlans() ([]sharePlan, error) {
	all := append([]sandbox.Mount{{Source: s.spec.Dir, Target: s.spec.Dir}}, s.spec.Mounts...)
	var plans []sharePlan
	for i, m := range all {
		fi, err := os.Stat(m.Source)
		if err != nil {
			return nil, fmt.Errorf("share %s: %w", m.Source, err)
		}
		p := sharePlan{
			options: share.Options{Root: m.Source, ReadOnly: m.ReadOnly},
			mount:   wire.Mount{Tag: fmt.Sprintf("share%d", i), Path: m.Target, ReadOnly: m.ReadOnly},
		}
		switch {
		case fi.Mode().IsRegular():
			p.options.Root, p.options.File = filepath.Split(m.Source)
			p.options.Root = filepath.Clean(p.options.Root)
			p.mount.File = p.options.File
		case !fi.IsDir():
			return nil, fmt.Errorf("share %s: neither a directory nor a regular file", m.Source)
		}
		plans = append(plans, p)
	}
	return plans, nil
}

// mountAll serves, plugs and mounts every share.
func (s *supervisor) mountAll(ctx context.Context) error {
	plans, err := s.sharePlans()
	if err != nil {
		return err
	}
	for _, p := range plans {
		if err := s.mount(ctx, p); err != nil {
			return fmt.Errorf("share %s: %w", p.options.Root, err)
		}
	}
	return nil
}

func (s *supervisor) mount(ctx context.Context, p sharePlan) error {
	theirs, err := s.serveShare(p)
	if err != nil {
		return err
	}
	if err := s.machine.PlugShare(ctx, p.mount.Tag, theirs); err != nil {
		return err
	}
	return s.agent.call(ctx, wire.OpMount, p.mount, nil)
}

// serveShare starts the share's server and returns QEMU's end of its socket.
func (s *supervisor) serveShare(p sharePlan) (*os.File, error) {
	options, err := json.Marshal(p.options)
	if err != nil {
		return nil, err
	}
	conn, theirs, err := qemu.SocketPair()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ours, err := conn.(*net.UnixConn).File()
	if err != nil {
		theirs.Close()
		return nil, fmt.Errorf("socket pair: %w", err)
	}
	defer ours.Close()
	cmd := exec.Command(s.self, ShareVerb, string(options))
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	cmd.ExtraFiles = []*os.File{ours}
	cmd.Stderr = os.Stderr
	if err := s.spawner.Start(cmd); err != nil {
		theirs.Close()
		return nil, fmt.Errorf("start its server: %w", err)
	}
	sh := &shareServer{cmd: cmd, exited: make(chan struct{})}
	s.shares = append(s.shares, sh)
	go func() {
		err := cmd.Wait()
		close(sh.exited)
		s.lost("the server of the shared directory "+p.options.Root, err)
	}()
	return theirs, nil
}

// lost ends the sandbox because a part of it died: QEMU hangs with a
// vhost-user backend that is gone, so it is ended too.
func (s *supervisor) lost(what string, err error) {
	select {
	case <-s.stopped: // it ended because the machine did
		return
	default:
	}
	if err == nil { // it saw QEMU hang up, whose end tells why
		return
	}
	s.log.Error("lost "+what, "error", err)
	s.end <- fmt.Sprintf("%s died: %v", what, err)
	s.machine.Kill()
}
