package netstack

import (
	"bytes"
	"encoding/binary"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// segment is a frame to the guest as the link writes it, with its length before.
func segment(port uint16, flags header.TCPFlags, ack uint32, payload string) []byte {
	tcp := make([]byte, header.TCPMinimumSize)
	header.TCP(tcp).Encode(&header.TCPFields{SrcPort: 443, DstPort: port, AckNum: ack, DataOffset: header.TCPMinimumSize, Flags: flags})
	f := append(append([]byte{}, testGuestMAC...), testGatewayMAC...)
	f = binary.BigEndian.AppendUint16(f, ethTypeIPv4)
	f = append(f, packet4("192.0.2.7", "100.127.255.2", protoTCP, append(tcp, payload...), nil)...)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(f))), f...)
}

func TestHoldAcknowledgements(t *testing.T) {
	const (
		ack, fin, rst = header.TCPFlagAck, header.TCPFlagFin, header.TCPFlagRst
		syn           = header.TCPFlagSyn
		high          = 0xffffffff // sequence numbers wrap around after it
	)
	type step struct {
		flags   header.TCPFlags
		ack     uint32
		payload string
		held    bool // this one
		waiting int  // after it
	}
	for name, steps := range map[string][]step{
		"overtaken by data":       {{syn | ack, 100, "", false, 0}, {ack, 105, "", true, 1}, {ack, 105, "k", false, 0}},
		"overtaken by the end":    {{syn | ack, 100, "", false, 0}, {ack, 105, "", true, 1}, {ack | fin, 105, "", false, 0}},
		"every second goes":       {{syn | ack, 100, "", false, 0}, {ack, 105, "", true, 1}, {ack, 110, "", false, 0}, {ack, 115, "", true, 1}},
		"a window or a loss":      {{syn | ack, 100, "", false, 0}, {ack, 100, "", false, 0}, {ack, 105, "", true, 1}, {ack, 105, "", false, 0}},
		"an older one, overtaken": {{syn | ack, 100, "", false, 0}, {ack, 105, "", true, 1}, {ack, 100, "late", false, 1}},
		"around the end":          {{syn | ack, high, "", false, 0}, {ack, 4, "", true, 1}, {ack, 9, "x", false, 0}},
		"a reset":                 {{syn | ack, 100, "", false, 0}, {ack, 105, "", true, 1}, {rst, 0, "", false, 0}},
		"begun again":             {{syn | ack, 100, "", false, 0}, {ack, 105, "", true, 1}, {syn | ack, 7, "", false, 0}, {ack, 8, "", true, 1}},
		"not known":               {{ack, 105, "", false, 0}},
	} {
		var a acks
		for i, s := range steps {
			held, other := a.hold(segment(40000, s.flags, s.ack, s.payload))
			if held != s.held || a.waiting != s.waiting || other != nil {
				t.Errorf("%s, %d: held %v, %d wait, another %x", name, i, held, a.waiting, other)
			}
		}
	}
}

// TestHoldTwo: connections that share a place lose nothing, and all that waits is
// released.
func TestHoldTwo(t *testing.T) {
	var a acks
	k, _, _, _ := ackOf(segment(1, 0, 0, "")[lengthLen:])
	place, other := a.flow(k), uint16(0)
	for p := uint16(2); other == 0; p++ {
		if k.guestPt = p; a.flow(k) == place {
			other = p
		}
	}
	a.hold(segment(1, header.TCPFlagSyn|header.TCPFlagAck, 10, ""))
	first := segment(1, header.TCPFlagAck, 20, "")
	if held, _ := a.hold(first); !held {
		t.Fatal("not held")
	}
	if held, out := a.hold(segment(other, header.TCPFlagSyn|header.TCPFlagAck, 30, "")); held || !bytes.Equal(out, first) {
		t.Errorf("%v, %x", held, out)
	}
	second := segment(other, header.TCPFlagAck, 40, "")
	if held, _ := a.hold(second); !held {
		t.Error("not held")
	}
	if out := a.releaseAll(nil); !bytes.Equal(out, second) || a.waiting != 0 {
		t.Errorf("%x, %d wait", out, a.waiting)
	}
	for _, f := range [][]byte{first[:40], segment(1, 0, 0, "")[:lengthLen+14+20+8]} { // no whole segment
		if held, out := a.hold(f); held || out != nil {
			t.Errorf("%x was held", f)
		}
	}
}
