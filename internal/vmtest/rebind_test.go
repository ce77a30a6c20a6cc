//go:build vm

package vmtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// rebindEnv makes this program the host of TestRebinding: its value is the
// project's directory.
const rebindEnv = "BAWN_TEST_REBIND"

// TestRebinding is the second half of attack 5: the name resolves to a good address and a
// bad one by turns, so a check and a dial that both asked would get different answers. The
// host has a network of its own, in which the resolver of /etc/resolv.conf is the
// attacker's.
func TestRebinding(t *testing.T) {
	dir := project(t, "rebinding")
	c := exec.CommandContext(t.Context(), "/proc/self/exe")
	c.Env = environment(rebindEnv+"="+dir, "BAWN="+os.Getenv("BAWN"), "BAWN_TEST_CACHE="+os.Getenv("BAWN_TEST_CACHE"), "TMPDIR="+t.TempDir())
	id := func(n int) []syscall.SysProcIDMap {
		return []syscall.SysProcIDMap{{ContainerID: n, HostID: n, Size: 1}}
	}
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		UidMappings: id(os.Getuid()), GidMappings: id(os.Getgid()),
		AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE},
	}
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	err := c.Run()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
		t.Skip("this host lets nobody make user namespaces:", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s%s%s", err, &stdout, &stderr, logs(dir))
	}
	got := stdout.String()
	for _, want := range []string{"reached: good", "refused: ConnectionRefusedError", "bad: 0 connections"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in:\n%s%s", want, got, &stderr)
		}
	}
	if strings.Contains(got, "reached: bad") {
		t.Errorf("%s", got)
	}
}

// rebindHost is the host, in namespaces of its own: it serves names and the two
// servers, and runs bawn.
func rebindHost(dir string) error {
	if err := errors.Join(upLoopback(), unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, "")); err != nil {
		return err
	}
	file := filepath.Join(os.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver 127.0.0.53\n"), 0o644); err != nil {
		return err
	}
	if err := unix.Mount(file, "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("resolv.conf: %w", err)
	}
	base = filepath.Dir(filepath.Dir(dir)) // as TestMain has it
	const port = "7777"
	var bad atomic.Int64
	for addr, says := range map[string]string{serverAddr: "good", "127.0.0.1": "bad"} {
		l, err := net.Listen("tcp", net.JoinHostPort(addr, port))
		if err != nil {
			return err
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				if says == "bad" {
					bad.Add(1)
				}
				_, _ = io.WriteString(c, says)
				c.Close()
			}
		}()
	}
	started := make(chan struct{})
	s := &dns.Server{Addr: "127.0.0.53:53", Net: "udp", Handler: turns(), NotifyStartedFunc: func() { close(started) }}
	failed := make(chan error, 1)
	go func() { failed <- s.ListenAndServe() }()
	select {
	case <-started:
	case err := <-failed:
		return err
	}
	// bawn is to have no rights that the person has not.
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return err
	}
	c := exec.Command(os.Getenv("BAWN"), "run", "--allow", "rebind.test:"+port, "--allow", serverAddr+":"+port, "--", "python3", "-c", `
import socket, time
seen = set()
for i in range(20):
    try:
        with socket.create_connection(("rebind.test", `+port+`)) as s: what = "reached: " + s.recv(9).decode()
    except OSError as e: what = "refused: " + type(e).__name__
    print(what, flush=True)
    seen.add(what)
    if len(seen) > 1 and i > 3: break
    time.sleep(2)
`)
	c.Dir, c.Env = dir, environment()
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("bawn run: %w", err)
	}
	fmt.Printf("bad: %d connections\n", bad.Load())
	return nil
}

func upLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}

// turns answers the questions for rebind.test with two addresses by turns.
func turns() dns.HandlerFunc {
	var n atomic.Int64
	return func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		if q.Question[0].Qtype == dns.TypeA {
			addr := serverAddr
			if n.Add(1)%2 == 0 {
				addr = "127.0.0.1"
			}
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.ParseIP(addr).To4()}}
		}
		_ = w.WriteMsg(m)
	}
}
