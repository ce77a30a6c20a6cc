package netstack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
)

const testGuest4, testOut4, testGuest6, testOut6 = "100.127.255.2", "192.0.2.7", "fd00::2", "2001:db8::7"

// datagramBody is a UDP header from port 99 to port 53 and n bytes.
func datagramBody(n int) []byte {
	b := []byte{0, 99, 0, 53, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(b[4:], uint16(8+n))
	for i := range n {
		b = append(b, byte(i/7))
	}
	return b
}

// frag4 and frag6 are the frame of one fragment.
func frag4(proto byte, id uint16, offset int, more bool, data []byte) []byte {
	return frame(testGuestMAC, ethTypeIPv4, packet4(testGuest4, testOut4, proto, data, func(p []byte) {
		binary.BigEndian.PutUint16(p[4:], id)
		bits := uint16(offset / 8)
		if more {
			bits |= 0x2000
		}
		binary.BigEndian.PutUint16(p[6:], bits)
	}))
}

func frag6(next byte, id uint32, offset int, more bool, data []byte) []byte {
	h := []byte{next, 0, 0, 0}
	bits := uint16(offset)
	if more {
		bits |= 1
	}
	binary.BigEndian.PutUint16(h[2:], bits)
	h = binary.BigEndian.AppendUint32(h, id)
	return frame(testGuestMAC, ethTypeIPv6, packet6(testGuest6, testOut6, 44, append(h, data...)))
}

// cut returns the frames of a datagram as a link with that MTU carries it.
func cut(six bool, id int, body []byte, mtu int) (list [][]byte) {
	step := (mtu - 48) &^ 7
	for at := 0; at < len(body); at += step {
		end := min(at+step, len(body))
		if six {
			list = append(list, frag6(17, uint32(id), at, end < len(body), body[at:end]))
		} else {
			list = append(list, frag4(17, uint16(id), at, end < len(body), body[at:end]))
		}
	}
	return list
}

// TestDatagramsInFragmentsArrive: as a container's, whose MTU is 1500; in any order.
func TestDatagramsInFragmentsArrive(t *testing.T) {
	got := make(chan []byte, 10)
	l := newLab(t, Config{UDP: func(r *UDPRequest) {
		c, err := r.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		b := make([]byte, 1<<16)
		n, err := c.Read(b)
		if err := errors.Join(err, c.Close()); err != nil { // before the next datagram, which is from the same port
			t.Error(err)
		}
		got <- b[:n]
	}})
	id := 0
	for _, six := range []bool{false, true} {
		for _, n := range []int{1473, 4000, 65507 - 20} {
			for _, backwards := range []bool{false, true} {
				id++
				body := datagramBody(n)
				list := cut(six, id, body, 1500)
				for i := range list {
					if backwards {
						i = len(list) - 1 - i
					}
					l.send(list[i])
				}
				if b := <-got; !bytes.Equal(b, body[8:]) {
					t.Errorf("IPv6 %v: %d bytes of %d, or others", six, len(b), n)
				}
			}
		}
	}
}

// TestFragmentsThatDoNotFitAreRefused, with all of their datagram.
func TestFragmentsThatDoNotFitAreRefused(t *testing.T) {
	data := make([]byte, 64)
	for name, c := range map[string]struct {
		why    string
		frames [][]byte
	}{
		"overlap":           {"overlaps", [][]byte{frag4(17, 1, 0, true, data), frag4(17, 1, 56, true, data)}},
		"the same twice":    {"overlaps", [][]byte{frag4(17, 1, 64, true, data), frag4(17, 1, 64, true, data)}},
		"within another":    {"overlaps", [][]byte{frag6(17, 1, 0, true, data), frag6(17, 1, 8, true, data[:8])}},
		"around another":    {"overlaps", [][]byte{frag4(17, 1, 8, true, data[:8]), frag4(17, 1, 0, true, data)}},
		"behind the end":    {"contradicts", [][]byte{frag4(17, 1, 64, false, data), frag4(17, 1, 256, true, data)}},
		"two ends":          {"contradicts", [][]byte{frag4(17, 1, 64, false, data), frag4(17, 1, 32, false, data[:8])}},
		"an end before":     {"contradicts", [][]byte{frag6(17, 1, 256, true, data), frag6(17, 1, 64, false, data)}},
		"not in eighths":    {"malformed", [][]byte{frag4(17, 1, 0, true, data[:20])}},
		"empty":             {"malformed", [][]byte{frag4(17, 1, 8, true, nil)}},
		"too long":          {"malformed", [][]byte{frag4(17, 1, 65528, false, data)}},
		"too many":          {"too many", many(data)},
		"a TCP fragment":    {"a fragment", [][]byte{frag4(6, 1, 0, true, data)}},
		"a TCP fragment v6": {"an extension header", [][]byte{frag6(6, 1, 0, true, data)}},
		"options after it":  {"an extension header", [][]byte{frag6(60, 1, 0, true, data)}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, Config{UDP: func(r *UDPRequest) { t.Error("it arrived"); r.Reject() }})
			for _, f := range c.frames {
				l.send(f)
			}
			if first := c.frames[0]; first[12] == 8 && first[14+9] == 17 { // what completes it comes too late
				l.send(frag4(17, 1, 0, true, datagramBody(56)))
				l.send(frag4(17, 1, 64, false, data))
			}
			deadline := time.Now().Add(20 * time.Second)
			for !l.dropped(c.why) {
				if time.Now().After(deadline) {
					t.Fatalf("%q was not told", c.why)
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
}

func many(data []byte) (list [][]byte) {
	for i := range maxFragments + 1 {
		list = append(list, frag4(17, 1, 8+16*i, true, data[:8]))
	}
	return list
}

// TestFragmentsTakeLittleMemory: datagrams that never become whole hold what the
// bounds say, the old ones give way, and they are forgotten.
func TestFragmentsTakeLittleMemory(t *testing.T) {
	var table fragments
	now := time.Now()
	piece := make([]byte, 60_000)
	for i := range 5000 {
		table.add(fragmentOf(frag4(17, uint16(i), 8, true, piece)), now)
		table.add(fragmentOf(frag6(17, uint32(i), 8, true, piece[:8])), now)
		if len(table.table) > maxFragmented || table.bytes > maxFragmentBytes {
			t.Fatalf("%d datagrams with %d bytes", len(table.table), table.bytes)
		}
	}
	body := datagramBody(3000)
	var whole *buffer.View
	for _, f := range cut(false, 9, body, 1500) {
		whole, _ = table.add(fragmentOf(f), now)
	}
	if whole == nil || !bytes.Equal(whole.AsSlice()[34:], body) {
		t.Error("an honest datagram does not get through")
	}
	table.add(fragmentOf(frag4(17, 1, 0, true, piece[:8])), now.Add(fragmentTime+time.Second))
	if len(table.table) != 1 || table.bytes != 8+datagramCost {
		t.Errorf("%d datagrams with %d bytes are left of those that were late", len(table.table), table.bytes)
	}
}

// TestDatagramsThatWaitTakeLittleMemory: as many associations and datagrams as the
// guest can begin, in frames as long as may be, most of them padding.
func TestDatagramsThatWaitTakeLittleMemory(t *testing.T) {
	asked := make(chan *UDPRequest, 4*maxUDPWait)
	l := newLab(t, Config{UDP: func(r *UDPRequest) { asked <- r }})
	before := heap()
	for i := range 2 * maxUDPWait {
		for range maxUDPMore + 3 {
			body := datagramBody(1000)
			binary.BigEndian.PutUint16(body, uint16(1000+i))
			f := frame(testGuestMAC, ethTypeIPv4, packet4(testGuest4, testOut4, 17, body, nil))
			l.send(append(f, make([]byte, 9014-len(f))...))
		}
	}
	l.send(frame(testGuestMAC, 0x88cc, make([]byte, 50))) // the last
	for !l.dropped("neither IPv4") {
		time.Sleep(time.Millisecond)
	}
	l.stack.udp.mu.Lock()
	n, held := l.stack.udp.waiting, l.stack.udp.bytes
	l.stack.udp.mu.Unlock()
	if n > maxUDPWait || held > maxUDPQueues {
		t.Errorf("%d associations wait with %d bytes", n, held)
	}
	if took := heap() - before; took > maxUDPQueues+8<<20 {
		t.Errorf("%d bytes of the host's memory for %d", took, held)
	}
	for range n {
		(<-asked).Reject()
	}
	l.stack.udp.mu.Lock()
	defer l.stack.udp.mu.Unlock()
	if a := &l.stack.udp; a.waiting != 0 || a.bytes != 0 || len(a.byID) != 0 {
		t.Errorf("%d wait with %d bytes after all were rejected", a.waiting, a.bytes)
	}
}

// TestEmptyDatagramsAreCounted: what a reader does not take is bounded, though it has
// no payload.
func TestEmptyDatagramsAreCounted(t *testing.T) {
	accepted := make(chan *association, 1)
	l := newLab(t, Config{UDP: func(r *UDPRequest) {
		c, err := r.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		accepted <- c.(*association)
	}})
	empty := frame(testGuestMAC, ethTypeIPv4, packet4(testGuest4, testOut4, 17, datagramBody(0), nil))
	l.send(empty)
	c := <-accepted
	for range 2 * maxUDPQueue / datagramCost {
		l.send(empty)
	}
	l.send(frame(testGuestMAC, 0x88cc, make([]byte, 50)))
	for !l.dropped("neither IPv4") {
		time.Sleep(time.Millisecond)
	}
	l.stack.udp.mu.Lock()
	n := len(c.queue)
	l.stack.udp.mu.Unlock()
	if n != maxUDPQueue/datagramCost {
		t.Errorf("%d empty datagrams wait", n)
	}
	c.Close()
}

// TestPaddingIsNotKept: the stack gets a packet without what follows it in the frame.
func TestPaddingIsNotKept(t *testing.T) {
	for name, f := range map[string][]byte{
		"IPv4": frame(testGuestMAC, ethTypeIPv4, packet4(testGuest4, testOut4, 6, make([]byte, 21), nil)),
		"IPv6": frame(testGuestMAC, ethTypeIPv6, packet6(testGuest6, testOut6, 6, make([]byte, 21))),
		"ARP":  frame(testGuestMAC, ethTypeARP, make([]byte, 28)),
	} {
		v := trim(buffer.NewViewWithData(append(bytes.Clone(f), make([]byte, 9000)...)))
		if !bytes.Equal(v.AsSlice(), f) {
			t.Errorf("%s: %d bytes, want %d", name, v.Size(), len(f))
		}
		v.Release()
	}
}

func heap() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// TestDatagramConn: deadlines, the end and addresses.
func TestDatagramConn(t *testing.T) {
	accepted := make(chan *association, 1)
	l := newLab(t, Config{UDP: func(r *UDPRequest) {
		c, err := r.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		accepted <- c.(*association)
	}})
	l.send(frame(testGuestMAC, ethTypeIPv4, packet4(testGuest4, testOut4, 17, datagramBody(3), nil)))
	c := <-accepted
	if got := fmt.Sprint(c.LocalAddr(), c.RemoteAddr()); got != testOut4+":53 "+testGuest4+":99" {
		t.Error(got)
	}
	b := make([]byte, 2)
	if n, err := c.Read(b); n != 2 || err != nil { // the rest is lost
		t.Error(n, err)
	}
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := c.Read(b); err == nil || !err.(interface{ Timeout() bool }).Timeout() {
		t.Error(err)
	}
	_ = c.SetReadDeadline(time.Time{})
	ended := make(chan error, 1)
	go func() { _, err := c.Read(b); ended <- err }()
	c.Close()
	if err := <-ended; err == nil {
		t.Error("read after the end")
	}
	if _, err := c.Write(b); err == nil {
		t.Error("written after the end")
	}
}

func FuzzFragments(f *testing.F) {
	f.Add(uint16(0), true, []byte("12345678"), uint16(8), false, []byte("x"))
	f.Add(uint16(8), false, []byte("x"), uint16(0), true, []byte("12345678"))
	f.Fuzz(func(t *testing.T, o1 uint16, m1 bool, d1 []byte, o2 uint16, m2 bool, d2 []byte) {
		if len(d1) > 60_000 || len(d2) > 60_000 {
			return
		}
		var table fragments
		now := time.Now()
		for _, x := range [][]byte{frag4(17, 1, int(o1)&^7, m1, d1), frag4(17, 1, int(o2)&^7, m2, d2)} {
			whole, _ := table.add(fragmentOf(x), now)
			if whole != nil && whole.Size() > 14+20+len(d1)+len(d2) {
				t.Errorf("%d bytes of %d and %d", whole.Size(), len(d1), len(d2))
			}
		}
		if table.bytes < 0 || len(table.table) == 0 && table.bytes != 0 {
			t.Errorf("%d bytes in %d datagrams", table.bytes, len(table.table))
		}
	})
}
