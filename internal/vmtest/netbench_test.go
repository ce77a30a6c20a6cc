//go:build vm

package vmtest

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/memory"
	"bawn.dev/bawn/internal/qemu"
	"bawn.dev/bawn/internal/sys/socketpair"
)

// The network benchmarks run this very program in two guests of one kernel: in a
// sandbox, whose every connection goes through the rules, and in a bare machine
// on QEMU's own user network (slirp). Both aim at the same servers on the host's
// loopback. Only one machine runs at a time, so that neither takes the other's
// processors.

const (
	netBytes   = 32 << 20 // a transfer
	netConns   = 200      // connections of a measure, below the limiter's burst
	netWorkers = 8        // that open them
	netFetches = 10       // HTTPS requests of a measure
	netHeld    = 1000     // connections open at once

	// slirpHost is the host's loopback as slirp's guests see it, slirpGuest the
	// address they are to take (QEMU invocation, -netdev user).
	slirpHost, slirpGuest = "10.0.2.2", "10.0.2.15/24"
	// netName is the servers' name in the sandbox.
	netName = "bench.test"
	// netClientEnv makes this program the client: see netClient.
	netClientEnv = "BAWN_NET_CLIENT"
	// bareNet is a kernel parameter, of which the kernel makes an environment
	// variable of process 1.
	bareNet = "BAWN_BARE_NET"
)

// BenchmarkNetwork measures a sandbox's network with all rules in force, against slirp.
func BenchmarkNetwork(b *testing.B) {
	b.Setenv(templatesEnv, "off") // or one may be in the making
	plain, secure := netServers(b)
	dir := netBenchProject(b, plain, secure)
	lab := newNetLab(b)
	ours, theirs := map[string][]time.Duration{}, map[string][]time.Duration{}
	for range max(b.N, 5) {
		keep(b, ours, run(b, dir, "run", "--", "env", netClientEnv+"="+netSpec("measure", netName, plain, secure), "./client"))
		run(b, dir, "stop")
		m := lab.bootSlirp(b)
		m.expect("ready")
		fmt.Fprintln(m.console, netSpec("measure", slirpHost, plain, secure))
		keep(b, theirs, m.expect("result "))
		m.end()
	}
	b.ReportMetric(0, "ns/op")
	perSecond := map[string]float64{"up": netBytes / 1e6, "down": netBytes / 1e6, "connect": netConns}
	unit := map[string]string{"up": "MB/s", "down": "MB/s", "connect": "/s"}
	for what := range ours {
		a, z := median(ours[what]), median(theirs[what])
		if n := perSecond[what]; n > 0 {
			b.ReportMetric(n*1000/a, what+unit[what])
			b.ReportMetric(n*1000/z, what+unit[what]+"-theirs")
		} else {
			b.ReportMetric(a, what+"-ms")
			b.ReportMetric(z, what+"-ms-theirs")
		}
		b.ReportMetric(ratio(ours[what], theirs[what]), what+"-ratio")
	}
}

// BenchmarkNetMemory measures the supervisor's memory with a thousand open connections from
// the guest, as proportional set sizes.
func BenchmarkNetMemory(b *testing.B) {
	plain, secure := netServers(b)
	dir := netBenchProject(b, plain, secure)
	before := supervisorPSS(b, filepath.Base(dir))
	c := command(b.Context(), dir, "run", "--", "env", netClientEnv+"="+netSpec("hold", netName, plain, secure), "./client")
	in, err := c.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := c.Start(); err != nil {
		b.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if want := fmt.Sprintf("held %d\n", netHeld); line != want {
		b.Fatalf("%q, %v: want %q", line, err, want)
	}
	steady(b, "the supervisor's memory", 1, func() float64 { return supervisorPSS(b, filepath.Base(dir)) })
	held := supervisorPSS(b, filepath.Base(dir))
	in.Close()
	if err := c.Wait(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(before, "before-MiB")
	b.ReportMetric(held, "held-MiB")
	b.ReportMetric((held-before)*1024/netHeld, "KiB/connection")
}

func supervisorPSS(b *testing.B, name string) float64 {
	b.Helper()
	for pid, line := range processes(filepath.Join(base, "state", "bawn", "sandboxes", name)) {
		if kind(line) == "supervisor" {
			return pss(b, pid)
		}
	}
	b.Fatal("no supervisor")
	return 0
}

// netBenchProject starts a sandbox with the client, which may reach the servers.
func netBenchProject(b *testing.B, plain, secure int) string {
	b.Helper()
	dir := benchProject(b, strings.ToLower(strings.TrimPrefix(b.Name(), "Benchmark")))
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "client"), program, 0o755); err != nil {
		b.Fatal(err)
	}
	// By name, with the loopback allowed by its address, or the floor would hold.
	ports := fmt.Sprintf(":%d,%d", plain, secure)
	run(b, dir, "run", "--cpus", "2", "--memory", "1G", "--add-host", netName+":127.0.0.1",
		"--allow", netName+ports, "--allow", "127.0.0.1"+ports, "--", "true")
	return dir
}

// netServers are a server of transfers and one of HTTPS, on the loopback.
func netServers(b *testing.B) (plain, secure int) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serveTransfer(c)
		}
	}()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "served") }))
	s.Listener.Close()
	// A port of TLS, where the ClientHello is judged before the server is dialled.
	if s.Listener, err = net.Listen("tcp", "127.0.0.1:8443"); err != nil {
		b.Fatal(err)
	}
	s.StartTLS()
	b.Cleanup(s.Close)
	return port(b, l), port(b, s.Listener)
}

func port(b *testing.B, l net.Listener) int {
	b.Helper()
	a, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		b.Fatal(l.Addr())
	}
	return a.Port
}

// serveTransfer serves the request in the first line: "up N" reads N bytes and answers,
// "down N" sends N bytes, "stay" answers. Then it waits for the end.
func serveTransfer(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	line, err := in.ReadString('\n')
	if err != nil {
		return
	}
	what, count, _ := strings.Cut(strings.TrimSpace(line), " ")
	n, _ := strconv.ParseInt(count, 10, 64)
	switch what {
	case "up":
		if _, err := io.CopyN(io.Discard, in, n); err != nil {
			return
		}
	case "down":
		_, _ = io.CopyN(struct{ io.Writer }{c}, zeros{}, n)
		return
	}
	if _, err := io.WriteString(c, "k"); err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, in)
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

func netSpec(mode, host string, plain, secure int) string {
	return fmt.Sprintf("%s %s %d %d", mode, host, plain, secure)
}

// keep adds a result line's times to those of before.
func keep(b *testing.B, to map[string][]time.Duration, line string) {
	b.Helper()
	fields := strings.Fields(line)
	if len(fields) < 2 || fields[0] != "result" {
		b.Fatalf("the client said %q", line)
	}
	for _, kv := range fields[1:] {
		k, v, _ := strings.Cut(kv, "=")
		d, err := time.ParseDuration(v)
		if err != nil {
			b.Fatal(line)
		}
		to[k] = append(to[k], d)
	}
}

// newNetLab boots guests that are nothing but the client.
func newNetLab(b *testing.B) *lab {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	l := newLab(b, map[string]string{"init": self})
	modules, err := filepath.Glob(filepath.Join(filepath.Dir(l.kernel), "boot", "*.ko"))
	if err != nil || len(modules) == 0 {
		b.Fatalf("no modules beside %s (%v)", l.kernel, err)
	}
	files := map[string]string{"init": self}
	for _, m := range modules { // their names begin with the order to load
		files["modules/"+filepath.Base(m)] = m
	}
	if err := os.WriteFile(l.initrd, archive(b, files), 0o600); err != nil {
		b.Fatal(err)
	}
	return l
}

// bootSlirp starts a machine with bawn's arguments but for the network card,
// which is on slirp. QEMU is not confined: slirp makes the connections itself.
func (l *lab) bootSlirp(b *testing.B) *bareSlirp {
	b.Helper()
	const size = 1 << 30
	ram, err := memory.New(size)
	if err != nil {
		b.Fatal(err)
	}
	defer ram.Close()
	console, consoleEnd, err := socketpair.New()
	if err != nil {
		b.Fatal(err)
	}
	defer consoleEnd.Close()
	qmp, qmpEnd, err := socketpair.New()
	if err != nil {
		b.Fatal(err)
	}
	defer qmpEnd.Close()
	registers, registersEnd, err := socketpair.New()
	if err != nil {
		b.Fatal(err)
	}
	defer registers.Close()
	defer registersEnd.Close()
	machine := &qemu.Machine{
		Binary: l.binary, Accel: l.accel, CPUs: 2, Memory: size, RAM: ram,
		Kernel: l.kernel, Initrd: l.initrd, Console: consoleEnd, Append: []string{bareNet + "=1"},
	}
	if err := machine.Check(); err != nil {
		b.Fatal(err)
	}
	args := append(machine.Args(), "-netdev", "user,id=slirp", "-device", "virtio-net-pci,netdev=slirp,disable-legacy=on,romfile=,addr=0x2")
	cmd := exec.Command(l.binary, args...)
	cmd.ExtraFiles = []*os.File{qmpEnd, registersEnd, ram, consoleEnd} // in the order of Args
	cmd.Stderr = os.Stderr
	if err := l.spawner.Start(cmd); err != nil {
		b.Fatal(err)
	}
	return &bareSlirp{bare: bare{b: b, console: console, lines: bufio.NewReader(console)}, cmd: cmd, qmp: qmp}
}

// bareSlirp is a running machine on slirp.
type bareSlirp struct {
	bare
	cmd *exec.Cmd
	qmp net.Conn
}

func (m *bareSlirp) end() {
	_ = m.cmd.Process.Kill()
	_ = m.cmd.Wait() // killed: nothing to learn
	m.console.Close()
	m.qmp.Close()
}

// bareNetInit is process 1 of a guest on slirp.
func bareNetInit(die func(error)) {
	modules, err := filepath.Glob("/modules/*.ko")
	die(err)
	slices.Sort(modules)
	for _, m := range modules {
		f, err := os.Open(m)
		die(err)
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
			die(fmt.Errorf("%s: %w", m, err))
		}
		f.Close()
	}
	var link netlink.Link
	poll(waitLimit, func() bool { link, err = netlink.LinkByName("eth0"); return err == nil })
	die(err)
	addr, err := netlink.ParseAddr(slirpGuest)
	die(err)
	die(netlink.AddrAdd(link, addr))
	die(netlink.LinkSetUp(link))
	fmt.Println("ready")
	in := bufio.NewReader(os.Stdin)
	for {
		spec, err := in.ReadString('\n')
		die(err)
		die(netClient(spec))
	}
}

// netClient is the guest's side of the benchmarks; spec is netSpec's.
func netClient(spec string) error {
	var mode, host string
	var plain, secure int
	if _, err := fmt.Sscan(spec, &mode, &host, &plain, &secure); err != nil {
		return fmt.Errorf("%q: %w", spec, err)
	}
	addrs, err := net.DefaultResolver.LookupNetIP(context.Background(), "ip4", host)
	if err != nil {
		return err
	}
	c := &client{
		plain:  net.JoinHostPort(addrs[0].String(), strconv.Itoa(plain)),
		secure: net.JoinHostPort(addrs[0].String(), strconv.Itoa(secure)),
		name:   host,
	}
	if mode == "hold" {
		return c.hold(netHeld)
	}
	// Once to warm up: under emulation all code is translated when it first runs.
	if _, err := c.measure(); err != nil {
		return err
	}
	result, err := c.measure()
	if err != nil {
		return err
	}
	fmt.Println("result", result)
	return nil
}

// client knows the servers by their addresses: slirp has no names of its own.
type client struct{ plain, secure, name string }

func (c *client) measure() (string, error) {
	var out []string
	for _, m := range []struct {
		what string
		do   func() (time.Duration, error)
	}{
		{"up", func() (time.Duration, error) { return timed(c.sendAll) }},
		{"down", func() (time.Duration, error) { return timed(c.receiveAll) }},
		{"connect", func() (time.Duration, error) { return timed(func() error { return c.many(netConns, c.short) }) }},
		{"https", c.fetches},
	} {
		d, err := m.do()
		if err != nil {
			return "", fmt.Errorf("%s: %w", m.what, err)
		}
		out = append(out, fmt.Sprintf("%s=%v", m.what, d))
	}
	return strings.Join(out, " "), nil
}

func timed(do func() error) (time.Duration, error) {
	start := time.Now()
	err := do()
	return time.Since(start), err
}

// ask opens a connection and sends the request in its first line.
func (c *client) ask(line string) (net.Conn, error) {
	conn, err := net.Dial("tcp", c.plain)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, line+"\n"); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func answer(conn net.Conn) error {
	_, err := io.ReadFull(conn, make([]byte, 1))
	return err
}

func (c *client) sendAll() error {
	conn, err := c.ask(fmt.Sprintf("up %d", netBytes))
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.CopyBuffer(struct{ io.Writer }{conn}, io.LimitReader(zeros{}, netBytes), make([]byte, 256<<10)); err != nil {
		return err
	}
	return answer(conn)
}

func (c *client) receiveAll() error {
	conn, err := c.ask(fmt.Sprintf("down %d", netBytes))
	if err != nil {
		return err
	}
	defer conn.Close()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{conn}, make([]byte, 256<<10))
	if err == nil && n != netBytes {
		err = fmt.Errorf("%d bytes of %d", n, netBytes)
	}
	return err
}

// short is a connection with one round trip.
func (c *client) short() error {
	conn, err := c.ask("stay")
	if err != nil {
		return err
	}
	defer conn.Close()
	return answer(conn)
}

// many does something n times, a few at a time.
func (c *client) many(n int, do func() error) error {
	var wg sync.WaitGroup
	work, errs := make(chan struct{}), make(chan error, n)
	for range netWorkers {
		wg.Go(func() {
			for range work {
				errs <- do()
			}
		})
	}
	for range n {
		work <- struct{}{}
	}
	close(work)
	wg.Wait()
	close(errs)
	var all error
	for err := range errs {
		all = errors.Join(all, err)
	}
	return all
}

// fetches is the median time from nothing to the first byte of an HTTPS answer,
// on a connection of its own.
func (c *client) fetches() (time.Duration, error) {
	var list []time.Duration
	for range netFetches {
		d, err := timed(c.fetch)
		if err != nil {
			return 0, err
		}
		list = append(list, d)
	}
	slices.Sort(list)
	return list[len(list)/2], nil
}

func (c *client) fetch() error {
	raw, err := net.Dial("tcp", c.secure)
	if err != nil {
		return err
	}
	// The certificate is a test's own; what counts is the way there.
	conn := tls.Client(raw, &tls.Config{ServerName: c.name, InsecureSkipVerify: true})
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: "+c.name+"\r\n\r\n"); err != nil {
		return err
	}
	return answer(conn)
}

// hold opens n connections and keeps them until standard input ends.
func (c *client) hold(n int) error {
	var mu sync.Mutex
	var held []net.Conn
	err := c.many(n, func() error {
		conn, err := c.ask("stay")
		if err != nil {
			return err
		}
		mu.Lock()
		held = append(held, conn)
		mu.Unlock()
		return answer(conn)
	})
	if err != nil {
		return err
	}
	fmt.Println("held", len(held))
	_, err = io.Copy(io.Discard, os.Stdin)
	for _, conn := range held {
		conn.Close()
	}
	return err
}
