package gitssh

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/time/rate"
)

// Variables for tests.
var (
	// handshakeTime is how long a client's handshake may take.
	handshakeTime = 30 * time.Second
	// quietTime is how long a connection may be without a session that is under way.
	quietTime = time.Minute
	// idleTime is how long a session may pass nothing either way.
	idleTime = 30 * time.Minute
	// loginTime bounds the real server's handshake and login, a question of the person's ssh-agent
	// (ssh-add -c, a touch of a key) included.
	loginTime = 90 * time.Second
)

const (
	// maxSessions bounds the sessions of a connection. One is open at a time: ssh opens another connection
	// for the second.
	maxSessions = 64
	// maxRequests bounds the requests of a session before its command.
	maxRequests = 64
	// maxAttempts bounds the attempts to authenticate. All methods succeed that ask for no secret.
	maxAttempts = 3
)

// Server ends connections. Safe for concurrent use.
type Server struct {
	authority func(context.Context) (*Authority, error)
	login     Login
	logins    *rate.Limiter
	failed    failures
}

// Login returns how the person logs in to a server as a user; done frees what it takes. Its errors are
// shown to the guest. It is asked after the command was judged.
type Login func(ctx context.Context, name string, port uint16, user string) (conf *ssh.ClientConfig, done func(), err error)

// New returns a server for one sandbox.
func New(authority func(context.Context) (*Authority, error), login Login) *Server {
	return &Server{
		authority: authority, login: login, logins: rate.NewLimiter(rate.Every(loginEvery), maxLogins),
		failed: failures{limit: rate.NewLimiter(rate.Every(failedPause), maxFailed)},
	}
}

const (
	// maxLogins bounds the logins to real servers at once, each of which runs ssh -G, asks the person's agent
	// for a signature and is an attempt at the server; one more is made each loginEvery.
	maxLogins  = 32
	loginEvery = time.Second
	// maxFailed bounds the logins that fail at once, or that the guest gives up: each may ask the person something,
	// and servers lock out who fails often. After that no login is tried for failedPause, in which one more may fail.
	maxFailed   = 5
	failedPause = 5 * time.Second
)

// Target is the server that a connection was meant for, and who judges.
type Target struct {
	Name string
	Port uint16
	// Dial connects. The text of an error is what the guest is told.
	Dial func() (net.Conn, error)
	// Begin judges what a session asks. The text of an error is what the guest is told.
	Begin func(Command) (Session, error)
	// Refused notes what was refused without asking Begin.
	Refused func(why string)
	// Fault notes what is wrong on the host, which the guest does not read. Refused is called as well.
	Fault func(why string)
}

// Session is one that Begin has let through.
type Session interface {
	// Push reads the list of refs of a push. It returns what is to be sent on, nil if nothing may be:
	// answer is then what the client gets, and whether it is in the terms of git's protocol.
	Push(*bufio.Reader) (on io.Reader, answer []byte, protocol bool)
	// End is called once, at its end. why is empty unless the server was not reached.
	End(sent, got int64, why string)
}

// connection is one of the guest's.
type connection struct {
	Target
	s    *Server
	conn net.Conn
	user string
	busy atomic.Bool // the place of the one session is taken
}

// Serve serves a connection to its end, or until ctx ends, and closes it.
func (s *Server) Serve(ctx context.Context, conn net.Conn, t Target) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	conf, err := s.config(ctx, t.Name)
	if err != nil {
		t.Fault(err.Error())
		t.Refused("git over SSH cannot be served on the host: bawn net log says there why")
		return
	}
	_ = conn.SetDeadline(time.Now().Add(handshakeTime))
	sc, channels, requests, err := ssh.NewServerConn(conn, conf)
	if err != nil {
		t.Refused("no handshake of SSH: " + shown(err.Error()))
		return
	}
	go ssh.DiscardRequests(requests) // forwarded ports and the like: refused
	c := &connection{Target: t, s: s, conn: conn, user: sc.User()}
	c.accept(ctx, channels)
}

// config is that of one connection.
func (s *Server) config(ctx context.Context, name string) (*ssh.ServerConfig, error) {
	a, err := s.authority(ctx)
	if err != nil {
		return nil, err
	}
	key, err := a.hostKey(name)
	if err != nil {
		return nil, err
	}
	conf := &ssh.ServerConfig{
		NoClientAuth: true, MaxAuthTries: maxAttempts, ServerVersion: "SSH-2.0-bawn",
		// For clients that do not try without. The key means nothing.
		PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, nil }, //nolint:nilnil // no permissions
	}
	conf.AddHostKey(key)
	return conf, nil
}

// accept serves the channels that the client opens.
func (c *connection) accept(ctx context.Context, channels <-chan ssh.NewChannel) {
	var sessions sync.WaitGroup
	defer sessions.Wait()
	defer c.conn.Close()
	c.await()
	count := 0
	for n := range channels {
		switch {
		case n.ChannelType() != "session":
			c.Refused("a channel of the type " + shown(n.ChannelType()) + ": only sessions of git are served")
			_ = n.Reject(ssh.Prohibited, "bawn: only sessions of git are served here")
			continue
		case count >= maxSessions:
			return
		case c.busy.Swap(true):
			_ = n.Reject(ssh.ResourceShortage, "bawn: one session at a time")
			continue
		}
		count++
		ch, requests, err := n.Accept()
		if err != nil {
			return
		}
		sessions.Go(func() {
			c.serve(ctx, ch, requests)
			c.busy.Store(false)
		})
	}
}

// await gives the client a while to read what it was told, and to ask for the next command.
func (c *connection) await() { _ = c.conn.SetDeadline(time.Now().Add(quietTime)) }

// serve serves a session, until the client has closed it, too: what the client sends is held until then.
func (c *connection) serve(ctx context.Context, ch ssh.Channel, requests <-chan *ssh.Request) {
	line, protocol, err := c.awaitCommand(requests)
	ctx, closed := context.WithCancel(ctx)
	go func() {
		defer closed()
		ssh.DiscardRequests(requests)
	}()
	if err != nil {
		c.refuse(ch, err)
	} else {
		c.run(ctx, ch, line, protocol)
	}
	_ = ch.Close()
	c.await()
	<-ctx.Done()
}

// errGone means that the client closed the channel before it asked for anything.
var errGone = errors.New("the client ended the session")

// awaitCommand reads the requests of a session up to its command.
func (c *connection) awaitCommand(requests <-chan *ssh.Request) (line, protocol string, err error) {
	n := 0
	for r := range requests {
		if n++; n > maxRequests {
			return "", "", errors.New("too many requests before the command")
		}
		switch r.Type {
		case "exec":
			var p struct{ Command string }
			err := ssh.Unmarshal(r.Payload, &p)
			_ = r.Reply(err == nil, nil)
			return p.Command, protocol, err
		case "shell", "subsystem":
			_ = r.Reply(true, nil) // so that the message is shown
			return "", "", errNoCommand
		case "env":
			value, ok := gitProtocol(r.Payload)
			if ok {
				protocol = value
			}
			_ = r.Reply(ok, nil)
		default: // pty-req, x11-req, auth-agent-req@openssh.com
			_ = r.Reply(false, nil)
		}
	}
	return "", "", errGone
}

// gitProtocol returns the version of git's protocol that a request for an environment variable asks
// for (git(1), GIT_PROTOCOL). Clients send others, such as LANG: none is taken.
func gitProtocol(payload []byte) (value string, ok bool) {
	var p struct{ Name, Value string }
	if err := ssh.Unmarshal(payload, &p); err != nil || p.Name != "GIT_PROTOCOL" {
		return "", false
	}
	switch p.Value {
	case "version=0", "version=1", "version=2":
		return p.Value, true
	}
	return "", false
}

// refuse ends a session that was not judged.
func (c *connection) refuse(ch ssh.Channel, err error) {
	if errors.Is(err, errGone) {
		return
	}
	c.Refused(err.Error())
	tell(ch, "bawn: forbidden: "+err.Error()+"\n")
	exit(ch, statusRefused)
}

// tell writes to the session's error stream.
func tell(ch ssh.Channel, text string) { _, _ = io.WriteString(ch.Stderr(), text) }

// statusRefused is git's own status of a fatal error.
const statusRefused = 128

// exit tells the client the status of its command.
func exit(ch ssh.Channel, status int) {
	_ = ch.CloseWrite()
	_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(status)}))
}

// maxShown bounds what is shown of a text that the guest or the server chose, in bytes.
const maxShown = 1024

// shown returns such a text for the log, which escapes it.
func shown(s string) string { return strings.ToValidUTF8(s[:min(len(s), maxShown)], "?") }
