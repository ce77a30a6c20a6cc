package supervisor

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"brig.dev/brig/internal/confine"
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
	return nil, errors.New("TODO")
}

// socketPair returns both ends of a Unix stream socket pair, ours as a net.Conn.
func socketPair(name string) (ours net.Conn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	f := os.NewFile(uintptr(fds[0]), name)
	theirs = os.NewFile(uintptr(fds[1]), name)
	ours, err = net.FileConn(f)
	f.Close()
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	return ours, theirs, nil
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
			options: share.Options{
				Root: m.Source, ReadOnly: m.ReadOnly, UID: s.user.UID, GID: s.user.GID,
				Protected: s.spec.Protected, Hidden: s.spec.Hidden, AllowProtected: s.spec.Unguarded,
			},
			mount: wire.Mount{Tag: fmt.Sprintf("share%d", i), Path: m.Target, ReadOnly: m.ReadOnly},
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
	defer theirs.Close()
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
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket pair: %w", err)
	}
	ours := os.NewFile(uintptr(fds[0]), "vhost-user")
	defer ours.Close()
	theirs := os.NewFile(uintptr(fds[1]), "vhost-user")
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
	if err == nil {
		err = io.EOF
	}
	s.log.Error("lost "+what, "error", err)
	s.end <- fmt.Sprintf("%s died: %v", what, err)
	s.machine.Kill()
}

// confineSelf is the part of the supervisor's start that will not be undone.
var _ = confine.Verb
