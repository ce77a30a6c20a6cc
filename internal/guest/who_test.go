package guest

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"brig.dev/brig/internal/wire"
)

func addrPort(a net.Addr) netip.AddrPort { return netip.MustParseAddrPort(a.String()) }

// TestOwnerOfRealSockets asks about sockets of this very process.
func TestOwnerOfRealSockets(t *testing.T) {
	comm, err := os.ReadFile("/proc/self/comm")
	must(t, err)
	want := wire.ProcessReply{PID: os.Getpid(), Name: string(comm[:len(comm)-1])}
	for _, host := range []string{"127.0.0.1", "::1"} {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Log(err) // no IPv6 here
			continue
		}
		defer l.Close()
		c, err := net.Dial("tcp", l.Addr().String())
		must(t, err)
		r := wire.ProcessRequest{Proto: "tcp", Src: addrPort(c.LocalAddr()), Dst: addrPort(c.RemoteAddr())}
		if got := procfs("/proc").owner(r); got != want {
			t.Errorf("%+v: %+v, want %+v", r, got, want)
		}
		c.Close()
		if got := procfs("/proc").owner(r); got.PID != 0 {
			t.Errorf("a closed connection is %+v's", got)
		}
	}
	// A socket for datagrams that is connected, and one that is not.
	to := netip.MustParseAddrPort("127.0.0.1:9")
	c, err := net.Dial("udp", to.String())
	must(t, err)
	defer c.Close()
	p, err := net.ListenPacket("udp", ":0")
	must(t, err)
	defer p.Close()
	for _, src := range []netip.AddrPort{addrPort(c.LocalAddr()), netip.AddrPortFrom(to.Addr(), addrPort(p.LocalAddr()).Port())} {
		if got := procfs("/proc").owner(wire.ProcessRequest{Proto: "udp", Src: src, Dst: to}); got != want {
			t.Errorf("%s: %+v, want %+v", src, got, want)
		}
	}
}

// TestOwnerInContainers looks for a port that the guest's own namespace lacks.
func TestOwnerInContainers(t *testing.T) {
	proc := t.TempDir()
	const head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	line := func(local, remote string, inode int) string {
		return fmt.Sprintf("   0: %s %s 01 00000000:00000000 00:00000000 00000000  1000        0 %d 1 0 20 4 30 10 -1\n", local, remote, inode)
	}
	add := func(pid int, ns, comm, tcp string, links ...string) {
		dir := filepath.Join(proc, strconv.Itoa(pid))
		for _, d := range []string{"ns", "net", "fd"} {
			must(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
		}
		must(t, os.Symlink("net:["+ns+"]", filepath.Join(dir, "ns", "net")))
		must(t, os.WriteFile(filepath.Join(dir, "net", "tcp"), []byte(head+tcp), 0o600))
		must(t, os.WriteFile(filepath.Join(dir, "comm"), []byte(comm+"\n"), 0o600))
		for i, l := range links {
			must(t, os.Symlink(l, filepath.Join(dir, "fd", strconv.Itoa(i))))
		}
	}
	// 100.127.255.2:40001 to 198.18.0.1:443, and others that only look like it.
	own := line("02FF7F64:9C41", "010012C6:01BB", 11) + line("02FF7F64:9C42", "020012C6:01BB", 12) + line("02FF7F64:9C44", "010012C6:01BB", 0)
	inside := line("020011AC:9C42", "010012C6:01BB", 21) + line("020011AC:9C41", "010012C6:01BB", 22)
	add(1, "1", "brig-guest", own)
	must(t, os.Symlink("1", filepath.Join(proc, "self")))
	add(40, "1", "bash", own, "/dev/null", "socket:[110]")
	add(41, "1", "curl", own, "pipe:[11]", "socket:[11]")
	add(50, "2", "pause", inside)
	add(51, "2", "node", inside, "socket:[21]", "socket:[22]")
	must(t, os.WriteFile(filepath.Join(proc, "60"), nil, 0o600)) // ended meanwhile
	for _, c := range []struct {
		proto string
		port  uint16
		want  wire.ProcessReply
	}{
		{"tcp", 40001, wire.ProcessReply{PID: 41, Name: "curl"}},
		{"tcp", 40002, wire.ProcessReply{PID: 51, Name: "node"}},
		{"tcp", 40003, wire.ProcessReply{}},
		{"tcp", 40004, wire.ProcessReply{}}, // its process let go of it
		{"udp", 40001, wire.ProcessReply{}},
		{"../../tcp", 40001, wire.ProcessReply{}},
	} {
		r := wire.ProcessRequest{Proto: c.proto, Src: netip.AddrPortFrom(netip.MustParseAddr("100.127.255.2"), c.port), Dst: netip.MustParseAddrPort("198.18.0.1:443")}
		if got := procfs(proc).owner(r); got != c.want {
			t.Errorf("%s port %d: %+v, want %+v", c.proto, c.port, got, c.want)
		}
	}
}

func TestParseSocket(t *testing.T) {
	s, ok := parseSocket("   1: 0000000000000000FFFF000002FF7F64:9C41 000000000000000000000000010000FD:0016 01 0:0 00:0 0 1000 0 7 1")
	if !ok || s.local != netip.MustParseAddrPort("100.127.255.2:40001") || s.remote.Port() != 22 || !s.remote.Addr().Is6() || s.inode != 7 {
		t.Errorf("%+v %v", s, ok)
	}
	for _, bad := range []string{"", "sl local_address", "0: 02FF7F64 010012C6:01BB 01 0 0 0 0 0 7", "0: 02FF7F:9C41 010012C6:01BB 01 0 0 0 0 0 7", "0: 02FF7F64:19C41 010012C6:01BB 01 0 0 0 0 0 7"} {
		if s, ok := parseSocket(bad); ok {
			t.Errorf("%q: %+v", bad, s)
		}
	}
}

func TestTraceNotes(t *testing.T) {
	tr := trace{notes: map[tracedPort]note{}}
	// As it comes: in pieces, with lines about other things, and with a name
	// that looks like a line's other parts.
	text := "           <...>-412     [001] ...1.    12.345678: tcp: (tcp_connect+0x0/0x4a0) port=40000 comm=\"curl\"\n" +
		"CPU:1 [LOST 12 EVENTS]\n" +
		"           <...>-413     [000] b..1.    13.000001: udp6: (udpv6_sendmsg+0x0/0xb60) port=53000 comm=\"x\" port=1 comm=\"y\"\n" +
		"           <...>-414     [000] b..1.    13.5: udp: (udp_sendmsg+0x0/0xb60) port=70000 comm=\"no port\"\n" +
		"           <...>-415     [000] b..1.    14.0: tcp: (tcp_connect+0x0/0x4a0) port=40000 comm=\"later\"\n" +
		"           <...>-416     [000] b..1.    15.0: tcp: (tcp_connect+0x0/0x4a0) port=40001 comm=\"half"
	for i := 0; i < len(text); i += 7 {
		tr.take([]byte(text[i:min(i+7, len(text))]))
	}
	want := map[tracedPort]note{
		{"tcp", 40000}: {415, "later", 14 * time.Second},
		{"udp", 53000}: {413, `x" port=1 comm="y`, 13*time.Second + time.Microsecond},
	}
	if !maps.Equal(tr.notes, want) {
		t.Errorf("%+v", tr.notes)
	}
	tr.forget(13*time.Second + traceAge + time.Millisecond)
	if len(tr.notes) != 1 || tr.notes[tracedPort{"tcp", 40000}].task != 415 {
		t.Errorf("%+v", tr.notes)
	}
	if task, _ := new(trace).user("tcp", 40000); task != 0 {
		t.Errorf("without probes: %d", task)
	}
}

// TestTracedThread: a thread's process is named, while there is one.
func TestTracedThread(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	comm, err := os.ReadFile("/proc/self/comm")
	must(t, err)
	want := wire.ProcessReply{PID: os.Getpid(), Name: strings.TrimSpace(string(comm))}
	if got := procfs("/proc").process(syscall.Gettid(), "thread"); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	gone := procfs(t.TempDir())
	if got := gone.process(7, "gone"); got != (wire.ProcessReply{PID: 7, Name: "gone"}) {
		t.Errorf("%+v", got)
	}
	// What /proc said holds for a while, and only for a thread of that name.
	tr := &trace{}
	if got := tr.process("/proc", syscall.Gettid(), "thread"); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := tr.process(gone, syscall.Gettid(), "thread"); got != want {
		t.Errorf("just now: %+v, want %+v", got, want)
	}
	if got := tr.process(gone, syscall.Gettid(), "other"); got.Name != "other" {
		t.Errorf("another program: %+v", got)
	}
	key := tracedTask{syscall.Gettid(), "thread"}
	tr.tasks[key] = known{want, time.Now().Add(-taskAge)}
	if got := tr.process(gone, syscall.Gettid(), "thread"); got.Name != "thread" {
		t.Errorf("long ago: %+v", got)
	}
}
