package inspect

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"bawn.dev/bawn/internal/sys/settings"
)

const (
	// handshakeTime bounds a TLS handshake with the server.
	handshakeTime = 20 * time.Second
	// maxDials bounds how often the server is dialled for one connection of a client, which
	// it may keep for days.
	maxDials = 100
	// continueTime is how long a server may take to ask for the body of a request with
	// Expect: 100-continue, before the body is sent unasked.
	continueTime = 5 * time.Second
	// maxAnswerHead bounds the head of an answer, in bytes.
	maxAnswerHead = 256 << 10
	// unusedTime is how long the first connection to the server may wait for its first request. Servers end one on
	// which none comes, those of Go after two seconds, and that is noticed only by the request, which would fail.
	unusedTime = time.Second
)

// upstream is the server's side of one connection of a client.
type upstream struct {
	t     Target
	roots *x509.CertPool // nil: the host's
	times times

	err   error  // why the first handshake failed
	proto string // that the server chose; empty if it chose none

	mu    sync.Mutex
	first net.Conn // until its first use
	since time.Time
	dials int
	open  []net.Conn // all that were dialled, below TLS; some may have ended
	ended bool
}

// start dials the server for a client that offers these protocols. It keeps the error for the
// answer to the client's requests.
func (u *upstream) start(ctx context.Context, offers []string) {
	u.since = time.Now()
	c, err := u.dial(ctx, offers)
	if err != nil {
		u.err = err
		return
	}
	u.first, u.proto = c, c.ConnectionState().NegotiatedProtocol
}

// dial connects to the server and verifies it.
func (u *upstream) dial(ctx context.Context, offers []string) (*tls.Conn, error) {
	u.mu.Lock()
	u.dials++
	over := u.dials > maxDials
	u.mu.Unlock()
	if over {
		return nil, fmt.Errorf("the server ended %d connections: connect again", maxDials)
	}
	if u.roots == nil {
		if err := settings.UseCertificates(); err != nil {
			u.t.Fault(err.Error()) // the guest is not told which files these are
			return nil, err
		}
	}
	raw, err := u.t.Dial()
	if err != nil {
		return nil, err
	}
	if !u.keep(raw) {
		raw.Close()
		return nil, net.ErrClosed
	}
	c := tls.Client(raw, &tls.Config{ServerName: u.t.Name, RootCAs: u.roots, NextProtos: offers, MinVersion: tls.VersionTLS12})
	ctx, cancel := context.WithTimeout(ctx, u.times.handshake)
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return c, nil
}

// again returns the first connection if it has not waited for long, or dials another one for the same protocol.
func (u *upstream) again(ctx context.Context, _, _ string) (net.Conn, error) {
	u.mu.Lock()
	c, fresh := u.first, time.Since(u.since) < unusedTime
	u.first = nil
	u.mu.Unlock()
	if c != nil && fresh {
		return c, nil
	}
	if c != nil {
		c.Close()
	}
	var offers []string
	if u.proto != "" {
		offers = []string{u.proto}
	}
	next, err := u.dial(ctx, offers)
	if err != nil {
		return nil, err
	}
	if p := next.ConnectionState().NegotiatedProtocol; p != u.proto {
		_ = next.Close() // it was not used
		return nil, errors.New("the server chose another protocol than before: connect again")
	}
	return next, nil
}

// transport returns the client's half of the proxy. The caller closes its idle connections.
func (u *upstream) transport() *http.Transport {
	return &http.Transport{
		DialTLSContext:         u.again,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{MaxReceiveBufferPerConnection: maxUnread, MaxReceiveBufferPerStream: maxUnread},
		DisableCompression:     true,
		ExpectContinueTimeout:  continueTime,
		MaxResponseHeaderBytes: maxAnswerHead,
		IdleConnTimeout:        u.times.idle,
	}
}

// keep notes a connection, which ends with the client's; false if that one has ended.
func (u *upstream) keep(c net.Conn) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.ended {
		u.open = append(u.open, c)
	}
	return !u.ended
}

// close ends all connections to the server. A transport keeps one that it dialled for a request that was
// given up meanwhile, also after its CloseIdleConnections.
func (u *upstream) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ended = true
	for _, c := range u.open {
		c.Close()
	}
}
