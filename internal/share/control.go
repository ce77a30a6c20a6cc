package share

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Besides the guest's requests, a share's server obeys the supervisor, on a
// stream socket of its own: it writes down what the guest knows, takes it over
// from a predecessor, and goes on with another QEMU. Each message is its length
// (4 bytes, big-endian) and a JSON document; a descriptor comes beside the first
// byte.

// maxMessage bounds a message, in bytes. A share of two million files in use
// makes some 200 MB.
const maxMessage = 1 << 30

// verb is what the supervisor wants.
type verb string

const (
	verbSave  verb = "save"  // answer with the state
	verbLoad  verb = "load"  // take over a state, before the first "serve"
	verbServe verb = "serve" // the next QEMU, by its socket
)

type order struct {
	Verb  verb            `json:"verb"`
	State json.RawMessage `json:"state,omitempty"`
	Moved bool            `json:"moved,omitempty"`
}

type answer struct {
	Error string          `json:"error,omitempty"`
	State json.RawMessage `json:"state,omitempty"`
}

// Control is the supervisor's end.
type Control struct{ conn *net.UnixConn }

// NewControl makes a socket pair: the supervisor's end, and the server's.
func NewControl() (*Control, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("control of a share: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "control")
	conn, err := unixConn(os.NewFile(uintptr(fds[0]), "control"))
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return &Control{conn}, theirs, nil
}

// unixConn makes a connection of a file, which it closes.
func unixConn(f *os.File) (*net.UnixConn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("control of a share: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("control of a share: not a Unix socket")
	}
	return u, nil
}

// Close lets go of the server, which ends when QEMU does.
func (c *Control) Close() { c.conn.Close() }

// Serve gives the server its next QEMU. The file is closed.
func (c *Control) Serve(socket *os.File) error {
	defer socket.Close()
	_, err := c.ask(order{Verb: verbServe}, socket)
	return err
}

// Save returns what the guest knows of the share. The guest must be paused.
func (c *Control) Save() (json.RawMessage, error) {
	a, err := c.ask(order{Verb: verbSave}, nil)
	return a.State, err
}

// Load makes a fresh server the successor of the one that was saved. With moved,
// its directory is a copy of the one that was.
func (c *Control) Load(state json.RawMessage, moved bool) error {
	_, err := c.ask(order{Verb: verbLoad, State: state, Moved: moved}, nil)
	return err
}

func (c *Control) ask(o order, f *os.File) (answer, error) {
	var a answer
	if err := send(c.conn, o, f); err != nil {
		return a, fmt.Errorf("control of a share: %w", err)
	}
	if _, err := receive(c.conn, &a); err != nil {
		return a, fmt.Errorf("control of a share: %w", err)
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}

func send(c *net.UnixConn, v any, f *os.File) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	head := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	var rights []byte
	if f != nil {
		rights = unix.UnixRights(int(f.Fd()))
	}
	if _, _, err := c.WriteMsgUnix(head, rights, nil); err != nil {
		return err
	}
	_, err = c.Write(body)
	return err
}

func receive(c *net.UnixConn, v any) (f *os.File, err error) {
	head, oob := make([]byte, 4), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := c.ReadMsgUnix(head, oob)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, io.EOF
	}
	if oobn > 0 {
		if f, err = oneFile(oob[:oobn]); err != nil {
			return nil, err
		}
	}
	if _, err := io.ReadFull(c, head[n:]); err != nil {
		return f, err
	}
	size := binary.BigEndian.Uint32(head)
	if size > maxMessage {
		return f, fmt.Errorf("a message of %d bytes", size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(c, body); err != nil {
		return f, err
	}
	return f, json.Unmarshal(body, v)
}

func oneFile(oob []byte) (*os.File, error) {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		fds, err := syscall.ParseUnixRights(&m)
		if err != nil || len(fds) == 0 {
			continue
		}
		syscall.CloseOnExec(fds[0])
		return os.NewFile(uintptr(fds[0]), "vhost-user"), nil
	}
	return nil, errors.New("no descriptor came")
}

// obey answers orders until the supervisor is gone, which closes next.
func (p *Prepared) obey(c *net.UnixConn, next chan<- *os.File) {
	defer close(next)
	for {
		var o order
		f, err := receive(c, &o)
		if err != nil {
			return
		}
		var a answer
		if a.State, err = p.carryOut(o, f, next); err != nil {
			a.Error = err.Error()
		}
		if err := send(c, a, nil); err != nil {
			return
		}
	}
}

func (p *Prepared) carryOut(o order, f *os.File, next chan<- *os.File) (json.RawMessage, error) {
	switch o.Verb {
	case verbSave:
		return p.marshal()
	case verbLoad:
		return nil, p.unmarshal(o.State, o.Moved)
	case verbServe:
		if f == nil {
			return nil, errors.New("no socket came")
		}
		select {
		case next <- f:
			return nil, nil
		default:
			f.Close()
			return nil, errors.New("another QEMU is waiting already")
		}
	}
	return nil, fmt.Errorf("unknown order %q", o.Verb)
}

// Serve obeys the supervisor on its socket, which names each QEMU to serve. It
// returns nil when the supervisor is gone or a QEMU has hung up and no other is
// named, and an error when a QEMU or its guest breaks the protocol.
func (p *Prepared) Serve(ctx context.Context, control *os.File) error {
	conn, err := unixConn(control)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	next := make(chan *os.File, 1)
	go p.obey(conn, next)
	for socket := range next {
		if err := p.serve(ctx, socket); err != nil {
			return err
		}
		p.device.Resumed = true // whoever comes next
	}
	return ctx.Err()
}
