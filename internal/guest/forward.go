package guest

import (
	"encoding/json"
	"io"
	"net"
	"strconv"
	"sync"

	"bawn.dev/bawn/internal/wire"
)

// writeCloser ends one direction of a connection.
type writeCloser interface{ CloseWrite() error }

// relay copies both ways, passing on each side's end, until both have ended.
func relay(a, b io.ReadWriteCloser) {
	var wg sync.WaitGroup
	one := func(dst, src io.ReadWriteCloser) {
		defer wg.Done()
		if _, err := io.Copy(dst, src); err != nil {
			// Broken, not ended: the other way has no use either.
			a.Close()
			b.Close()
			return
		}
		if w, ok := dst.(writeCloser); ok {
			_ = w.CloseWrite() // gone is as good
			return
		}
		dst.Close() // a yamux stream: ends what we write, and still reads
	}
	wg.Add(2)
	go one(a, b)
	go one(b, a)
	wg.Wait()
	a.Close()
	b.Close()
}

// dialLoopback connects to a TCP port on the guest's loopback, of whichever
// family listens there.
func dialLoopback(port uint16) (net.Conn, error) {
	p := strconv.Itoa(int(port))
	c, err := net.Dial("tcp4", net.JoinHostPort("127.0.0.1", p)) //nolint:noctx // to the loopback: at once, or not
	if err == nil {
		return c, nil
	}
	if c, err6 := net.Dial("tcp6", net.JoinHostPort("::1", p)); err6 == nil { //nolint:noctx // likewise
		return c, nil
	}
	return nil, err
}

// serveTCP relays a stream to a TCP port of the guest.
func serveTCP(s net.Conn, port uint16) {
	defer s.Close()
	c, err := dialLoopback(port)
	var r wire.StreamReply
	if err != nil {
		r.Error = err.Error()
	}
	line, merr := json.Marshal(r)
	if merr != nil {
		panic(merr) // one string always marshals
	}
	if _, werr := s.Write(append(line, '\n')); werr != nil || err != nil {
		if c != nil {
			c.Close()
		}
		return
	}
	relay(s, c)
}
