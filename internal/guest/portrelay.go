package guest

import (
	"encoding/json"
	"net"
	"strconv"

	"bawn.dev/bawn/internal/sys/relay"
	"bawn.dev/bawn/internal/wire"
)

// dialLoopback connects to a TCP port on the guest's loopback, by IPv4 or else IPv6.
func dialLoopback(port uint16) (net.Conn, error) { return dialLoopbackBy(net.Dialer{}, port) }

func dialLoopbackBy(d net.Dialer, port uint16) (net.Conn, error) {
	p := strconv.Itoa(int(port))
	c, err := d.Dial("tcp4", net.JoinHostPort("127.0.0.1", p))
	if err == nil {
		return c, nil
	}
	if c, err6 := d.Dial("tcp6", net.JoinHostPort("::1", p)); err6 == nil {
		return c, nil
	}
	return nil, err
}

// serveTCP relays a stream to a TCP port of the guest, after a line that reports whether
// the port was connected. It closes the stream.
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
	relay.Both(s, c)
}
