// Package netstack ends the guest's only network link in a TCP/IP stack of our
// own (gVisor's) and hands out what arrives as connections and datagrams. It is
// the only user of gVisor and knows no policy: its caller accepts or rejects.
//
// Theory of operation. QEMU's -netdev stream sends each Ethernet frame after its
// length. A reader (link.go) takes frames off the socket and shows each to a
// filter (filter.go), which lets through only what a well-behaved guest with one
// address of each family sends: ARP and neighbour discovery about the gateway,
// TCP and UDP from the guest's own address, echo requests to the gateway. The
// rest is dropped and reported (Config.Dropped); for some of it the guest gets an
// ICMP error, so that nothing waits for a time-out. So the stack behind the filter, which has
// to accept packets to every address in the world, never sees a forged source,
// a fragment or an extension header: fragments of UDP datagrams are put together
// before (fragments.go).
//
// The stack takes every destination for its own (promiscuous, spoofing). A SYN
// becomes a TCPRequest, the first datagram between two addresses a UDPRequest (udp.go). The
// guest gets no answer before the caller decides: Accept makes the handshake, Reject
// sends a reset or an ICMP error.
//
// The memory of a connection is bounded, and that of all together: a guest that asks
// for much and reads nothing would otherwise fill the host's memory. The first
// connections have large buffers to be fast, the others small ones (roomyConns), and
// a closed one counts until the guest has read what was written. A guest's side that
// went away without a word is noticed (alive.go).
//
// Known limit: a guest that does not read stalls its own link, and with it all its
// connections; the writer waits.
package netstack

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Config describes the link. Both families are served.
type Config struct {
	MTU                  int // bytes of an IP packet
	GatewayMAC, GuestMAC net.HardwareAddr
	Gateway4, Guest4     netip.Prefix // addresses with the length of their network
	Gateway6, Guest6     netip.Prefix
	MaxTCP               int               // connections open at once; more get a reset
	TCP                  func(*TCPRequest) // in a goroutine of its own; must Accept or Reject
	UDP                  func(*UDPRequest) // likewise
	Dropped              func(Drop)        // called by the reader: must be quick
}

// Drop describes a packet that was not let through.
type Drop struct {
	Proto    string // "arp", "icmp", "tcp", a number, ...
	Src, Dst netip.Addr
	Why      string
}

// Bounds of a link.
const (
	// MaxMTU keeps a frame below what QEMU passes on (net/net.h, NET_BUFSIZE).
	MaxMTU = 65520
	// defaultMaxTCP is Config.MaxTCP where that is 0.
	defaultMaxTCP = 4096
	// maxSYN is how many connections may wait for Accept or Reject.
	maxSYN = 1024

	// roomyConns is how many connections may have the buffers of a fast transfer:
	// roomyBuffer bytes each way, of which startBuffer at first. Those opened while
	// so many are open have tightBuffer. So all of defaultMaxTCP together hold half
	// a GiB at most.
	roomyConns  = 128
	roomyBuffer = 1 << 20
	startBuffer = 256 << 10
	tightBuffer = 32 << 10

	// closeTime is how long a guest may take to read the last bytes of a closed
	// connection; then it is reset. closePoll is the time until the first check,
	// and doubles with each.
	closeTime = time.Minute
	closePoll = 50 * time.Millisecond

	nicID = 1
)

// Stack is a running stack. Safe for concurrent use.
type Stack struct {
	cfg   Config
	link  *link
	stack *stack.Stack

	open  atomic.Int64 // TCP connections, and requests not yet answered
	roomy atomic.Int64 // of them those with large buffers

	closeTime time.Duration // tests shorten it
	alive     aliveTimes    // likewise

	udp  associations
	done chan struct{}
	err  error
}

// New runs a stack on a link, which it owns and closes at the end. Call Close, also
// after the link has ended.
func New(conn net.Conn, cfg Config) (*Stack, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.MaxTCP == 0 {
		cfg.MaxTCP = defaultMaxTCP
	}
	s := &Stack{cfg: cfg, udp: associations{byID: map[stack.TransportEndpointID]*association{}}, closeTime: closeTime, alive: defaultAlive, done: make(chan struct{})}
	s.link = newLink(conn, &s.cfg)
	s.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
	})
	if err := s.configure(); err != nil {
		s.stack.Destroy()
		return nil, err
	}
	forward := tcp.NewForwarder(s.stack, startBuffer, maxSYN, s.connection)
	s.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, forward.HandlePacket)
	s.stack.SetTransportProtocolHandler(udp.ProtocolNumber, s.datagram)
	go func() {
		s.err = s.link.read()
		s.link.close()
		close(s.done)
	}()
	return s, nil
}

func (c *Config) check() error {
	switch {
	case c.MTU < 1280 || c.MTU > MaxMTU:
		return fmt.Errorf("netstack: MTU %d: want 1280 to %d", c.MTU, MaxMTU)
	case len(c.GatewayMAC) != 6 || len(c.GuestMAC) != 6:
		return errors.New("netstack: a MAC address has 6 bytes")
	case !c.Gateway4.Addr().Is4() || !c.Guest4.Addr().Is4() || !c.Gateway6.Addr().Is6() || !c.Guest6.Addr().Is6():
		return errors.New("netstack: gateway and guest need an address of each family")
	case c.TCP == nil || c.UDP == nil || c.Dropped == nil:
		return errors.New("netstack: a handler is missing")
	}
	return nil
}

// configure sets addresses, routes and options.
func (s *Stack) configure() error {
	var errs []error
	try := func(what string, err tcpip.Error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("netstack: %s: %s", what, err))
		}
	}
	try("network card", s.stack.CreateNIC(nicID, s.link))
	for _, a := range []struct {
		proto          tcpip.NetworkProtocolNumber
		gateway, guest netip.Prefix
	}{{ipv4.ProtocolNumber, s.cfg.Gateway4, s.cfg.Guest4}, {ipv6.ProtocolNumber, s.cfg.Gateway6, s.cfg.Guest6}} {
		try("address", s.stack.AddProtocolAddress(nicID, tcpip.ProtocolAddress{
			Protocol:          a.proto,
			AddressWithPrefix: tcpip.AddressWithPrefix{Address: address(a.gateway.Addr()), PrefixLen: a.gateway.Bits()},
		}, stack.AddressProperties{}))
		// Fixed: the guest is not asked about neighbours.
		try("neighbour", s.stack.AddStaticNeighbor(nicID, a.proto, address(a.guest.Addr()), tcpip.LinkAddress(s.cfg.GuestMAC)))
	}
	try("promiscuous mode", s.stack.SetPromiscuousMode(nicID, true))
	try("spoofing", s.stack.SetSpoofing(nicID, true))
	s.stack.SetRouteTable([]tcpip.Route{
		{Destination: address(s.cfg.Guest4.Addr()).WithPrefix().Subnet(), NIC: nicID},
		{Destination: address(s.cfg.Guest6.Addr()).WithPrefix().Subnet(), NIC: nicID},
	})
	sack, moderate := tcpip.TCPSACKEnabled(true), tcpip.TCPModerateReceiveBufferOption(true)
	timeWait, finWait := tcpip.TCPTimeWaitTimeoutOption(5*time.Second), tcpip.TCPLingerTimeoutOption(10*time.Second)
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: startBuffer, Max: roomyBuffer}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: startBuffer, Max: roomyBuffer}
	// The link loses nothing, and a guest under emulation may be slow to answer:
	// what is sent again too early only adds to its work. So no probes of the last
	// segment (RACK), and a long first wait.
	recovery, minRTO := tcpip.TCPRecovery(0), tcpip.TCPMinRTOOption(time.Second)
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &moderate, &timeWait, &finWait, &recovery, &minRTO, &receive, &send} {
		try("TCP option", s.stack.SetTransportProtocolOption(tcp.ProtocolNumber, o))
	}
	return errors.Join(errs...)
}

func address(a netip.Addr) tcpip.Address { return tcpip.AddrFromSlice(a.AsSlice()) }

func addrPort(a tcpip.Address, port uint16) netip.AddrPort {
	ip, _ := netip.AddrFromSlice(a.AsSlice()) // of either length
	return netip.AddrPortFrom(ip, port)
}

// Wait returns when the link has ended: nil when the guest's side or Close ended
// it, else how it was broken.
func (s *Stack) Wait() error {
	<-s.done
	return s.err
}

// Close ends the link and all connections.
func (s *Stack) Close() error {
	s.link.close()
	<-s.done
	s.udp.closeAll()
	s.stack.Destroy()
	return nil
}

// TCPRequest is a connection that the guest wants. Exactly one of Accept and
// Reject must be called.
type TCPRequest struct {
	Src, Dst netip.AddrPort
	stack    *Stack
	request  *tcp.ForwarderRequest
}

// connection is called for each SYN, in a goroutine of its own.
func (s *Stack) connection(r *tcp.ForwarderRequest) {
	id := r.ID()
	if s.open.Add(1) > int64(s.cfg.MaxTCP) {
		s.open.Add(-1)
		r.Complete(true)
		return
	}
	s.cfg.TCP(&TCPRequest{
		Src: addrPort(id.RemoteAddress, id.RemotePort), Dst: addrPort(id.LocalAddress, id.LocalPort),
		stack: s, request: r,
	})
}

// Accept completes the handshake. The connection is a *Conn.
func (r *TCPRequest) Accept() (net.Conn, error) {
	var wq waiter.Queue
	ep, err := r.request.CreateEndpoint(&wq)
	if err != nil {
		r.Reject()
		return nil, fmt.Errorf("netstack: handshake: %s", err)
	}
	r.request.Complete(false)
	c := &Conn{TCPConn: gonet.NewTCPConn(&wq, ep), ep: ep, wq: &wq, stack: r.stack}
	c.size()
	c.keepAlive()
	return c, nil
}

// Reject answers with a reset.
func (r *TCPRequest) Reject() {
	r.stack.open.Add(-1)
	r.request.Complete(true)
}

// Conn is an accepted connection. Besides net.Conn's it has CloseRead,
// CloseWrite and Abort.
type Conn struct {
	*gonet.TCPConn
	ep     tcpip.Endpoint
	wq     *waiter.Queue
	stack  *Stack
	roomy  bool
	ending atomic.Bool // our end is sent, or will be
	once   sync.Once   // starts linger
	gone   sync.Once   // takes the connection off the counts
	reset  sync.Once   // starts what OnReset was given
}

// size sets the size of the connection's buffers.
func (c *Conn) size() {
	if c.roomy = c.stack.roomy.Add(1) <= roomyConns; c.roomy {
		return // as the stack's options say, and growing
	}
	c.stack.roomy.Add(-1)
	for _, set := range []func(int64, bool){c.ep.SocketOptions().SetReceiveBufferSize, c.ep.SocketOptions().SetSendBufferSize} {
		set(tightBuffer, true)
	}
}

func (c *Conn) ended() {
	c.gone.Do(func() {
		c.stack.open.Add(-1)
		if c.roomy {
			c.stack.roomy.Add(-1)
		}
	})
}

// CloseWrite ends our half.
func (c *Conn) CloseWrite() error {
	c.ending.Store(true)
	return c.TCPConn.CloseWrite()
}

// Close ends the connection in order; what was written is still sent, if the guest
// reads it within a minute (closeTime).
func (c *Conn) Close() error {
	c.ending.Store(true)
	err := c.TCPConn.Close()
	c.once.Do(func() { c.linger(closePoll, time.Now().Add(c.stack.closeTime)) })
	return err
}

// linger counts the connection until nothing of it is left to send.
func (c *Conn) linger(poll time.Duration, until time.Time) {
	switch state := tcp.EndpointState(c.ep.State()); state {
	case tcp.StateFinWait2, tcp.StateTimeWait, tcp.StateClose, tcp.StateError:
		c.ended()
		return
	default:
		if time.Now().After(until) {
			c.ep.Abort()
			c.ended()
			return
		}
	}
	time.AfterFunc(min(poll, time.Until(until)+1), func() { c.linger(2*poll, until) })
}

// Abort ends the connection with a reset.
func (c *Conn) Abort() {
	c.ep.Abort()
	_ = c.TCPConn.Close() // wakes the readers
	c.ended()
}
