package guest

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/yamux"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/wire"
)

// host is the other end of the control port.
type host struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Scanner
}

func newHost(t *testing.T, turn, urgent map[wire.Op]handler) *host {
	ours, theirs := pair(t)
	go func() { _ = serveControl(theirs, turn, urgent) }() // ends with the test
	return &host{t, ours, bufio.NewScanner(ours)}
}

func (h *host) send(line string) {
	h.t.Helper()
	_, err := io.WriteString(h.conn, line+"\n")
	must(h.t, err)
}

func (h *host) reply() wire.Reply {
	h.t.Helper()
	if !h.in.Scan() {
		h.t.Fatal("no reply:", h.in.Err())
	}
	var r wire.Reply
	must(h.t, json.Unmarshal(h.in.Bytes(), &r))
	return r
}

func TestControlAnswersInOrder(t *testing.T) {
	h := newHost(t, map[wire.Op]handler{
		wire.OpHello: handle(func(struct{}) (any, error) { return wire.HelloReply{Version: "v", Kernel: "k"}, nil }),
		wire.OpMount: handle(func(m wire.Mount) (any, error) { return nil, errors.New("no " + m.Path) }),
	}, nil)
	h.send(`{"id":1,"op":"hello"}`)
	h.send(`{"id":2,"op":"mount","body":{"path":"/x"}}`)
	h.send(`{"id":3,"op":"mount","body":[]}`)
	h.send(`half a line of an earlier host"}`)
	h.send(`{"id":4,"op":"made-up"}`)
	if r := h.reply(); r.ID != 1 || r.Error != "" || string(r.Body) != `{"version":"v","kernel":"k"}` {
		t.Errorf("hello: %+v", r)
	}
	for _, want := range []struct {
		id   uint64
		says string
	}{{2, "no /x"}, {3, "malformed request"}, {4, `unknown request "made-up"`}} {
		if r := h.reply(); r.ID != want.id || !strings.Contains(r.Error, want.says) {
			t.Errorf("got %+v, want %+v", r, want)
		}
	}
}

func TestUrgentDoesNotWait(t *testing.T) {
	hold := make(chan struct{})
	h := newHost(t, map[wire.Op]handler{
		wire.OpMount: handle(func(wire.Mount) (any, error) { <-hold; return nil, nil }),
	}, map[wire.Op]handler{
		wire.OpShutdown: handle(func(struct{}) (any, error) { return nil, nil }),
	})
	h.send(`{"id":1,"op":"mount"}`)
	h.send(`{"id":2,"op":"shutdown"}`)
	if r := h.reply(); r.ID != 2 {
		t.Errorf("request %d was answered first", r.ID)
	}
	close(hold)
	if r := h.reply(); r.ID != 1 {
		t.Errorf("request %d was answered second", r.ID)
	}
}

// muxHost is the other end of the mux port.
type muxHost struct {
	t    *testing.T
	conn net.Conn
	mux  *mux
}

func newMuxHost(t *testing.T, serve func(net.Conn)) *muxHost {
	ours, theirs := pair(t)
	return &muxHost{t, ours, &mux{port: theirs, serve: serve}}
}

// begin begins a session with garbage before the nonce.
func (h *muxHost) begin(garbage []byte) *yamux.Session {
	h.t.Helper()
	nonce := make([]byte, wire.NonceLen)
	if _, err := rand.Read(nonce); err != nil {
		h.t.Fatal(err)
	}
	must(h.t, h.mux.restart(nonce))
	go func() { _, _ = h.conn.Write(append(garbage, nonce...)) }() // what fails shows below
	// What the earlier session left is thrown away, as the supervisor does.
	must(h.t, skipPast(bufio.NewReaderSize(oneByte{h.conn}, 16), nonce))
	s, err := yamux.Client(keepOpen{h.conn}, muxConfig())
	must(h.t, err)
	return s
}

// oneByte reads no further than asked.
type oneByte struct{ io.Reader }

func (o oneByte) Read(b []byte) (int, error) { return o.Reader.Read(b[:1]) }

// keepOpen is a port: it outlives its session.
type keepOpen struct{ net.Conn }

func (keepOpen) Close() error { return nil }

func TestMuxBeginsAnew(t *testing.T) {
	h := newMuxHost(t, func(c net.Conn) {
		_, _ = io.Copy(c, c)
		c.Close()
	})
	for _, garbage := range [][]byte{nil, []byte("of an earlier host"), make([]byte, 300<<10)} {
		s := h.begin(garbage)
		for range 3 {
			c, err := s.OpenStream()
			must(t, err)
			_, err = io.WriteString(c, "hello")
			must(t, err)
			got := make([]byte, 5)
			if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
				t.Errorf("got %q, %v", got, err)
			}
		}
		// A host that died says no goodbye.
		must(t, h.conn.SetDeadline(time.Unix(1, 0)))
		<-s.CloseChan()
		s.Close() // waits until it reads no more
		must(t, h.conn.SetDeadline(time.Time{}))
	}
}

func TestNonceOfTheWrongLength(t *testing.T) {
	if err := newMuxHost(t, nil).mux.restart([]byte("short")); err == nil {
		t.Error("was taken")
	}
}

func TestSkipPastFindsTheFirstWholeMark(t *testing.T) {
	r := bufio.NewReader(strings.NewReader("aaabaab" + "rest"))
	must(t, skipPast(r, []byte("aab")))
	if rest, err := io.ReadAll(r); err != nil || string(rest) != "aabrest" {
		t.Errorf("left %q, %v", rest, err)
	}
	if err := skipPast(bufio.NewReader(strings.NewReader("nothing")), []byte("mark")); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

func TestStreamToAPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	go serveEcho(l)
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatal(l.Addr())
	}
	ask := func() (wire.StreamReply, net.Conn, *bufio.Reader) {
		ours, theirs := pair(t)
		go serveTCP(theirs, uint16(addr.Port))
		r := bufio.NewReader(ours)
		line, err := r.ReadBytes('\n')
		must(t, err)
		var reply wire.StreamReply
		must(t, json.Unmarshal(line, &reply))
		return reply, ours, r
	}
	reply, c, r := ask()
	if reply.Error != "" {
		t.Fatal(reply.Error)
	}
	_, err = io.WriteString(c, "hello")
	must(t, err)
	must(t, c.(interface{ CloseWrite() error }).CloseWrite())
	if got, err := io.ReadAll(r); err != nil || string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
	l.Close()
	if reply, _, _ := ask(); !strings.Contains(reply.Error, "refused") {
		t.Errorf("nobody listens, yet: %+v", reply)
	}
}

func FuzzReadHeader(f *testing.F) {
	f.Add([]byte("{\"kind\":\"tcp\",\"port\":80}\nrest"))
	f.Add([]byte("{}"))
	f.Add(bytes.Repeat([]byte("x"), 2*maxHeader))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		_, err := readHeader(r)
		read := len(b) - r.Len()
		if read > maxHeader {
			t.Fatalf("read %d bytes", read)
		}
		if err == nil && bytes.IndexByte(b, '\n') != read-1 {
			t.Fatalf("read %d bytes of %q", read, b)
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pair is a connected pair of sockets.
func pair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	conns := make([]net.Conn, 2)
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		conns[i], err = net.FileConn(f)
		f.Close()
		must(t, err)
	}
	t.Cleanup(func() { conns[0].Close(); conns[1].Close() })
	return conns[0], conns[1]
}

func serveEcho(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			_, _ = io.Copy(c, c)
			c.Close()
		}()
	}
}
