//go:build vm

package vmtest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/u-root/u-root/pkg/cpio"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/debian"
	"bawn.dev/bawn/internal/memory"
	"bawn.dev/bawn/internal/qemu"
	"bawn.dev/bawn/internal/share"
	"bawn.dev/bawn/internal/supervisor/handoff"
	"bawn.dev/bawn/internal/sys/proc"
	"bawn.dev/bawn/internal/sys/socketpair"
)

// The benchmarks compare two things in one run, in turns, and report the ratio
// of their medians. `make bench` prints them all.

// median of durations, in milliseconds.
func median(list []time.Duration) float64 {
	list = slices.Sorted(slices.Values(list))
	return float64(list[len(list)/2].Microseconds()) / 1000
}

// ratio is the median of the ratios of each turn, since the machine's speed changes from
// minute to minute.
func ratio(ours, theirs []time.Duration) float64 {
	var list []float64
	for i := range min(len(ours), len(theirs)) {
		list = append(list, float64(ours[i])/float64(theirs[i]))
	}
	slices.Sort(list)
	return list[len(list)/2]
}

// compare runs ours and theirs in turns, b.N times each but at least rounds.
func compare(b *testing.B, rounds int, ours, theirs func() time.Duration) {
	b.Helper()
	var a, z []time.Duration
	b.ResetTimer()
	for range max(b.N, rounds) {
		a = append(a, ours())
		z = append(z, theirs())
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(a), "ms")
	b.ReportMetric(median(z), "ms-theirs")
	b.ReportMetric(ratio(a, z), "ratio")
}

func run(b testing.TB, dir string, args ...string) string {
	b.Helper()
	r := bawnAt(b.Context(), dir, nil, nil, args...)
	if r.code != 0 {
		b.Fatalf("bawn %q: %d\n%s", args, r.code, r.err)
	}
	return r.out
}

func benchProject(b *testing.B, name string) string {
	b.Helper()
	dir := filepath.Join(base, "home", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { bawnAt(context.Background(), dir, nil, nil, "rm", "--force") })
	return dir
}

// BenchmarkColdStart measures a stopped sandbox up to its first output, against the same
// kernel booted without bawn up to a shell's first output.
func BenchmarkColdStart(b *testing.B) {
	b.Setenv(templatesEnv, "off")
	dir := benchProject(b, "cold")
	run(b, dir, "run", "--memory", "1G", "--", "true")
	lab := newLab(b, shellFiles(b))
	compare(b, 5, func() time.Duration {
		run(b, dir, "stop")
		start := time.Now()
		run(b, dir, "run", "--", "echo", "ready")
		return time.Since(start)
	}, func() time.Duration {
		start := time.Now()
		m := lab.boot(b, 0)
		m.expect("ready")
		took := time.Since(start)
		m.end()
		return took
	})
}

// BenchmarkExec measures `true` in a running sandbox, against ssh to Debian's sshd in the
// same guest.
func BenchmarkExec(b *testing.B) {
	dir := benchProject(b, "exec")
	run(b, dir, "run", "--memory", "1G", "--", "true")
	sshd := startSSHD(b, dir)
	compare(b, 20, func() time.Duration {
		start := time.Now()
		run(b, dir, "run", "--", "true")
		return time.Since(start)
	}, func() time.Duration {
		start := time.Now()
		if out, err := exec.Command("ssh", append(sshd, "true")...).CombinedOutput(); err != nil {
			b.Fatalf("ssh: %v: %s", err, out)
		}
		return time.Since(start)
	})
}

// startSSHD runs Debian's sshd in the guest and returns ssh's arguments to it.
func startSSHD(b *testing.B, dir string) []string {
	b.Helper()
	ctx := b.Context()
	mirror, err := debian.Host(ctx)
	if err != nil {
		b.Fatal(err)
	}
	apt, err := debian.NewApt(ctx, filepath.Join(b.TempDir(), "apt"), debian.Arch(), mirror)
	if err != nil {
		b.Fatal(err)
	}
	quiet := func(float64) {}
	if err := apt.Update(ctx, quiet); err != nil {
		b.Fatal(err)
	}
	for _, p := range []string{"openssh-server", "libwrap0", "libwtmpdb0"} {
		deb, err := apt.Download(ctx, p, quiet)
		if err != nil {
			continue // the names of libraries change
		}
		data, err := os.ReadFile(deb)
		if err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, p+".deb"), data, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	key := filepath.Join(dir, "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		b.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	script := `for d in *.deb; do dpkg -x $d /; done
ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
mkdir -p /run/sshd /root/.ssh; cp key.pub /root/.ssh/authorized_keys; chmod 700 /root/.ssh
grep -q ^sshd: /etc/passwd || echo 'sshd:x:120:65534::/run/sshd:/usr/sbin/nologin' >> /etc/passwd
/usr/sbin/sshd -f /dev/null -o UsePAM=no -o PermitRootLogin=yes -o StrictModes=no -p 2222`
	run(b, dir, "run", "--user", "root", "--", "sh", "-ec", script)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	run(b, dir, "port", port+":2222")
	return []string{"-F", "none", "-p", port, "-i", key, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"-o", "LogLevel=ERROR", "root@127.0.0.1"}
}

// BenchmarkMemory measures what an idle sandbox takes of the host's memory beside its
// guest's memory, as proportional set sizes.
func BenchmarkMemory(b *testing.B) {
	dir := benchProject(b, "memory")
	run(b, dir, "run", "--memory", "1G", "--", "true")
	steady(b, "the memory of an idle sandbox", 1, func() float64 { return totalPSS(b, sandboxDir("memory")) })
	for pid, line := range processes(sandboxDir("memory")) {
		b.ReportMetric(pss(b, pid), kind(line)+"-MiB")
	}
	for pid := range shares(dir) {
		b.ReportMetric(pss(b, pid), "share-MiB")
	}
	b.ReportMetric(0, "ns/op")
}

func kind(line string) string {
	switch {
	case strings.Contains(line, "__supervise"):
		return "supervisor"
	case strings.Contains(line, "__share"):
		return "share"
	}
	return "qemu"
}

// pss is a process's proportional set size without guest memory, in MiB.
func pss(b *testing.B, pid int) float64 {
	b.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	var kib int
	guest := false
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		l := sc.Text()
		if fields := strings.Fields(l); strings.Contains(fields[0], "-") {
			guest = strings.Contains(l, "bawn-ram")
		} else if fields[0] == "Pss:" && !guest {
			n, err := strconv.Atoi(fields[1])
			if err != nil {
				b.Fatal(err)
			}
			kib += n
		}
	}
	return float64(kib) / 1024
}

// unconfined returns a program that runs QEMU without bawn's filter of system calls. The filter refuses
// socketpair(2), which QEMU needs for the back channel that C virtiofsd asks for.
func unconfined(b *testing.B) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "unconfined")
	script := "#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done; shift\nexec \"$@\"\n"
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		b.Fatal(err)
	}
	return path
}

// BenchmarkShare measures the share server, against the guest's own disk and, as root,
// C virtiofsd on the same directory. All are measured in one bare guest.
func BenchmarkShare(b *testing.B) {
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	lab := newLab(b, map[string]string{"init": self})
	disk := filepath.Join(b.TempDir(), "disk")
	f, err := os.Create(disk)
	if err != nil {
		b.Fatal(err)
	}
	if err := f.Truncate(1 << 30); err != nil {
		b.Fatal(err)
	}
	f.Close()
	if out, err := exec.Command("mke2fs", "-q", "-t", "ext4", disk).CombinedOutput(); err != nil {
		b.Fatalf("mke2fs: %v: %s", err, out)
	}
	lab.disk, lab.self = disk, unconfined(b)
	m := lab.boot(b, 2)
	m.expect("ready")
	m.plugBawn(b)
	names := []string{"disk", "bawn"}
	if m.plugVirtiofsd(b) {
		names = append(names, "virtiofsd")
	}
	results := map[string]map[string][]time.Duration{}
	for range max(b.N, 8) {
		slices.Reverse(names) // who writes second finds the host busier
		for _, n := range names {
			fmt.Fprintf(m.console, "%s\n", n)
			line := m.expect("result " + n)
			if results[n] == nil {
				results[n] = map[string][]time.Duration{}
			}
			for _, kv := range strings.Fields(line)[2:] {
				k, v, _ := strings.Cut(kv, "=")
				d, err := time.ParseDuration(v)
				if err != nil {
					b.Fatal(line)
				}
				results[n][k] = append(results[n][k], d)
			}
		}
	}
	m.end()
	b.ReportMetric(0, "ns/op")
	for k, ours := range results["bawn"] {
		b.ReportMetric(median(ours), k+"-ms")
		for _, n := range []string{"disk", "virtiofsd"} {
			if theirs := results[n][k]; theirs != nil {
				b.ReportMetric(ratio(ours, theirs), k+"/"+n)
			}
		}
	}
}

// lab boots bare machines: the sandbox's kernel with an initramfs of our own.
type lab struct {
	kernel, initrd string
	disk           string
	spawner        *proc.Spawner
	self           string // that confines QEMU
	accel          qemu.Accel
	binary         string
}

func newLab(b *testing.B, files map[string]string) *lab {
	b.Helper()
	cache := filepath.Join(os.Getenv("BAWN_TEST_CACHE"), "bawn")
	kernels, err := filepath.Glob(filepath.Join(cache, "kernel", "*", "vmlinu[xz]"))
	if err != nil || len(kernels) == 0 {
		b.Fatalf("no kernel in %s: run a sandbox first (%v)", cache, err)
	}
	modules, err := filepath.Glob(filepath.Join(filepath.Dir(kernels[0]), "boot", "*virtio_blk*"))
	if err != nil || len(modules) != 1 {
		b.Fatalf("virtio_blk: %v, %v", modules, err)
	}
	files["virtio_blk.ko"] = modules[0]
	l := &lab{kernel: kernels[0], initrd: filepath.Join(b.TempDir(), "initrd"), spawner: proc.NewSpawner(), self: os.Getenv("BAWN")}
	if err := os.WriteFile(l.initrd, archive(b, files), 0o600); err != nil {
		b.Fatal(err)
	}
	if l.accel, err = qemu.Accelerator(b.Context(), cache); err != nil {
		b.Fatal(err)
	}
	bin, err := qemu.Find(b.Context(), "")
	if err != nil {
		b.Fatal(err)
	}
	l.binary = bin.Path
	return l
}

// archive makes an initramfs of files of the host, by their names in the guest.
func archive(b *testing.B, files map[string]string) []byte {
	b.Helper()
	var out bytes.Buffer
	w := cpio.Newc.Writer(&out)
	made := map[string]bool{}
	add := func(r cpio.Record) {
		r.Ino, r.NLink = uint64(len(made))+1, 1
		made[r.Name] = true
		if err := w.WriteRecord(r); err != nil {
			b.Fatal(err)
		}
	}
	var dirs func(p string)
	dirs = func(p string) {
		if p == "." || made[p] {
			return
		}
		dirs(filepath.Dir(p))
		add(cpio.Directory(p, 0o755))
	}
	for _, d := range []string{"dev", "proc", "sys", "mnt"} {
		dirs(d)
	}
	for name, from := range files {
		dirs(filepath.Dir(name))
		data, err := os.ReadFile(from)
		if err != nil {
			b.Fatal(err)
		}
		add(cpio.StaticRecord(data, cpio.Info{Name: name, Mode: cpio.S_IFREG | 0o755}))
	}
	if err := cpio.WriteTrailer(w); err != nil {
		b.Fatal(err)
	}
	return out.Bytes()
}

// shellFiles are the host's shell with its libraries, and an init for it.
func shellFiles(b *testing.B) map[string]string {
	b.Helper()
	script := filepath.Join(b.TempDir(), "init")
	text := "#!/bin/sh\necho ready\nread forever\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		b.Fatal(err)
	}
	shell, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		b.Fatal(err)
	}
	files := map[string]string{"init": script, "bin/sh": shell}
	out, err := exec.Command("ldd", shell).Output()
	if err != nil {
		b.Fatal(err)
	}
	for _, f := range strings.Fields(string(out)) {
		if strings.HasPrefix(f, "/") {
			files[f[1:]] = f
		}
	}
	return files
}

// bare is a running bare machine.
type bare struct {
	b       *testing.B
	p       *qemu.Process
	spawner *proc.Spawner
	console net.Conn
	lines   *bufio.Reader
	ram     *os.File
	share   string
	ends    []func()
}

func (l *lab) boot(b *testing.B, plugs int) *bare {
	b.Helper()
	const size = 1 << 30
	m := &bare{b: b, spawner: l.spawner, share: b.TempDir()}
	var err error
	if m.ram, err = memory.New(size); err != nil {
		b.Fatal(err)
	}
	console, theirs, err := socketpair.New()
	if err != nil {
		b.Fatal(err)
	}
	m.console, m.lines = console, bufio.NewReader(console)
	machine := &qemu.Machine{
		Binary: l.binary, Accel: l.accel, CPUs: 2, Memory: size, RAM: m.ram,
		Kernel: l.kernel, Initrd: l.initrd, Console: theirs, Plugs: plugs,
	}
	if l.disk != "" {
		f, err := os.OpenFile(l.disk, os.O_RDWR, 0)
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		machine.Disks = []qemu.Disk{{Serial: "disk", File: f}}
	}
	if m.p, err = machine.Start(b.Context(), l.self, l.spawner); err != nil {
		b.Fatal(err)
	}
	return m
}

// expect reads the console up to a line with a word.
func (m *bare) expect(word string) string {
	m.b.Helper()
	var all strings.Builder
	for {
		l, err := m.lines.ReadString('\n')
		all.WriteString(l)
		if i := strings.Index(l, word); i >= 0 {
			return l[i:]
		}
		if err != nil {
			m.b.Fatalf("the bare machine ended: %v\n%s", err, all.String())
		}
	}
}

func (m *bare) end() {
	m.p.Kill()
	<-m.p.Done()
	m.ram.Close()
	m.console.Close()
	for _, f := range m.ends {
		f()
	}
}

func (m *bare) plugBawn(b *testing.B) {
	b.Helper()
	conn, theirs, err := socketpair.New()
	if err != nil {
		b.Fatal(err)
	}
	ours, err := conn.File()
	conn.Close()
	if err != nil {
		b.Fatal(err)
	}
	control, server, err := share.NewControl()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(os.Getenv("BAWN"), handoff.ShareVerb, fmt.Sprintf(`{"root":%q}`, m.share))
	cmd.ExtraFiles = []*os.File{server}
	cmd.Stderr = os.Stderr
	if err := m.spawner.Start(cmd); err != nil {
		b.Fatal(err)
	}
	server.Close()
	m.ends = append(m.ends, func() { _ = cmd.Process.Kill(); _ = cmd.Wait(); control.Close() })
	if err := control.Serve(b.Context(), ours); err != nil {
		b.Fatal(err)
	}
	if err := m.p.PlugShare(b.Context(), "bawn", theirs); err != nil {
		b.Fatal(err)
	}
}

// plugVirtiofsd serves the same directory with C virtiofsd, where it is
// installed and may run.
func (m *bare) plugVirtiofsd(b *testing.B) bool {
	b.Helper()
	const program = "/usr/lib/qemu/virtiofsd"
	if _, err := os.Stat(program); err != nil || os.Getuid() != 0 {
		b.Logf("no comparison with C virtiofsd: it wants root and %s", program)
		return false
	}
	socket := filepath.Join(b.TempDir(), "s")
	cmd := exec.Command(program, "--socket-path="+socket, "-o", "source="+m.share, "-o", "cache=auto")
	if err := m.spawner.Start(cmd); err != nil {
		b.Fatal(err)
	}
	m.ends = append(m.ends, func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	var conn net.Conn
	var err error
	if !poll(5*time.Second, func() bool { conn, err = net.Dial("unix", socket); return err == nil }) {
		b.Logf("no comparison with C virtiofsd: %v", err)
		return false
	}
	f, err := conn.(*net.UnixConn).File()
	conn.Close()
	if err != nil {
		b.Fatal(err)
	}
	if err := m.p.PlugShare(b.Context(), "virtiofsd", f); err != nil {
		b.Fatal(err)
	}
	return true
}

// bareInit is process 1 of a bare guest, which is this test program. After the mounts it
// runs the share benchmark.
func bareInit() {
	die := func(err error) {
		if err != nil {
			fmt.Println("failed:", err)
			_ = unix.IoctlSetInt(int(os.Stdout.Fd()), unix.TCSBRK, 1) // until the console has it (tcdrain(3))
			os.Exit(1)
		}
	}
	for target, fs := range map[string]string{"/proc": "proc", "/sys": "sysfs", "/dev": "devtmpfs"} {
		die(unix.Mount(fs, target, fs, 0, ""))
	}
	if os.Getenv(bareNet) != "" {
		bareNetInit(die)
	}
	mod, err := os.Open("/virtio_blk.ko")
	die(err)
	if err := unix.FinitModule(int(mod.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		die(err)
	}
	fmt.Println("ready")
	in := bufio.NewReader(os.Stdin)
	mounted := map[string]bool{}
	for {
		name, err := in.ReadString('\n')
		die(err)
		name = strings.TrimSpace(name)
		dir := "/mnt/" + name
		if !mounted[name] {
			die(os.MkdirAll(dir, 0o755))
			source, fs := name, "virtiofs"
			if name == "disk" {
				source, fs = "/dev/vda", "ext4"
			}
			poll(waitLimit, func() bool { err = unix.Mount(source, dir, fs, 0, ""); return err == nil })
			die(err)
			if name == "bawn" {
				die(setReadAhead(dir))
			}
			mounted[name] = true
		}
		fmt.Printf("result %s %s\n", name, shareTimes(dir+"/bench-"+name, die))
	}
}

// setReadAhead does for a share what bawn's agent does (internal/guest).
func setReadAhead(dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return err
	}
	return os.WriteFile(fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(st.Dev), unix.Minor(st.Dev)), []byte("1024"), 0)
}

// shareTimes measures 500 files of 4 KB and 64 MB in one.
func shareTimes(dir string, die func(error)) string {
	const files, size, large = 500, 4096, 64 << 20
	var out []string
	measure := func(what string, f func()) {
		start := time.Now()
		f()
		out = append(out, fmt.Sprintf("%s=%v", what, time.Since(start)))
	}
	name := func(i int) string { return fmt.Sprintf("%s/%03d", dir, i) }
	block := bytes.Repeat([]byte("x"), 1<<20)
	die(os.MkdirAll(dir, 0o755))
	measure("create", func() {
		for i := range files {
			die(os.WriteFile(name(i), block[:size], 0o644))
		}
	})
	measure("write", func() {
		f, err := os.Create(dir + "/large")
		die(err)
		for range large / len(block) {
			_, err := f.Write(block)
			die(err)
		}
		die(f.Close())
	})
	unix.Sync()
	die(os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0))
	measure("walk", func() {
		die(filepath.Walk(dir, func(_ string, _ os.FileInfo, err error) error { return err }))
	})
	measure("read", func() {
		for i := range files {
			_, err := os.ReadFile(name(i))
			die(err)
		}
	})
	measure("again", func() {
		for i := range files {
			_, err := os.ReadFile(name(i))
			die(err)
		}
	})
	measure("stream", func() {
		f, err := os.Open(dir + "/large")
		die(err)
		_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, block)
		die(err)
		die(f.Close())
	})
	die(os.RemoveAll(dir))
	return strings.Join(out, " ")
}
