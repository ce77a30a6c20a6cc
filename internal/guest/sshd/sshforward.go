package sshd

import (
	"net"
	"strconv"
	"sync"

	"golang.org/x/crypto/ssh"

	"bawn.dev/bawn/internal/sys/relay"
)

// forwards carries one client's connections (RFC 4254, section 7): those that the client
// opens to addresses in the guest (ssh -L), and those that programs in the guest open to
// ports on which the client listens there (ssh -R).
type forwards struct {
	conn *ssh.ServerConn

	mu        sync.Mutex
	listeners map[string]net.Listener
	closed    bool
}

// maxListeners bounds the ports on which one client may listen.
const maxListeners = 256

func newForwards(conn *ssh.ServerConn) *forwards {
	return &forwards{conn: conn, listeners: map[string]net.Listener{}}
}

// close ends all listening, for good.
func (f *forwards) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for _, l := range f.listeners {
		l.Close()
	}
}

// serveRequests answers the requests that concern the whole connection.
func (f *forwards) serveRequests(requests <-chan *ssh.Request) {
	for r := range requests {
		ok, payload := false, []byte(nil)
		switch r.Type {
		case "tcpip-forward":
			ok, payload = f.listen(r.Payload)
		case "cancel-tcpip-forward":
			ok = f.cancel(r.Payload)
		case "keepalive@openssh.com":
			ok = true
		}
		if r.WantReply {
			_ = r.Reply(ok, payload) // fails only when the connection is closed
		}
	}
}

// listenRequest is the payload of tcpip-forward and cancel-tcpip-forward.
type listenRequest struct {
	Addr string
	Port uint32
}

func (r listenRequest) key() string { return net.JoinHostPort(r.Addr, strconv.Itoa(int(r.Port))) }

// address returns the address to listen on: "" and "*" mean all addresses.
func (r listenRequest) address() string {
	host := r.Addr
	if host == "*" {
		host = ""
	}
	return net.JoinHostPort(host, strconv.Itoa(int(r.Port)))
}

// listen opens a port for the client. Where the client asked for port 0, the reply
// carries the port that was chosen.
func (f *forwards) listen(payload []byte) (bool, []byte) {
	var r listenRequest
	if ssh.Unmarshal(payload, &r) != nil || r.Port > 65535 {
		return false, nil
	}
	l, err := net.Listen("tcp", r.address()) //nolint:noctx // does not block
	if err != nil {
		return false, nil
	}
	var reply []byte
	if r.Port == 0 {
		if a, ok := l.Addr().(*net.TCPAddr); ok {
			r.Port = uint32(a.Port)
			reply = ssh.Marshal(struct{ Port uint32 }{r.Port})
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || len(f.listeners) >= maxListeners || f.listeners[r.key()] != nil {
		l.Close()
		return false, nil
	}
	f.listeners[r.key()] = l
	go f.accept(l, r)
	return true, reply
}

func (f *forwards) cancel(payload []byte) bool {
	var r listenRequest
	if ssh.Unmarshal(payload, &r) != nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	l, ok := f.listeners[r.key()]
	if ok {
		delete(f.listeners, r.key())
		l.Close()
	}
	return ok
}

func (f *forwards) accept(l net.Listener, r listenRequest) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go f.offer(c, r)
	}
}

// offer opens a channel to the client for a connection, and relays the two.
func (f *forwards) offer(c net.Conn, r listenRequest) {
	host, port, err := net.SplitHostPort(c.RemoteAddr().String())
	n, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil {
		c.Close()
		return
	}
	ch, requests, err := f.conn.OpenChannel("forwarded-tcpip", ssh.Marshal(struct {
		Addr       string
		Port       uint32
		Origin     string
		OriginPort uint32
	}{r.Addr, r.Port, host, uint32(n)}))
	if err != nil {
		c.Close()
		return
	}
	go ssh.DiscardRequests(requests)
	relay.Both(ch, c)
}

// directTCP connects a channel to a TCP address.
func (f *forwards) directTCP(n ssh.NewChannel) {
	var r struct {
		Host       string
		Port       uint32
		Origin     string
		OriginPort uint32
	}
	if ssh.Unmarshal(n.ExtraData(), &r) != nil || r.Port > 65535 {
		_ = n.Reject(ssh.ConnectionFailed, "malformed request")
		return
	}
	f.connect(n, "tcp", net.JoinHostPort(r.Host, strconv.Itoa(int(r.Port))))
}

// directUnix connects a channel to a Unix socket.
func (f *forwards) directUnix(n ssh.NewChannel) {
	var r struct {
		Path      string
		Reserved  string
		Reserved2 uint32
	}
	if ssh.Unmarshal(n.ExtraData(), &r) != nil {
		_ = n.Reject(ssh.ConnectionFailed, "malformed request")
		return
	}
	f.connect(n, "unix", r.Path)
}

func (f *forwards) connect(n ssh.NewChannel, network, address string) {
	c, err := net.Dial(network, address) //nolint:noctx // ends with the machine
	if err != nil {
		_ = n.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	ch, requests, err := n.Accept()
	if err != nil {
		c.Close()
		return
	}
	go ssh.DiscardRequests(requests)
	relay.Both(ch, c)
}
