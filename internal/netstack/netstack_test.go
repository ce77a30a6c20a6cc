package netstack

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

var (
	testGatewayMAC = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	testGuestMAC   = net.HardwareAddr{6, 0, 0, 0, 0, 2}
)

// lab is a Stack under test and, on the other end of its link, a guest.
type lab struct {
	t     testing.TB
	stack *Stack
	guest *stack.Stack // gVisor plays the guest too
	link  *link        // the guest's end
	raw   net.Conn     // the same, for frames of our own

	frames atomic.Int64 // that the guest got
	mute   atomic.Bool  // the guest gets no more

	mu    sync.Mutex
	drops []Drop
}

func newLab(t testing.TB, cfg Config) *lab {
	t.Helper()
	l := &lab{t: t}
	ours, theirs := pair(t)
	cfg.MTU, cfg.GatewayMAC, cfg.GuestMAC = 9000, testGatewayMAC, testGuestMAC
	cfg.Gateway4, cfg.Guest4 = netip.MustParsePrefix("100.127.255.1/30"), netip.MustParsePrefix("100.127.255.2/30")
	cfg.Gateway6, cfg.Guest6 = netip.MustParsePrefix("fd00::1/64"), netip.MustParsePrefix("fd00::2/64")
	if cfg.TCP == nil {
		cfg.TCP = func(r *TCPRequest) { r.Reject() }
	}
	if cfg.UDP == nil {
		cfg.UDP = func(r *UDPRequest) { r.Reject() }
	}
	cfg.Dropped = func(d Drop) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.drops = append(l.drops, d)
	}
	var err error
	if l.stack, err = New(ours, cfg); err != nil {
		t.Fatal(err)
	}
	l.raw = theirs
	t.Cleanup(func() { l.stack.Close() })
	return l
}

// boot starts the guest's stack.
func (l *lab) boot() {
	l.t.Helper()
	// The guest's link is ours with the roles changed.
	c := l.stack.cfg
	mirror := Config{
		MTU: c.MTU, GatewayMAC: c.GuestMAC, GuestMAC: c.GatewayMAC, Gateway4: c.Guest4, Guest4: c.Gateway4, Gateway6: c.Guest6, Guest6: c.Gateway6,
		Dropped: func(Drop) {},
	}
	l.link = newLink(l.raw, &mirror)
	l.link.filter = filter{}
	l.guest = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
	})
	if err := l.guest.CreateNIC(1, l.link); err != nil {
		l.t.Fatal(err)
	}
	for proto, p := range map[tcpip.NetworkProtocolNumber]netip.Prefix{ipv4.ProtocolNumber: c.Guest4, ipv6.ProtocolNumber: c.Guest6} {
		if err := l.guest.AddProtocolAddress(1, tcpip.ProtocolAddress{
			Protocol: proto, AddressWithPrefix: tcpip.AddressWithPrefix{Address: address(p.Addr()), PrefixLen: p.Bits()},
		}, stack.AddressProperties{}); err != nil {
			l.t.Fatal(err)
		}
	}
	l.guest.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, Gateway: address(c.Gateway4.Addr()), NIC: 1},
		{Destination: header.IPv6EmptySubnet, Gateway: address(c.Gateway6.Addr()), NIC: 1},
	})
	go l.deliver()
	l.t.Cleanup(l.guest.Destroy)
}

// deliver hands frames to the guest without a filter.
func (l *lab) deliver() {
	var length [4]byte
	for {
		if _, err := io.ReadFull(l.raw, length[:]); err != nil {
			return
		}
		frame := make([]byte, binary.BigEndian.Uint32(length[:]))
		if _, err := io.ReadFull(l.raw, frame); err != nil {
			return
		}
		l.frames.Add(1)
		if !l.mute.Load() {
			deliverTo(l.link, frame)
		}
	}
}

func pair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if a, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func (l *lab) dial(to string) (net.Conn, error) {
	ap := netip.MustParseAddrPort(to)
	proto := ipv4.ProtocolNumber
	if ap.Addr().Is6() {
		proto = ipv6.ProtocolNumber
	}
	return gonet.DialTCP(l.guest, tcpip.FullAddress{NIC: 1, Addr: address(ap.Addr()), Port: ap.Port()}, proto)
}

func (l *lab) dropped(why string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range l.drops {
		if strings.Contains(d.Why, why) {
			return true
		}
	}
	return false
}

// echoUntilEnd answers with what it got, when the guest has ended its half.
func echoUntilEnd(r *TCPRequest) {
	c, err := r.Accept()
	if err != nil {
		return
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	if err == nil {
		_, _ = c.Write(b)
	}
}

var destinations = []string{"192.0.2.7:443", "[2001:db8::7]:443", "198.18.0.5:80"}

func TestConnections(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	l := newLab(t, Config{TCP: func(r *TCPRequest) {
		mu.Lock()
		seen = append(seen, r.Dst.String())
		mu.Unlock()
		echoUntilEnd(r)
	}})
	l.boot()
	data := strings.Repeat("0123456789", 30000)
	for i, to := range destinations {
		c, err := l.dial(to)
		if err != nil {
			t.Fatalf("%s: %v", to, err)
		}
		go func() {
			_, _ = io.WriteString(c, data)
			_ = c.(*gonet.TCPConn).CloseWrite()
		}()
		got, err := io.ReadAll(c)
		if err != nil || string(got) != data {
			t.Errorf("%s: %d bytes of %d, %v", to, len(got), len(data), err)
		}
		c.Close()
		mu.Lock()
		if seen[i] != to {
			t.Errorf("asked for %s, not %s", seen[i], to)
		}
		mu.Unlock()
	}
}

func TestRejectIsAReset(t *testing.T) {
	l := newLab(t, Config{})
	l.boot()
	for _, to := range destinations {
		if c, err := l.dial(to); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: %v, %v", to, c, err)
		}
	}
}

func TestAbortIsAReset(t *testing.T) {
	accepted := make(chan *Conn, 1)
	l := newLab(t, Config{TCP: func(r *TCPRequest) {
		c, err := r.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		accepted <- c.(*Conn)
	}})
	l.boot()
	c, err := l.dial(destinations[0])
	if err != nil {
		t.Fatal(err)
	}
	(<-accepted).Abort()
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("%v", err)
	}
}

func TestManyConnections(t *testing.T) {
	l := newLab(t, Config{MaxTCP: 100, TCP: echoUntilEnd})
	l.boot()
	var wg sync.WaitGroup
	for range 60 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c, err := l.dial(destinations[0])
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_, _ = io.WriteString(c, "x")
			_ = c.(*gonet.TCPConn).CloseWrite()
			if b, err := io.ReadAll(c); err != nil || string(b) != "x" {
				t.Errorf("%q, %v", b, err)
			}
		}()
	}
	wg.Wait()
}

func TestTooManyConnections(t *testing.T) {
	l := newLab(t, Config{MaxTCP: 2, TCP: echoUntilEnd})
	l.boot()
	for range 2 {
		c, err := l.dial(destinations[0])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if _, err := l.dial(destinations[0]); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("the third: %v", err)
	}
}

// greedy writes to a guest that takes nothing, and closes. It tells how much was
// taken from it.
func greedy(took chan<- int) func(*TCPRequest) {
	return func(r *TCPRequest) {
		c, err := r.Accept()
		if err != nil {
			took <- -1
			return
		}
		_ = c.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
		wrote, _ := c.Write(make([]byte, 4<<20))
		_ = c.Close()
		took <- wrote
	}
}

// TestGreedyGuest: a guest that asks for much and takes nothing gets little
// memory, and what is closed counts while it holds some.
func TestGreedyGuest(t *testing.T) {
	const n = roomyConns + 20
	took := make(chan int, n)
	l := newLab(t, Config{TCP: greedy(took)})
	l.boot()
	for range n {
		if _, err := l.dial(destinations[0]); err != nil {
			t.Fatal(err)
		}
	}
	const guests = 1<<20 + 256<<10 // what the guest's side takes by itself
	roomy, total, holding := 0, 0, int64(0)
	for range n {
		w := <-took
		if w > guests {
			holding++ // the rest arrived
		}
		if w < 0 || w > roomyBuffer+guests {
			t.Errorf("%d bytes were taken from one writer", w)
		}
		if total += w; w > tightBuffer+guests {
			roomy++
		}
	}
	t.Logf("%d MiB in all, %d with much room", total>>20, roomy)
	if roomy > roomyConns {
		t.Errorf("%d connections hold much", roomy)
	}
	if open := l.stack.open.Load(); open < holding {
		t.Errorf("%d count, of %d that still hold data", open, holding)
	}
}

// TestClosedIsReset: what a guest does not take of a closed connection is thrown
// away.
func TestClosedIsReset(t *testing.T) {
	took := make(chan int, 1)
	l := newLab(t, Config{TCP: greedy(took)})
	l.stack.closeTime = 200 * time.Millisecond
	l.boot()
	c, err := l.dial(destinations[0])
	if err != nil {
		t.Fatal(err)
	}
	<-took
	for l.stack.open.Load() > 0 || l.stack.roomy.Load() > 0 { // or this never ends
		time.Sleep(time.Millisecond)
	}
	if _, err := io.Copy(io.Discard, c); err == nil {
		t.Error("the guest saw an end in order of what was cut off")
	}
}

// TestAcknowledgements: those that the next segment says too are not sent; none
// is missing; and one that nothing follows still comes.
func TestAcknowledgements(t *testing.T) {
	arrived := make(chan net.Conn, 1)
	l := newLab(t, Config{TCP: func(r *TCPRequest) {
		c, err := r.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		arrived <- c
		b := make([]byte, 1)
		for {
			if _, err := c.Read(b); err != nil {
				_ = c.Close()
				return
			}
			if b[0] != '-' { // which has no answer
				_, _ = c.Write(b)
			}
		}
	}})
	l.boot()
	for _, to := range destinations {
		c, err := l.dial(to)
		if err != nil {
			t.Fatal(err)
		}
		<-arrived
		before := l.frames.Load()
		for range 10 {
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		// Each answer is a frame; a slow machine adds some.
		if n := l.frames.Load() - before; n < 10 || n > 15 {
			t.Errorf("%s: %d frames for 10 answers", to, n)
		}
		before = l.frames.Load()
		if _, err := c.Write([]byte("-")); err != nil {
			t.Fatal(err)
		}
		for l.frames.Load() == before { // or this never ends
			time.Sleep(time.Millisecond)
		}
		c.Close()
	}
}

func TestDatagrams(t *testing.T) {
	l := newLab(t, Config{UDP: func(r *UDPRequest) {
		time.Sleep(20 * time.Millisecond) // more come meanwhile
		c, err := r.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		b := make([]byte, 100)
		for range 3 {
			n, err := c.Read(b)
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = c.Write(append([]byte("re:"), b[:n]...))
		}
	}})
	l.boot()
	remote := tcpip.FullAddress{NIC: 1, Addr: address(netip.MustParseAddr("192.0.2.7")), Port: 53}
	c, err := gonet.DialUDP(l.guest, nil, &remote, ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, s := range []string{"a", "b", "c"} {
		if _, err := c.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	b := make([]byte, 100)
	for _, want := range []string{"re:a", "re:b", "re:c"} {
		if n, err := c.Read(b); err != nil || string(b[:n]) != want {
			t.Errorf("%q, %v, want %s", b[:n], err, want)
		}
	}
}

// frame is one with the guest's own addresses unless they are given.
func frame(src net.HardwareAddr, typ uint16, payload []byte) []byte {
	f := append(append([]byte{}, testGatewayMAC...), src...)
	return append(binary.BigEndian.AppendUint16(f, typ), payload...)
}

func packet4(src, dst string, proto byte, body []byte, change func([]byte)) []byte {
	p := make([]byte, 20, 20+len(body))
	p[0], p[8], p[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(p[2:], uint16(20+len(body)))
	a, b := netip.MustParseAddr(src).As4(), netip.MustParseAddr(dst).As4()
	copy(p[12:], a[:])
	copy(p[16:], b[:])
	if change != nil {
		change(p)
	}
	return append(p, body...)
}

func packet6(src, dst string, next byte, body []byte) []byte {
	p := make([]byte, 40, 40+len(body))
	p[0], p[6], p[7] = 0x60, next, 64
	binary.BigEndian.PutUint16(p[4:], uint16(len(body)))
	a, b := netip.MustParseAddr(src).As16(), netip.MustParseAddr(dst).As16()
	copy(p[8:], a[:])
	copy(p[24:], b[:])
	return append(p, body...)
}

func (l *lab) send(f []byte) {
	l.t.Helper()
	if _, err := l.raw.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(f))), f...)); err != nil {
		l.t.Fatal(err)
	}
}

func TestWhatIsNotUnderstoodIsDropped(t *testing.T) {
	arrived := make(chan string, 100)
	l := newLab(t, Config{
		TCP: func(r *TCPRequest) { arrived <- r.Src.String(); r.Reject() },
		UDP: func(r *UDPRequest) { arrived <- r.Src.String(); r.Reject() },
	})
	const guest, out = "100.127.255.2", "192.0.2.7"
	udpBody := []byte{0, 99, 0, 53, 0, 8, 0, 0}
	icmp := append([]byte{8, 0, 0, 0, 0, 1, 0, 1}, make([]byte, 8)...)
	for why, f := range map[string][]byte{
		"a source MAC":                   frame(net.HardwareAddr{2, 9, 9, 9, 9, 9}, ethTypeIPv4, packet4(guest, out, 17, udpBody, nil)),
		"neither IPv4, IPv6 nor ARP":     frame(testGuestMAC, 0x88cc, make([]byte, 50)),
		"a source address":               frame(testGuestMAC, ethTypeIPv4, packet4("100.127.255.3", out, 17, udpBody, nil)),
		"a fragment":                     frame(testGuestMAC, ethTypeIPv4, packet4(guest, out, 6, udpBody, func(p []byte) { p[6] = 0x20 })),
		"IP options":                     frame(testGuestMAC, ethTypeIPv4, packet4(guest, out, 17, append(make([]byte, 4), udpBody...), func(p []byte) { p[0] = 0x46 })),
		"malformed":                      frame(testGuestMAC, ethTypeIPv4, []byte{0x45, 0}),
		"ping beyond":                    frame(testGuestMAC, ethTypeIPv4, packet4(guest, out, 1, icmp, nil)),
		"neither TCP, UDP nor ICMP":      frame(testGuestMAC, ethTypeIPv4, packet4(guest, out, 47, make([]byte, 8), nil)),
		"an extension header":            frame(testGuestMAC, ethTypeIPv6, packet6("fd00::2", "2001:db8::7", 44, make([]byte, 16))),
		"an address that is not the gue": frame(testGuestMAC, ethTypeARP, append([]byte{0, 1, 8, 0, 6, 4, 0, 2}, make([]byte, 20)...)),
	} {
		l.send(f)
		deadline := time.Now().Add(20 * time.Second)
		for !l.dropped(why) {
			if time.Now().After(deadline) {
				t.Fatalf("%q was not told", why)
			}
			time.Sleep(time.Millisecond)
		}
	}
	for range 3 { // silently: what ordinary guests send
		l.send(frame(testGuestMAC, ethTypeIPv6, packet6("fe80::1", "ff02::2", 58, []byte{133, 0, 0, 0, 0, 0, 0, 0})))
	}
	if len(arrived) != 0 {
		t.Errorf("passed: %s", <-arrived)
	}
}

// TestErrorsAreICMP: the guest is told at once, also of what has no answer.
func TestErrorsAreICMP(t *testing.T) {
	l := newLab(t, Config{})
	udpBody := []byte{0, 99, 0, 53, 0, 8, 0, 0}
	for _, f := range [][]byte{
		frame(testGuestMAC, ethTypeIPv4, packet4("100.127.255.2", "192.0.2.7", 17, udpBody, nil)),
		frame(testGuestMAC, ethTypeIPv4, packet4("100.127.255.2", "192.0.2.7", 1, append([]byte{8, 0}, make([]byte, 14)...), nil)),
	} {
		l.send(f)
		var length [4]byte
		if _, err := io.ReadFull(l.raw, length[:]); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, binary.BigEndian.Uint32(length[:]))
		if _, err := io.ReadFull(l.raw, answer); err != nil {
			t.Fatal(err)
		}
		icmp := header.ICMPv4(answer[14+20:])
		if icmp.Type() != header.ICMPv4DstUnreachable || icmp.Code() != header.ICMPv4AdminProhibited {
			t.Errorf("type %d code %d", icmp.Type(), icmp.Code())
		}
		if !header.IPv4(answer[14:]).IsChecksumValid() || icmp.Checksum() == 0 {
			t.Error("bad checksums")
		}
	}
}

func TestABrokenLinkEnds(t *testing.T) {
	for name, b := range map[string][]byte{
		"too long":  {0xff, 0xff, 0xff, 0xff},
		"too short": {0, 0, 0, 5, 1, 2, 3, 4, 5},
	} {
		l := newLab(t, Config{})
		if _, err := l.raw.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := l.stack.Wait(); !errors.Is(err, errFrame) {
			t.Errorf("%s: %v", name, err)
		}
	}
	l := newLab(t, Config{})
	l.raw.Close()
	if err := l.stack.Wait(); err != nil {
		t.Errorf("a guest that went away: %v", err)
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	l := newLab(t, Config{TCP: echoUntilEnd})
	l.boot()
	c, err := l.dial(destinations[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := l.stack.Close(); err != nil {
		t.Fatal(err)
	}
	c.Close()
	l.raw.Close()
	l.guest.Destroy()
	for i := 0; runtime.NumGoroutine() > before+2; i++ {
		if i > 2000 {
			buf := make([]byte, 1<<16)
			t.Fatalf("%d goroutines, before %d:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(frame(testGuestMAC, ethTypeIPv4, packet4("100.127.255.2", "192.0.2.7", 6, make([]byte, 20), nil)))
	f.Add(frame(testGuestMAC, ethTypeIPv6, packet6("fd00::2", "2001:db8::7", 17, make([]byte, 8))))
	f.Add(frame(testGuestMAC, ethTypeARP, make([]byte, 28)))
	l := newLab(f, Config{})
	go func() { _, _ = io.Copy(io.Discard, l.raw) }()
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < header.EthernetMinimumSize || len(b) > 9014 {
			return
		}
		deliverTo(l.stack.link, b)
	})
}

func BenchmarkThroughput(b *testing.B) {
	l := newLab(b, Config{TCP: func(r *TCPRequest) {
		c, err := r.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(io.Discard, c)
	}})
	l.boot()
	c, err := l.dial(destinations[0])
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 64<<10)
	b.SetBytes(int64(len(buf)))
	b.ResetTimer()
	for range b.N {
		if _, err := c.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
}
