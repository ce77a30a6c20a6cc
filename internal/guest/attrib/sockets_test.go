package attrib

import (
	"encoding/binary"
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

	"bawn.dev/bawn/internal/guest/tracefs"
	"bawn.dev/bawn/internal/wire"
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
	add(1, "1", "bawn-guest", own)
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

// tcpFormat is what the kernel says of such an event.
const tcpFormat = `name: tcp
ID: 1700
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:unsigned char common_flags;	offset:2;	size:1;	signed:0;
	field:unsigned char common_preempt_count;	offset:3;	size:1;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:unsigned long __probe_ip;	offset:8;	size:8;	signed:0;
	field:u16 port;	offset:16;	size:2;	signed:0;
	field:__data_loc char[] comm;	offset:20;	size:4;	signed:1;

print fmt: "(%lx) port=%u comm=\"%s\"", REC->__probe_ip, REC->port, __get_str(comm)
`

// ringPage is a page of the trace buffer.
type ringPage struct{ b []byte }

func newRingPage(at time.Duration) *ringPage {
	return &ringPage{binary.NativeEndian.AppendUint64(make([]byte, 0, 4096), uint64(at))}
}

func (p *ringPage) words(w ...uint32) *ringPage {
	if len(p.b) == 8 {
		p.b = append(p.b, make([]byte, 8)...) // the length
	}
	for _, v := range w {
		p.b = binary.NativeEndian.AppendUint32(p.b, v)
	}
	return p
}

// event appends one with a length in the kind, or long.
func (p *ringPage) event(long bool, delta time.Duration, id uint16, task int32, port uint16, comm string) *ringPage {
	data := binary.NativeEndian.AppendUint16(nil, id)
	data = append(data, 0, 0)
	data = binary.NativeEndian.AppendUint32(data, uint32(task))
	data = append(data, make([]byte, 8)...)
	data = binary.NativeEndian.AppendUint16(data, port)
	data = append(data, 0, 0)
	data = binary.NativeEndian.AppendUint32(data, uint32(len(comm)+1)<<16|24)
	data = append(append(data, comm...), 0)
	for len(data)%4 != 0 {
		data = append(data, 0xff)
	}
	if long {
		p.words(uint32(delta)<<5, uint32(len(data)+4))
	} else {
		p.words(uint32(delta)<<5 | uint32(len(data)/4))
	}
	p.b = append(p.b, data...)
	return p
}

// page ends it; flags say that events were lost.
func (p *ringPage) page(flags uint64) []byte {
	binary.NativeEndian.PutUint64(p.b[8:], uint64(len(p.b)-16)|flags)
	return append(p.b, "what was there before"...)
}

func TestTraceNotes(t *testing.T) {
	tcp, err := parseLayout("tcp", tcpFormat)
	must(t, err)
	if want := (layout{"tcp", 4, 16, 20}); tcp != want {
		t.Fatalf("%+v, want %+v", tcp, want)
	}
	udp := tcp
	udp.proto = "udp"
	tr := trace{notes: map[tracedPort]note{}, events: map[uint16]layout{1700: tcp, 1701: udp}}
	const extend, stamp, padding = 30, 31, 29
	for _, page := range [][]byte{
		newRingPage(12*time.Second).
			event(false, 345*time.Millisecond/10, 1700, 412, 40000, "curl").
			words(123<<5|padding, 8, 0). // an event that was taken back
			event(true, 0, 1701, 413, 53000, "x\" port=1").
			event(false, 1, 7, 414, 40002, "the kernel's own").
			page(1 << 31),
		newRingPage(13*time.Second).
			words(5<<5|extend, 2). // 2<<27 + 5 ns later
			event(false, 0, 1700, 415, 40000, "later").
			words(uint32(20*time.Second&(1<<27-1))<<5|stamp, uint32(20*time.Second>>27)).
			event(false, 0, 1700, 416, 40001, "stamped").
			words(padding).
			event(false, 0, 1700, 417, 40003, "behind the end").
			page(0),
		newRingPage(time.Second).event(false, 0, 1700, 418, 40000, "from another ring").page(0),
	} {
		tracefs.EachEvent(page, tr.take)
	}
	want := map[tracedPort]note{
		{"tcp", 40000}: {415, "later", 13*time.Second + 2<<27 + 5},
		{"udp", 53000}: {413, "x\" port=1", 12*time.Second + 345*time.Millisecond/10},
		{"tcp", 40001}: {416, "stamped", 20 * time.Second},
	}
	if !maps.Equal(tr.notes, want) {
		t.Errorf("%+v, want %+v", tr.notes, want)
	}
	tr.forget(13*time.Second + traceAge)
	if len(tr.notes) != 2 || tr.notes[tracedPort{"tcp", 40000}].task != 415 {
		t.Errorf("%+v", tr.notes)
	}
	if task, _ := new(trace).user("tcp", 40000); task != 0 {
		t.Errorf("without probes: %d", task)
	}
	for _, bad := range []string{"", "field:int common_pid;\toffset:4;", strings.ReplaceAll(tcpFormat, "port;", "prt;")} {
		if l, err := parseLayout("tcp", bad); err == nil {
			t.Errorf("%q: %+v", bad, l)
		}
	}
}

// FuzzRing: no bytes lead out of a page.
func FuzzRing(f *testing.F) {
	f.Add(newRingPage(12).event(false, 5, 1700, 412, 40000, "curl").event(true, 5, 1700, 412, 40000, "curl").page(0))
	l := layout{"tcp", 4, 16, 20}
	f.Fuzz(func(_ *testing.T, page []byte) {
		tracefs.EachEvent(page, func(at time.Duration, data []byte) { l.note(at, data) })
	})
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

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
