package gitssh

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"bawn.dev/bawn/internal/egress/gitssh/gitsshtest"
)

// gate is a server to which guests connect, whose target is never reached.
type gate struct {
	mu      sync.Mutex
	refused []string
	begun   []string
	done    chan struct{} // closed: the connection was served to its end

	up    *gitsshtest.Server // to which all passes; nil: nothing does
	key   ssh.Signer         // that it takes
	conns []net.Conn         // to it
	ends  []string           // of sessions: why
}

func (g *gate) dial() (net.Conn, error) {
	if g.up == nil {
		return nil, errors.New("the server was dialled")
	}
	c, err := net.Dial("tcp", g.up.Listen.Addr().String())
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conns = append(g.conns, c)
	return c, err
}

// passing is a session of which all passes.
type passing struct{ g *gate }

func (p *passing) Push(in *bufio.Reader) (io.Reader, []byte, bool) { return in, nil, false }

func (p *passing) End(_, _ int64, why string) {
	p.g.mu.Lock()
	defer p.g.mu.Unlock()
	p.g.ends = append(p.g.ends, why)
}

// open gives the gate a server whose commands hang.
func (g *gate) open(t *testing.T) {
	t.Helper()
	a, err := OpenAuthority(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	g.key = a.signer
	g.up = &gitsshtest.Server{Key: a.signer.PublicKey(), Host: a.signer, Listen: l, Hang: true}
	go g.up.Serve(t)
}

// connect returns the guest's end of a connection.
func (g *gate) connect(t *testing.T) net.Conn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	guest, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	state := t.TempDir()
	s := New(func(ctx context.Context) (*Authority, error) { return OpenAuthority(ctx, state) },
		func(context.Context, string, uint16, string) (*ssh.ClientConfig, func(), error) {
			if g.up == nil {
				return nil, nil, errors.New("no login")
			}
			return &ssh.ClientConfig{User: "git", Auth: []ssh.AuthMethod{ssh.PublicKeys(g.key)}, HostKeyCallback: ssh.FixedHostKey(g.up.Host.PublicKey())}, func() {}, nil
		})
	done := make(chan struct{})
	g.done = done
	t.Cleanup(func() { guest.Close(); <-done }) // it reads the times that the next test changes
	go func() {
		defer close(done)
		s.Serve(t.Context(), conn, Target{
			Name: "git.example.org", Port: 22,
			Dial: g.dial,
			Begin: func(c Command) (Session, error) {
				g.mu.Lock()
				defer g.mu.Unlock()
				g.begun = append(g.begun, c.String())
				if g.up != nil {
					return &passing{g}, nil
				}
				return nil, errors.New("bawn: forbidden")
			},
			Fault: func(string) {},
			Refused: func(why string) {
				g.mu.Lock()
				defer g.mu.Unlock()
				g.refused = append(g.refused, why)
			},
		})
	}()
	return guest
}

// said returns what was refused.
func (g *gate) said() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return strings.Join(g.refused, "; ")
}

// ended waits for the end of the connection.
func (g *gate) ended(t *testing.T) {
	t.Helper()
	select {
	case <-g.done:
	case <-time.After(30 * time.Second):
		t.Fatal("the connection is still served")
	}
}

func client(t *testing.T, conn net.Conn, change func(*ssh.ClientConfig)) *ssh.Client {
	t.Helper()
	conf := &ssh.ClientConfig{User: "git", HostKeyCallback: ssh.InsecureIgnoreHostKey()}
	if change != nil {
		change(conf)
	}
	sc, channels, requests, err := ssh.NewClientConn(conn, "git.example.org:22", conf)
	if err != nil {
		t.Fatal(err)
	}
	return ssh.NewClient(sc, channels, requests)
}

// short makes times short for a test.
func short(t *testing.T, times ...*time.Duration) {
	for _, d := range times {
		was := *d
		*d = 300 * time.Millisecond
		t.Cleanup(func() { *d = was })
	}
}

// TestAttackGarbage: bytes that are no SSH, a packet that is too long, and a handshake that stands still end
// the connection.
func TestAttackGarbage(t *testing.T) {
	short(t, &handshakeTime)
	long := binary.BigEndian.AppendUint32(nil, 1<<24)
	for name, text := range map[string]string{
		"TLS":           "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"HTTP":          "GET / HTTP/1.1\r\nHost: git.example.org\r\n\r\n",
		"an old SSH":    "SSH-1.5-x\r\n",
		"a long line":   strings.Repeat("x", 1<<20),
		"a long packet": "SSH-2.0-x\r\n" + string(long) + strings.Repeat("x", 1<<20),
		"nothing":       "",
		"half":          "SSH-2.0-x\r\n",
	} {
		g := &gate{}
		c := g.connect(t)
		go func() { _, _ = io.WriteString(c, text) }()
		go func() { _, _ = io.Copy(io.Discard, c) }()
		g.ended(t)
		if got := g.said(); !strings.Contains(got, "no handshake of SSH") {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestAttackKeyExchanges: each costs the host a signature, so a client that asks for more and more loses its
// connection.
func TestAttackKeyExchanges(t *testing.T) {
	g := &gate{}
	c := client(t, g.connect(t), func(c *ssh.ClientConfig) { c.RekeyThreshold = 256 })
	for range 100_000 {
		if _, _, err := c.SendRequest("x", true, bytes.Repeat([]byte("x"), 1000)); err != nil {
			g.ended(t)
			return
		}
	}
	t.Error("100,000 exchanges of keys")
}

// TestAttackChannelsAndRequests: a client that asks for everything gets nothing, and the connection goes on.
func TestAttackChannelsAndRequests(t *testing.T) {
	g := &gate{}
	c := client(t, g.connect(t), nil)
	for i := range 500 {
		for _, kind := range []string{"direct-tcpip", "x11", "auth-agent@openssh.com", "tun@openssh.com", "forwarded-tcpip", "direct-streamlocal@openssh.com"} {
			if _, _, err := c.OpenChannel(kind, nil); err == nil {
				t.Fatalf("a channel of the type %s", kind)
			}
		}
		for _, kind := range []string{"tcpip-forward", "streamlocal-forward@openssh.com", "hostkeys-prove-00@openssh.com", fmt.Sprint(i)} {
			if ok, _, err := c.SendRequest(kind, true, nil); ok || err != nil {
				t.Fatalf("%s: %v, %v", kind, ok, err)
			}
		}
	}
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := s.CombinedOutput("git-upload-pack 'own/app'"); err == nil || string(out) != "bawn: forbidden" {
		t.Errorf("%v %s", err, out)
	}
}

// TestAttackManySessions: a connection has one at a time, and not without end; a session has few requests.
func TestAttackManySessions(t *testing.T) {
	g := &gate{}
	c := client(t, g.connect(t), nil)
	n := 0
	for ; n < 10*maxSessions; n++ {
		s, err := c.NewSession()
		if err != nil && strings.Contains(err.Error(), "one session at a time") { // the last one is about to end
			n--
			continue
		}
		if err != nil {
			break
		}
		_, _ = s.CombinedOutput("git-upload-pack 'own/app'")
	}
	if g.ended(t); n != maxSessions {
		t.Errorf("%d sessions", n)
	}
	c = client(t, g.connect(t), nil)
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	for n = 0; n < 10*maxRequests; n++ {
		if _, err := s.SendRequest("env", true, ssh.Marshal(struct{ N, V string }{"X", "y"})); err != nil {
			break
		}
	}
	if n != maxRequests {
		t.Errorf("%d requests", n)
	}
}

// TestAttackQuietClients: a connection without a command ends, with a session or without one.
func TestAttackQuietClients(t *testing.T) {
	short(t, &quietTime)
	g := &gate{}
	client(t, g.connect(t), nil)
	g.ended(t)
	c := client(t, g.connect(t), nil)
	if _, err := c.NewSession(); err != nil {
		t.Fatal(err)
	}
	g.ended(t)
}

// TestKeysMeanNothing: a client that begins with a key gets in with any, and one that asks for a password does
// not get a question.
func TestKeysMeanNothing(t *testing.T) {
	a, err := OpenAuthority(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{}
	c := client(t, g.connect(t), func(c *ssh.ClientConfig) { c.Auth = []ssh.AuthMethod{ssh.PublicKeys(a.signer)} })
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := s.CombinedOutput("git-receive-pack 'own/app'"); err == nil || string(out) != "bawn: forbidden" {
		t.Errorf("%v %s", err, out)
	}
}

// TestSessionsThatStandStill: a session in which nothing passes ends, and so does one whose server is gone or never
// logs in; the client gets the reason, and the connection goes on.
func TestSessionsThatStandStill(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(g *gate)
		want string
	}{
		"idle":            {func(*gate) { short(t, &idleTime) }, "nothing has passed for long"},
		"a reset server":  {func(g *gate) { go g.reset() }, "the server ended the session"},
		"a silent server": {func(g *gate) { g.up.Listen.Close(); short(t, &loginTime); g.silent(t) }, "no session could be opened there"},
	} {
		t.Run(name, func(t *testing.T) {
			g := &gate{}
			g.open(t)
			guest := client(t, g.connect(t), nil)
			c.set(g)
			s, err := guest.NewSession()
			if err != nil {
				t.Fatal(err)
			}
			in, err := s.StdinPipe() // stays open
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			if out, err := s.CombinedOutput("git-upload-pack 'own/app'"); err == nil || !strings.Contains(string(out), c.want) {
				t.Errorf("%v %s", err, out)
			}
			guest.Close()
			g.ended(t)
			if len(g.ends) != 1 || !strings.Contains(g.ends[0], c.want) {
				t.Errorf("%q", g.ends)
			}
		})
	}
}

// TestAttackLoginsThatFail: a guest that fetches again and again does not make the person's agent ask each time.
func TestAttackLoginsThatFail(t *testing.T) {
	g := &gate{}
	g.open(t)
	asked := &refusingSigner{Signer: g.key}
	g.key = asked
	guest := client(t, g.connect(t), nil)
	out := ""
	for range maxFailed + 10 {
		s, err := guest.NewSession()
		for ; err != nil && strings.Contains(err.Error(), "one session at a time"); s, err = guest.NewSession() {
			time.Sleep(time.Millisecond) // the one before is not closed yet
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := s.CombinedOutput("git-upload-pack 'own/app'")
		if out = string(text); err == nil {
			t.Fatalf("it passed: %s", out)
		}
		s.Close()
	}
	if n := asked.times.Load(); n == 0 || n > maxFailed+1 {
		t.Errorf("the agent was asked %d times", n)
	}
	if !strings.Contains(out, "try again in") {
		t.Errorf("the guest reads %q", out)
	}
	guest.Close()
	g.ended(t)
}

// refusingSigner is a key whose use the person refuses each time.
type refusingSigner struct {
	ssh.Signer
	times atomic.Int32
}

func (s *refusingSigner) Sign(io.Reader, []byte) (*ssh.Signature, error) {
	s.times.Add(1)
	return nil, errors.New("agent refused operation")
}

// reset ends the connection to the server once a command runs there.
func (g *gate) reset() {
	for {
		if commands, _, _ := g.up.Seen(); commands != "" {
			break
		}
		time.Sleep(time.Millisecond)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.conns {
		c.Close()
	}
}

// silent puts a server that says nothing in the place of the other.
func (g *gate) silent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	g.up.Listen = l
}

// held is a client's connection that hands on nothing while it is locked.
type held struct {
	net.Conn
	sync.Mutex
}

func (h *held) Read(b []byte) (int, error) {
	n, err := h.Conn.Read(b)
	h.Lock()
	defer h.Unlock()
	return n, err
}

// TestAttackSessionsLeftOpen: a client that does not close its session gets no other one, as what it sends to
// each is held; and it loses its connection in the end.
func TestAttackSessionsLeftOpen(t *testing.T) {
	g := &gate{}
	h := &held{Conn: g.connect(t)}
	c := client(t, h, nil)
	s, requests, err := c.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(requests)
	short(t, &quietTime)
	h.Lock()
	if _, err := s.SendRequest("exec", false, ssh.Marshal(struct{ C string }{"id"})); err != nil {
		t.Fatal(err)
	}
	for g.said() == "" {
		time.Sleep(time.Millisecond)
	}
	second := make(chan error)
	go func() {
		time.Sleep(quietTime / 4) // the session has ended on the other side
		_, _, err := c.OpenChannel("session", nil)
		second <- err
	}()
	g.ended(t)
	h.Unlock()
	if err := <-second; err == nil || !strings.Contains(err.Error(), "one session at a time") {
		t.Error(err)
	}
}

// TestAttackLongDisconnect: the log has a bounded part of what a client says as it goes.
func TestAttackLongDisconnect(t *testing.T) {
	g := &gate{}
	c := g.connect(t)
	go func() { _, _ = io.Copy(io.Discard, c) }()
	payload := append([]byte{1}, ssh.Marshal(struct {
		Reason         uint32
		Text, Language string
	}{2, strings.Repeat("x", 30_000), ""})...)
	padding := 8 - (5+len(payload))%8 + 8
	packet := binary.BigEndian.AppendUint32(nil, uint32(1+len(payload)+padding))
	packet = append(append(append(packet, byte(padding)), payload...), make([]byte, padding)...)
	_, _ = io.WriteString(c, "SSH-2.0-x\r\n"+string(packet))
	g.ended(t)
	if got := g.said(); !strings.Contains(got, "disconnect") || len(got) > 2*maxShown {
		t.Errorf("%d bytes: %.100q", len(got), got)
	}
}
