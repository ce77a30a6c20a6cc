package qemu

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cavaliergopher/cpio"

	"brig.dev/brig/internal/confine"
)

// Tests in a real VM need a kernel: BRIG_TEST_KERNEL names a vmlinux (or
// bzImage), BRIG_TEST_MODULES the directory of its modules
// (lib/modules/VERSION). Without them these tests are skipped.

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == confine.Verb {
		fmt.Fprintln(os.Stderr, confine.Main(os.Args[2:]))
		os.Exit(125)
	}
	code := m.Run()
	if lab.dir != "" {
		os.RemoveAll(lab.dir)
	}
	os.Exit(code)
}

var spawner = confine.NewSpawner()

// lab is what all VM tests share.
var lab struct {
	once   sync.Once
	dir    string
	initrd string
	err    error
}

// guestModules in the order of loading.
var guestModules = []string{
	"drivers/block/virtio_blk.ko.xz",
	"net/core/failover.ko.xz",
	"drivers/net/net_failover.ko.xz",
	"drivers/net/virtio_net.ko.xz",
	"drivers/virtio/virtio_balloon.ko.xz",
}

func buildLab() error {
	dir, err := os.MkdirTemp("", "brig-qemu-")
	if err != nil {
		return err
	}
	lab.dir = dir
	guest := filepath.Join(dir, "init")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", guest, "testdata/guest/main.go")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if os.Getenv("BRIG_TEST_GUEST") != "" { // built before: no Go where the test runs
		guest = os.Getenv("BRIG_TEST_GUEST")
	} else if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the guest: %w: %s", err, out)
	}
	var b bytes.Buffer
	w := cpio.NewWriter(&b)
	add := func(name, from string) error {
		data, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&cpio.Header{Name: name, Mode: cpio.TypeReg | 0o755, Size: int64(len(data))}); err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	}
	for _, d := range []string{"dev", "modules"} {
		if err := w.WriteHeader(&cpio.Header{Name: d, Mode: cpio.TypeDir | 0o755}); err != nil {
			return err
		}
	}
	if err := add("init", guest); err != nil {
		return err
	}
	for i, m := range guestModules {
		name := fmt.Sprintf("modules/%02d-%s", i, filepath.Base(m))
		if err := add(name, filepath.Join(os.Getenv("BRIG_TEST_MODULES"), "kernel", m)); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	lab.initrd = filepath.Join(dir, "initrd")
	return os.WriteFile(lab.initrd, b.Bytes(), 0o644)
}

// vm is a machine under test.
type vm struct {
	*Process
	t       testing.TB
	console *tail
	port    net.Conn
	lines   *bufio.Reader
	uptime  string // guest seconds at its first instruction in user space
}

// describe makes a small machine; its console and port are v's.
func describe(t testing.TB, v *vm) *Machine {
	t.Helper()
	kernel := os.Getenv("BRIG_TEST_KERNEL")
	if kernel == "" || os.Getenv("BRIG_TEST_MODULES") == "" {
		t.Skip("no BRIG_TEST_KERNEL and BRIG_TEST_MODULES")
	}
	lab.once.Do(func() { lab.err = buildLab() })
	if lab.err != nil {
		t.Fatal(lab.err)
	}
	bin, err := Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const memory = 512 * mib
	ram, err := NewRAM(memory)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ram.Close() })
	m := &Machine{
		Binary: bin.Path, CPUs: 2, Memory: memory, RAM: ram,
		Kernel: kernel, Initrd: lab.initrd,
		Plugs: 4,
	}
	attach(t, m, v)
	return m
}

// attach gives m a console and a port.
func attach(t testing.TB, m *Machine, v *vm) {
	t.Helper()
	v.t, v.console = t, &tail{}
	con, theirs, err := SocketPair()
	if err != nil {
		t.Fatal(err)
	}
	m.Console = theirs
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := con.Read(b)
			v.console.Write(b[:n])
			if err != nil {
				con.Close()
				return
			}
		}
	}()
	v.port, theirs, err = SocketPair()
	if err != nil {
		t.Fatal(err)
	}
	m.Ports = []Port{{Name: "test", File: theirs}}
	v.lines = bufio.NewReader(v.port)
	t.Cleanup(func() { v.port.Close() })
}

func (v *vm) start(m *Machine) {
	v.t.Helper()
	self, err := os.Executable()
	if err != nil {
		v.t.Fatal(err)
	}
	v.Process, err = m.Start(v.t.Context(), self, spawner)
	if err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(func() {
		v.Kill()
		_ = v.Wait()
	})
	if !m.Incoming {
		v.uptime = strings.TrimPrefix(v.line(), "ready ")
	}
}

func (v *vm) line() string {
	v.t.Helper()
	line, err := v.lines.ReadString('\n')
	if err != nil {
		<-v.Done()
		v.t.Fatalf("the guest said %q, then: %v (QEMU: %v)\nconsole: %s", line, err, v.Wait(), v.console)
	}
	return strings.TrimSpace(line)
}

// ask gives the guest a command and returns its answer.
func (v *vm) ask(format string, args ...any) string {
	v.t.Helper()
	if _, err := fmt.Fprintf(v.port, format+"\n", args...); err != nil {
		v.t.Fatal(err)
	}
	return v.line()
}

func (v *vm) want(answer, format string, args ...any) {
	v.t.Helper()
	if got := v.ask(format, args...); got != answer {
		v.t.Fatalf("%s: %q, want %q", fmt.Sprintf(format, args...), got, answer)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestBoot(t *testing.T) {
	var v vm
	m := describe(t, &v)
	began := time.Now()
	v.start(m)
	t.Logf("user space after %v (guest clock %s s)", time.Since(began).Round(time.Millisecond), v.uptime)
	v.want("hello", "echo hello")
	fmt.Fprintln(v.port, "poweroff")
	if err := v.Wait(); err != nil {
		t.Errorf("after a power-off: %v; console: %s", err, v.console)
	}
}

