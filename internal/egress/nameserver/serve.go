package nameserver

import (
	"net"
	"time"

	"github.com/miekg/dns"
)

// ServeStream answers the queries on a TCP connection (RFC 7766) with what reply
// returns, until the client ends, is silent for idle, sends what is no query, or
// reply returns nil. It does not close the connection.
func ServeStream(c net.Conn, idle time.Duration, reply func(query []byte) []byte) {
	framed := dns.Conn{Conn: c}
	query := make([]byte, maxQuery)
	for {
		_ = c.SetDeadline(time.Now().Add(idle))
		n, err := framed.Read(query) // a query that is longer is an error
		if err != nil || n < dnsHeader {
			return
		}
		out := reply(query[:n])
		if out == nil {
			return
		}
		if _, err := framed.Write(out); err != nil {
			return
		}
	}
}

// ServePackets answers queries over UDP, each of which is one Read of the
// connection, until the client is silent for idle or the connection fails. Where
// reply returns nil the query has no answer. It does not close the connection.
func ServePackets(c net.Conn, idle time.Duration, reply func(query []byte) []byte) {
	buf := make([]byte, maxQuery+1)
	for {
		_ = c.SetReadDeadline(time.Now().Add(idle))
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if out := reply(buf[:n]); out != nil {
			if _, err := c.Write(out); err != nil {
				return
			}
		}
	}
}
