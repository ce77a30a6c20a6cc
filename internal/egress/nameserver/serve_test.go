package nameserver

import (
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"
)

// TestServeStreamBounds: what is too long or too short for a query, or gets no reply,
// ends the connection; what came before is answered.
func TestServeStreamBounds(t *testing.T) {
	framed := func(n int) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(n)), make([]byte, n)...) }
	for _, c := range []struct {
		name    string
		second  []byte
		replies int
	}{
		{"another query", framed(maxQuery), 2},
		{"too long", framed(maxQuery + 1), 1},
		{"too short", framed(dnsHeader - 1), 1},
		{"empty", framed(0), 1},
		{"no reply", framed(100), 2},
	} {
		client, server := net.Pipe()
		calls := 0
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer server.Close()
			ServeStream(server, time.Minute, func(query []byte) []byte {
				calls++
				if len(query) == 100 {
					return nil
				}
				return query[:dnsHeader]
			})
		}()
		go func() {
			_, _ = client.Write(framed(dnsHeader))
			_, _ = client.Write(c.second)
			_, _ = client.Write(framed(dnsHeader)[:1]) // and then it ends in the middle
			client.Close()
		}()
		_, _ = io.Copy(io.Discard, client)
		<-done
		if calls != c.replies {
			t.Errorf("%s: %d queries, want %d", c.name, calls, c.replies)
		}
	}
}
