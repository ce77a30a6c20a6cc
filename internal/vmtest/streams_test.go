//go:build vm

package vmtest

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// Streams that are inspected must flow as if they were not. Each of these servers sends the
// next message only after the client has answered the one before. If anything held bytes
// back, both would wait until the client's time limit.

// streamServers are the ports of one handler, with TLS and without, and of one
// that answers when its client has said all.
type streamServers struct {
	secure, plain, counting int
	cert                    []byte
}

func startStreamServers(t *testing.T) *streamServers {
	t.Helper()
	s := &streamServers{}
	cert, text := certificate(t, "good.test")
	s.cert = text
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	serve := func(run func(*http.Server, net.Listener) error) (port int) {
		l, port := listen(t, serverAddr+":0")
		web := &http.Server{
			Handler: streamHandler(), Protocols: protocols, ReadHeaderTimeout: time.Minute,
			TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		}
		go func() { _ = run(web, l) }()
		t.Cleanup(func() { web.Close() })
		return port
	}
	s.secure = serve(func(web *http.Server, l net.Listener) error { return web.ServeTLS(l, "", "") })
	s.plain = serve((*http.Server).Serve)
	l, port := listen(t, serverAddr+":0")
	s.counting = port
	go serveCounts(l)
	return s
}

// serveCounts sends each client the number of its bytes, after the client's end.
func serveCounts(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			n, _ := io.Copy(io.Discard, c)
			fmt.Fprintf(c, "%d bytes\n", n)
		}()
	}
}

const streamEvents = 3

func streamHandler() http.Handler {
	acks := make(chan string)
	mux := http.NewServeMux()
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for n := 1; n <= streamEvents; n++ {
			fmt.Fprintf(w, "data: %d\n\n", n)
			w.(http.Flusher).Flush()
			if !acked(r, acks, strconv.Itoa(n)) {
				return
			}
		}
	})
	mux.HandleFunc("/poll", func(w http.ResponseWriter, r *http.Request) { // answers late
		if acked(r, acks, "poll") {
			fmt.Fprint(w, "polled")
		}
	})
	mux.HandleFunc("/ack", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case acks <- r.FormValue("n"):
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("/body", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("slow and steady\n", 20_000))
	})
	mux.HandleFunc("/t.T/Echo", grpcEcho)
	mux.HandleFunc("/socket", func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		c.SetReadLimit(1 << 20)
		for err == nil {
			var kind websocket.MessageType
			var b []byte
			if kind, b, err = c.Read(r.Context()); err == nil {
				err = c.Write(r.Context(), kind, b)
			}
		}
	})
	return mux
}

// acked waits for a client's acknowledgement on another connection.
func acked(r *http.Request, acks <-chan string, want string) bool {
	select {
	case got := <-acks:
		return got == want
	case <-r.Context().Done():
		return false
	}
}

// grpcEcho sends each message back as it comes, and how many there were in a
// trailer (gRPC over HTTP/2: Length-Prefixed-Message, Trailers).
func grpcEcho(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/grpc")
	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush()
	count := 0
	for head := make([]byte, 5); ; count++ {
		if _, err := io.ReadFull(r.Body, head); err != nil {
			break
		}
		msg := make([]byte, min(binary.BigEndian.Uint32(head[1:]), 1<<20))
		if _, err := io.ReadFull(r.Body, msg); err != nil {
			break
		}
		_, _ = w.Write(append(head[:5:5], msg...))
		w.(http.Flusher).Flush()
	}
	w.Header().Set(http.TrailerPrefix+"X-Count", strconv.Itoa(count))
	w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
}

// streams runs real clients against the servers. Those that the image lacks are in the
// folder npm.
func streams(t *testing.T, dir string, s *streamServers) {
	writeFile(t, filepath.Join(dir, "streams.pem"), string(s.cert))
	writeFile(t, filepath.Join(dir, "npm/streams.js"), testdata(t, "streams.js"))
	for scheme, port := range map[string]int{"https": s.secure, "http": s.plain} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel() // with the other: Node.js takes long to start under emulation
			url := fmt.Sprintf("%s://good.test:%d", scheme, port)
			got := must(t, dir, "run", "--", "sh", "-euc", `
export CURL_CA_BUNDLE=$PWD/streams.pem; u=$1
curl -sN -m 300 $u/events | while read -r _ n; do [ -z "$n" ] || { echo event $n; curl -s -m 60 "$u/ack?n=$n"; }; done
curl -s -m 300 $u/poll & curl -s -m 300 "$u/ack?n=poll"; wait; echo
curl -s -m 300 --limit-rate 200k $u/body | md5sum
cd npm; node streams.js grpc $u ../streams.pem; node streams.js websocket $u ../streams.pem`, "sh", url)
			const want = `event 1
event 2
event 3
polled
08dd5ebdc55979e67d86a89faf4c1dfa  -
grpc: m0 m1 m2 status 0 count 3
websocket: m0 m1 m2 1000000 bytes, closed 1000
`
			if got != want {
				t.Errorf("%s, not %s", got, want)
			}
		})
	}
	t.Run("half-close", func(t *testing.T) {
		got := must(t, dir, "run", "--", "python3", "-c", `
import socket, sys
def say(port, b):
    s = socket.create_connection(("good.test", port)); s.sendall(b); s.shutdown(socket.SHUT_WR)
    r = b""
    while b := s.recv(65536): r += b
    return r
counting, plain = map(int, sys.argv[1:])
print(say(counting, bytes(300_000)).decode(), end="")
print(say(plain, b"GET /body HTTP/1.1\r\nHost: good.test:%d\r\nConnection: close\r\n\r\n" % plain).count(b"steady"))
`, strconv.Itoa(s.counting), strconv.Itoa(s.plain))
		if got != "300000 bytes\n20000\n" {
			t.Errorf("%q", got)
		}
	})
}
