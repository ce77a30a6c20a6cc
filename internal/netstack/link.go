package netstack

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// lengthLen is the length before each frame: 32 bits, big-endian (QEMU's
// net/stream.c).
const lengthLen = 4

// link is the socket to QEMU as a network card of the stack.
type link struct {
	conn   net.Conn
	cfg    *Config
	filter filter
	frags  fragments // of the reader

	attached sync.RWMutex
	up       stack.NetworkDispatcher

	writing  sync.Mutex
	out      []byte
	acks     acks
	flushing bool // flush is on its way

	once    sync.Once
	onClose func()
}

func newLink(conn net.Conn, cfg *Config) *link {
	return &link{conn: conn, cfg: cfg, filter: newFilter(cfg)}
}

func (l *link) close() { l.once.Do(func() { l.conn.Close() }) }

// errFrame means that the peer, QEMU, does not keep the protocol.
var errFrame = errors.New("netstack: a frame of impossible length")

// read passes frames up until the link ends.
func (l *link) read() error {
	in := bufio.NewReaderSize(l.conn, 256<<10)
	var length [lengthLen]byte
	for {
		if _, err := io.ReadFull(in, length[:]); err != nil {
			return ended(err)
		}
		n := binary.BigEndian.Uint32(length[:])
		if n < header.EthernetMinimumSize || int64(n) > int64(l.cfg.MTU+header.EthernetMinimumSize) {
			return fmt.Errorf("%w: %d bytes", errFrame, n)
		}
		frame := buffer.NewViewSize(int(n))
		if _, err := io.ReadFull(in, frame.AsSlice()); err != nil {
			frame.Release()
			return ended(err)
		}
		l.receive(frame)
	}
}

// ended returns nil for the errors with which a link ends in order.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) {
		return nil
	}
	return err
}

// receive passes one frame up, if it may pass. It owns the view.
func (l *link) receive(frame *buffer.View) {
	verdict, drop := l.filter.inspect(frame.AsSlice())
	if verdict == piece {
		whole, why := l.frags.add(fragmentOf(frame.AsSlice()), time.Now())
		frame.Release()
		if whole == nil {
			if drop.Why = why; why != "" {
				l.cfg.Dropped(drop)
			}
			return
		}
		frame = whole
		verdict, drop = l.filter.inspect(frame.AsSlice())
	}
	if verdict != pass {
		if verdict == refuse {
			l.prohibit(frame.AsSlice()[header.EthernetMinimumSize:])
		}
		if drop.Why != "" {
			l.cfg.Dropped(drop)
		}
		frame.Release()
		return
	}
	l.pass(trim(frame))
}

// maxPadding is how much may follow a packet in its frame: short frames are padded to
// 60 bytes (IEEE 802.3).
const maxPadding = 60

// trim returns a frame without what follows its packet: the stack counts what it
// holds by the packets' lengths. The filter has passed the frame. It owns the view.
func trim(frame *buffer.View) *buffer.View {
	b := frame.AsSlice()
	packet := b[header.EthernetMinimumSize:]
	n := header.EthernetMinimumSize
	switch binary.BigEndian.Uint16(b[12:]) {
	case ethTypeIPv4:
		n += int(header.IPv4(packet).TotalLength())
	case ethTypeIPv6:
		n += header.IPv6MinimumSize + int(header.IPv6(packet).PayloadLength())
	case ethTypeARP:
		n += header.ARPSize
	}
	if len(b)-n <= maxPadding {
		return frame
	}
	defer frame.Release()
	return buffer.NewViewWithData(b[:n])
}

// pass hands a frame to the stack. It owns the view.
func (l *link) pass(frame *buffer.View) {
	l.attached.RLock()
	up := l.up
	l.attached.RUnlock()
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(frame)})
	defer pkt.DecRef()
	if up == nil || !l.ParseHeader(pkt) {
		return
	}
	eth := header.Ethernet(pkt.LinkHeader().Slice())
	switch dst := eth.DestinationAddress(); {
	case dst == header.EthernetBroadcastAddress:
		pkt.PktType = tcpip.PacketBroadcast
	case header.IsMulticastEthernetAddress(dst):
		pkt.PktType = tcpip.PacketMulticast
	default:
		pkt.PktType = tcpip.PacketHost
	}
	up.DeliverNetworkPacket(eth.Type(), pkt)
}

// WritePackets implements stack.LinkWriter: all frames in one write.
func (l *link) WritePackets(list stack.PacketBufferList) (int, tcpip.Error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.out = l.out[:0]
	for _, pkt := range list.AsSlice() {
		l.put(pkt)
	}
	if l.acks.waiting > 0 && !l.flushing {
		l.flushing = true
		time.AfterFunc(ackDelay, l.flush)
	}
	if len(l.out) == 0 {
		return list.Len(), nil
	}
	if _, err := l.conn.Write(l.out); err != nil {
		return 0, &tcpip.ErrClosedForSend{}
	}
	return list.Len(), nil
}

// put appends a frame to what is written next, unless it may wait (acks.go).
func (l *link) put(pkt *stack.PacketBuffer) {
	at := len(l.out)
	l.out = append(l.out, 0, 0, 0, 0)
	for _, s := range pkt.AsSlices() {
		l.out = append(l.out, s...)
	}
	frame := l.out[at:]
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-lengthLen))
	held, before := l.acks.hold(frame)
	if held {
		l.out = l.out[:at]
	}
	l.out = append(l.out, before...)
}

// flush writes the acknowledgements that still wait.
func (l *link) flush() {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.flushing = false
	if l.out = l.acks.releaseAll(l.out[:0]); len(l.out) > 0 {
		_, _ = l.conn.Write(l.out) // a link that ended is seen by the reader
	}
}

// write sends one IP packet of ours to the guest.
func (l *link) write(proto tcpip.NetworkProtocolNumber, packet []byte) {
	frame := make([]byte, lengthLen+header.EthernetMinimumSize, lengthLen+header.EthernetMinimumSize+len(packet))
	binary.BigEndian.PutUint32(frame, uint32(header.EthernetMinimumSize+len(packet)))
	header.Ethernet(frame[lengthLen:]).Encode(&header.EthernetFields{
		SrcAddr: tcpip.LinkAddress(l.cfg.GatewayMAC), DstAddr: tcpip.LinkAddress(l.cfg.GuestMAC), Type: proto,
	})
	l.writing.Lock()
	defer l.writing.Unlock()
	_, _ = l.conn.Write(append(frame, packet...)) // a link that ended is seen by the reader
}

// The rest implements stack.LinkEndpoint.

// MTU implements stack.NetworkLinkEndpoint.
func (l *link) MTU() uint32 { return uint32(l.cfg.MTU) }

// SetMTU implements stack.NetworkLinkEndpoint: it is fixed.
func (l *link) SetMTU(uint32) {}

// MaxHeaderLength implements stack.NetworkLinkEndpoint.
func (l *link) MaxHeaderLength() uint16 { return header.EthernetMinimumSize }

// LinkAddress implements stack.NetworkLinkEndpoint.
func (l *link) LinkAddress() tcpip.LinkAddress { return tcpip.LinkAddress(l.cfg.GatewayMAC) }

// SetLinkAddress implements stack.NetworkLinkEndpoint: it is fixed.
func (l *link) SetLinkAddress(tcpip.LinkAddress) {}

// Capabilities implements stack.NetworkLinkEndpoint. Between two processes of
// one host no bit is lost, so checksums are not looked at.
func (l *link) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityResolutionRequired | stack.CapabilityRXChecksumOffload
}

// Attach implements stack.NetworkLinkEndpoint.
func (l *link) Attach(d stack.NetworkDispatcher) {
	l.attached.Lock()
	defer l.attached.Unlock()
	l.up = d
}

// IsAttached implements stack.NetworkLinkEndpoint.
func (l *link) IsAttached() bool {
	l.attached.RLock()
	defer l.attached.RUnlock()
	return l.up != nil
}

// Wait implements stack.NetworkLinkEndpoint; Stack waits for the reader.
func (l *link) Wait() {}

// ARPHardwareType implements stack.NetworkLinkEndpoint.
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareEther }

// AddHeader implements stack.NetworkLinkEndpoint.
func (l *link) AddHeader(pkt *stack.PacketBuffer) {
	header.Ethernet(pkt.LinkHeader().Push(header.EthernetMinimumSize)).Encode(&header.EthernetFields{
		SrcAddr: pkt.EgressRoute.LocalLinkAddress, DstAddr: pkt.EgressRoute.RemoteLinkAddress, Type: pkt.NetworkProtocolNumber,
	})
}

// ParseHeader implements stack.NetworkLinkEndpoint.
func (l *link) ParseHeader(pkt *stack.PacketBuffer) bool {
	_, ok := pkt.LinkHeader().Consume(header.EthernetMinimumSize)
	return ok
}

// Close implements stack.NetworkLinkEndpoint.
func (l *link) Close() { l.close() }

// SetOnCloseAction implements stack.NetworkLinkEndpoint.
func (l *link) SetOnCloseAction(f func()) { l.onClose = f }
