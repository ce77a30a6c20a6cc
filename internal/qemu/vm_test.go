package qemu

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/hanwen/go-fuse/v2/virtiofs"
	"github.com/u-root/u-root/pkg/cpio"

	"bawn.dev/bawn/internal/confine"
	"bawn.dev/bawn/internal/memory"
	"bawn.dev/bawn/internal/sys/proc"
	"bawn.dev/bawn/internal/sys/socketpair"
	"bawn.dev/bawn/internal/sys/sparse"
)

// Tests in a real VM need a kernel: BAWN_TEST_KERNEL names a vmlinux (or
// bzImage), BAWN_TEST_MODULES the directory of its modules
// (lib/modules/VERSION). Without them these tests are skipped.

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == confine.Verb {
		fmt.Fprintln(os.Stderr, confine.Main(os.Args[2:]))
		os.Exit(125)
	}
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		serveShare(os.Args[2], os.Args[3])
	}
	code := m.Run()
	if lab.dir != "" {
		os.RemoveAll(lab.dir)
	}
	os.Exit(code)
}

var spawner = proc.NewSpawner()

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
	dir, err := os.MkdirTemp("", "bawn-qemu-")
	if err != nil {
		return err
	}
	lab.dir = dir
	guest := filepath.Join(dir, "init")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", guest, "testdata/guest/main.go")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if os.Getenv("BAWN_TEST_GUEST") != "" { // built before: no Go where the test runs
		guest = os.Getenv("BAWN_TEST_GUEST")
	} else if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the guest: %w: %s", err, out)
	}
	var b bytes.Buffer
	w, number := cpio.Newc.Writer(&b), uint64(0)
	add := func(r cpio.Record) error {
		number++
		r.Ino, r.NLink = number, 1
		return w.WriteRecord(r)
	}
	addFile := func(name, from string) error {
		data, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		return add(cpio.StaticRecord(data, cpio.Info{Name: name, Mode: cpio.S_IFREG | 0o755}))
	}
	for _, d := range []string{"dev", "modules"} {
		if err := add(cpio.Directory(d, 0o755)); err != nil {
			return err
		}
	}
	if err := addFile("init", guest); err != nil {
		return err
	}
	for i, m := range guestModules {
		name := fmt.Sprintf("modules/%02d-%s", i, filepath.Base(m))
		if err := addFile(name, filepath.Join(os.Getenv("BAWN_TEST_MODULES"), "kernel", m)); err != nil {
			return err
		}
	}
	if err := cpio.WriteTrailer(w); err != nil {
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
	kernel := os.Getenv("BAWN_TEST_KERNEL")
	if kernel == "" || os.Getenv("BAWN_TEST_MODULES") == "" {
		t.Skip("no BAWN_TEST_KERNEL and BAWN_TEST_MODULES")
	}
	lab.once.Do(func() { lab.err = buildLab() })
	if lab.err != nil {
		t.Fatal(lab.err)
	}
	bin, err := Find(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	const size = 512 * mib
	ram, err := memory.New(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ram.Close() })
	m := &Machine{
		Binary: bin.Path, CPUs: 2, Memory: size, RAM: ram,
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
	con, theirs, err := socketpair.New()
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
	v.port, theirs, err = socketpair.New()
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

// serveShare is the share server of these tests, a process of its own so that
// it can be killed.
func serveShare(socket, dir string) {
	log.SetOutput(io.Discard)
	root, err := fs.NewLoopbackRoot(dir)
	if err != nil {
		panic(err)
	}
	virtiofs.ServeFS(socket, fs.NewNodeFS(root, &fs.Options{}), &fuse.MountOptions{})
}

// share starts a share server for dir and returns a connection to it.
func share(t testing.TB, dir string) (*os.File, *exec.Cmd) {
	t.Helper()
	self, _ := os.Executable()
	socket := filepath.Join(t.TempDir(), "s")
	cmd := exec.Command(self, "serve", socket, dir)
	must(t, spawner.Start(cmd))
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for t.Context().Err() == nil {
		c, err := net.Dial("unix", socket)
		if err != nil {
			time.Sleep(time.Millisecond)
			continue
		}
		f, err := c.(*net.UnixConn).File()
		must(t, err)
		c.Close()
		return f, cmd
	}
	t.Fatal("no share server")
	return nil, nil
}

func image(t testing.TB, name, content string, flags int) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	must(t, os.WriteFile(path, []byte(content), 0o600))
	must(t, os.Truncate(path, 1<<20))
	f, err := os.OpenFile(path, flags, 0)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// One machine with all its devices, from boot to power-off.
func TestMachine(t *testing.T) {
	var v vm
	m := describe(t, &v)
	m.Balloon = true
	own := image(t, "own", "mine", os.O_RDWR)
	m.Disks = []Disk{
		{Serial: "image", File: image(t, "image", "shared", os.O_RDONLY), ReadOnly: true},
		{Serial: "own", File: own},
	}
	nic, theirs, err := socketpair.New()
	must(t, err)
	defer nic.Close()
	m.NIC = &NIC{File: theirs, MAC: "52:54:00:12:34:56"}
	began := time.Now()
	v.start(m)
	t.Logf("user space after %v (guest clock %s s)", time.Since(began).Round(time.Millisecond), v.uptime)

	v.want("hello", "echo hello")
	v.want("ok", "disk image")
	v.want("shared", "read image 6")
	v.want("mine", "read own 4")
	v.want("ok", "write own guest")
	b := make([]byte, 5)
	if _, err := own.ReadAt(b, 0); err != nil || string(b) != "guest" {
		t.Errorf("the host reads %q, %v", b, err)
	}
	if got := v.ask("write image x"); !strings.HasPrefix(got, "error") {
		t.Errorf("write on the read-only disk: %s", got)
	}
	v.want("52:54:00:12:34:56", "nic")

	took := func(what string, began time.Time) { t.Logf("%s: %v", what, time.Since(began).Round(time.Millisecond)) }

	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "f"), []byte("hello from the host"), 0o644))
	f, _ := share(t, dir)
	began = time.Now()
	must(t, v.PlugShare(t.Context(), "project", f))
	took("plug a share, for QEMU", began)
	v.want("ok", "mount project")
	took("plug a share, until mounted", began)
	v.want("hello from the host", "cat /mnt/f")
	v.want("ok", "umount")

	// This share server never answers when the guest lets go: QEMU says that
	// it ends, and hangs. That must not hold up Wait.
	fmt.Fprintln(v.port, "panic")
	if err := v.Wait(); !errors.Is(err, ErrReset) {
		t.Errorf("after a panic: %v; console: %s", err, v.console)
	}
	if !bytes.Contains(v.console.buf, []byte("sysrq triggered crash")) { // String has the very end
		t.Errorf("the console does not tell of the panic: %s", v.console)
	}
}

// TestTrackDisk: a copy that was made while the guest wrote becomes what the disk is
// in the pause, by what was written since and nothing else; and a copy for which there
// is no room is an error of the copy's alone.
func TestTrackDisk(t *testing.T) {
	var v vm
	m := describe(t, &v)
	own := image(t, "own", "before", os.O_RDWR)
	m.Disks = []Disk{{Serial: "own", File: own}}
	v.start(m)
	ctx := t.Context()
	v.want("ok", "disk own")
	for range 2 { // once more after all was let go
		tracked, err := v.TrackDisk(ctx, "own")
		must(t, err)
		c := image(t, "copy", "torn", os.O_RDWR)
		_, err = c.WriteAt([]byte("kept"), 512<<10) // to see that this is not copied
		must(t, err)
		v.want("ok", "write own during")
		must(t, v.Pause(ctx))
		must(t, tracked.Update(ctx, c))
		must(t, v.SaveState(ctx, io.Discard))
		must(t, v.Resume(ctx))
		must(t, tracked.Forget(ctx))
		v.want("ok", "write own afterwards")
		for at, want := range map[int64]string{0: "during", 512 << 10: "kept"} {
			b := make([]byte, len(want))
			if _, err := c.ReadAt(b, at); err != nil || string(b) != want {
				t.Errorf("at %d the copy has %q, %v", at, b, err)
			}
		}
	}
	tracked, err := v.TrackDisk(ctx, "own")
	must(t, err)
	v.want("ok", "write own more")
	must(t, v.Pause(ctx))
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	must(t, err)
	defer full.Close()
	short := image(t, "short", "", os.O_RDWR)
	must(t, short.Truncate(4096))
	for _, f := range []*os.File{full, short} {
		if err := tracked.Update(ctx, f); err == nil {
			t.Errorf("%s is a copy", f.Name())
		}
	}
	must(t, tracked.Update(ctx, image(t, "copy", "", os.O_RDWR)))
	must(t, tracked.Forget(ctx))
	must(t, v.Resume(ctx))
	v.want("ok", "write own on")
	fmt.Fprintln(v.port, "poweroff")
	if err := v.Wait(); err != nil {
		t.Errorf("after a power-off: %v; console: %s", err, v.console)
	}
}

// Each share takes a place, and there are no more than were asked for.
func TestPlugs(t *testing.T) {
	var v vm
	m := describe(t, &v)
	m.Plugs = 1
	v.start(m)
	f, _ := share(t, t.TempDir())
	must(t, v.PlugShare(t.Context(), "one", f))
	v.want("ok", "mount one")
	f, _ = share(t, t.TempDir())
	if err := v.PlugShare(t.Context(), "two", f); err == nil || !strings.Contains(err.Error(), "all 1 slots") {
		t.Errorf("one share too many: %v", err)
	}
	v.want("ok", "umount")
}

// A share server that dies or hangs takes QEMU along, but not Kill.
func TestKillSurvivesDeadShare(t *testing.T) {
	var v vm
	v.start(describe(t, &v))
	f, server := share(t, t.TempDir())
	must(t, v.PlugShare(t.Context(), "project", f))
	v.want("ok", "mount project")
	must(t, server.Process.Signal(syscall.SIGSTOP))
	fmt.Fprintln(v.port, "poweroff") // QEMU now waits for the server
	v.Kill()
	if err := v.Wait(); err != nil {
		t.Errorf("after Kill: %v", err)
	}
}

func psi(t testing.TB, pid int, field string) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	must(t, err)
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); f[0] == field+":" {
			kb, _ := strconv.Atoi(f[1])
			return kb
		}
	}
	t.Fatalf("no %s", field)
	return 0
}

func allocated(t testing.TB, f *os.File) int64 {
	t.Helper()
	var st syscall.Stat_t
	must(t, syscall.Fstat(int(f.Fd()), &st))
	return st.Blocks * 512
}

// Save, copy, load: the guest goes on, twice. (Its random numbers are the agent's concern:
// wire.Identity has a seed.)
func TestSaveLoad(t *testing.T) {
	var v vm
	m := describe(t, &v)
	m.Disks = []Disk{{Serial: "own", File: image(t, "own", "mine", os.O_RDWR)}}
	v.start(m)
	v.want("ok", "hold 16")
	v.want("hello", "echo hello")
	v.want("ok", "disk own")

	var state bytes.Buffer
	began := time.Now()
	must(t, v.SaveState(t.Context(), &state))
	t.Logf("save: %v, %d KB of state, %d MB of memory touched", time.Since(began).Round(time.Millisecond), state.Len()>>10, allocated(t, m.RAM)>>20)
	template, err := os.Create(filepath.Join(t.TempDir(), "ram"))
	must(t, err)
	defer template.Close()
	must(t, template.Truncate(m.Memory))
	began = time.Now()
	n, err := sparse.CopyData(t.Context(), template, m.RAM)
	must(t, err)
	t.Logf("copy out: %v, %d MB", time.Since(began).Round(time.Millisecond), n>>20)

	// The original goes on.
	must(t, v.Resume(t.Context()))
	v.want("again", "echo again")
	v.Kill()
	must(t, v.Wait())

	for range 2 {
		var w vm
		began := time.Now()
		ram, err := memory.New(m.Memory)
		must(t, err)
		defer ram.Close()
		_, err = sparse.CopyData(t.Context(), ram, template)
		must(t, err)
		copied := time.Now()
		copy := *m
		copy.RAM, copy.Incoming = ram, true
		attach(t, &copy, &w)
		w.start(&copy)
		started := time.Now()
		must(t, w.LoadState(t.Context(), bytes.NewReader(state.Bytes())))
		must(t, w.Resume(t.Context()))
		w.want("restored", "echo restored")
		t.Logf("restore: copy in %v, start %v, load and first answer %v: %v in all", copied.Sub(began).Round(time.Millisecond),
			started.Sub(copied).Round(time.Millisecond), time.Since(started).Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
		w.want("mine", "read own 4")
		f, _ := share(t, t.TempDir())
		began = time.Now()
		must(t, w.PlugShare(t.Context(), "project", f))
		w.want("ok", "mount project")
		t.Logf("plug a share after the restore, until mounted: %v", time.Since(began).Round(time.Millisecond))
		w.Kill()
		must(t, w.Wait())
	}

	// A damaged state is refused, and says so.
	var w vm
	ram, err := memory.New(m.Memory)
	must(t, err)
	defer ram.Close()
	copy := *m
	copy.RAM, copy.Incoming = ram, true
	attach(t, &copy, &w)
	w.start(&copy)
	err = w.LoadState(t.Context(), bytes.NewReader(state.Bytes()[:state.Len()/2]))
	if err == nil {
		t.Error("half a state was loaded")
	}
	t.Logf("half a state: %v", err)
}

// Memory that the guest frees goes back to the host.
func TestBalloon(t *testing.T) {
	var v vm
	m := describe(t, &v)
	m.Balloon = true
	v.start(m)
	before := allocated(t, m.RAM)
	v.want("ok", "file 200")
	full := allocated(t, m.RAM)
	if full < before+190*mib {
		t.Fatalf("the file takes %d MB", (full-before)>>20)
	}
	v.want("ok", "rm")
	// The guest reports with a delay of two seconds.
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		if now := allocated(t, m.RAM); now < before+20*mib {
			t.Logf("%d MB before, %d MB with the file, %d MB %v after it was removed", before>>20, full>>20, now>>20, time.Since(began).Round(time.Millisecond))
			return
		}
		if time.Since(began) > 30*time.Second {
			t.Fatalf("%d MB before, %d MB with the file, and still %d MB", before>>20, full>>20, allocated(t, m.RAM)>>20)
		}
	}
}

// Measures, for choosing settings: BAWN_TEST_CPU and the like are not needed,
// since the numbers of the last run are in the docs.
func TestIdle(t *testing.T) {
	var v vm
	m := describe(t, &v)
	v.start(m)
	v.want("hello", "echo hello")
	t.Logf("idle: QEMU PSS %d MB, of it anonymous %d MB, guest memory %d MB; clock source %s, work %s ms",
		psi(t, v.Pid(), "Pss")>>10, psi(t, v.Pid(), "Pss_Anon")>>10, allocated(t, m.RAM)>>20, v.ask("clocksource"), v.ask("spin"))
}
