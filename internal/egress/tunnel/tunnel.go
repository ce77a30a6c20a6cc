// Package tunnel makes TCP connections through the proxies of a company's network: HTTP
// proxies by CONNECT (RFC 9110, section 9.3.6), also inside TLS, and SOCKS 5 (RFC 1928).
//
// The proxy gets the host's name and resolves it. It is trusted with the connection, but not
// with the host: its answers are bounded, and none of their text gets into errors.
package tunnel

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"time"

	"bawn.dev/bawn/internal/sys/proxyenv"
	"bawn.dev/bawn/internal/sys/settings"
)

// Dialer connects through proxies. The zero value is ready. Safe for concurrent use.
type Dialer struct {
	// Dial connects to a proxy. nil: as package net does.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Roots verify proxies that speak TLS. nil: the host's.
	Roots *x509.CertPool
}

// Error is why there is no connection through a proxy. It has no user and no password.
type Error struct {
	Proxy    string // the proxy, as proxyenv.Proxy.String
	Why      string
	Answered bool // the proxy works, and refused the target or did not reach it
	Err      error
}

func (e *Error) Error() string { return "the proxy " + e.Proxy + " " + e.Why }

// Unwrap returns the error of the connection to the proxy, if there is one.
func (e *Error) Unwrap() error { return e.Err }

// Connect returns a connection through p to target, a host and a port. It takes as long as
// ctx. Errors are *Error.
func (d *Dialer) Connect(ctx context.Context, p *proxyenv.Proxy, target string) (net.Conn, error) {
	c, err := d.open(ctx, p)
	if err != nil {
		return nil, &Error{Proxy: p.String(), Why: "is not reached: " + err.Error(), Err: err}
	}
	speak := connectHTTP
	if p.SOCKS() {
		speak = connectSOCKS
	}
	// The end of ctx ends reads and writes that wait for the proxy.
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	through, err := speak(ctx, c, p, target)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		c.Close()
		return nil, explain(ctx, p, err)
	}
	return through, nil
}

// explain returns the *Error for a conversation with a proxy that failed.
func explain(ctx context.Context, p *proxyenv.Proxy, err error) error {
	e := &Error{Proxy: p.String(), Why: "does not answer as a proxy: " + err.Error(), Err: err}
	var refused *refusal
	switch {
	case errors.As(err, &refused):
		e.Why, e.Answered, e.Err = refused.why, refused.target, nil
	case ctx.Err() != nil, errors.Is(err, os.ErrDeadlineExceeded):
		e.Why, e.Err = "did not answer in time", cmp.Or(ctx.Err(), context.DeadlineExceeded)
	}
	return e
}

// refusal is an answer by which a proxy refuses.
type refusal struct {
	why    string
	target bool // it is about the target, and not about this client
}

func (r *refusal) Error() string { return r.why }

// open connects to a proxy, by TLS if its URL says so.
func (d *Dialer) open(ctx context.Context, p *proxyenv.Proxy) (net.Conn, error) {
	dial, secure := d.Dial, p.URL.Scheme == "https"
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	if secure && d.Roots == nil {
		if err := settings.UseCertificates(); err != nil {
			return nil, err
		}
	}
	c, err := dial(ctx, "tcp", p.Address())
	if err != nil || !secure {
		return c, err
	}
	t := tls.Client(c, &tls.Config{ServerName: p.URL.Hostname(), RootCAs: d.Roots, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}})
	if err := t.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, certificateError(err)
	}
	return t, nil
}

// errCertificate stands for the errors of crypto/x509, which quote the certificate.
var errCertificate = errors.New("its certificate is not valid for that name, or comes from an authority that this host does not trust: add the authority to the host's certificates")

// certificateError returns the error of a handshake without any text of the proxy's certificate.
func certificateError(err error) error {
	var invalid *tls.CertificateVerificationError
	if errors.As(err, &invalid) {
		return errCertificate
	}
	return err
}

// probeTarget is a host that does not exist (RFC 6761, section 6.4): a proxy that answers
// about it works, whatever it answers.
const probeTarget = "bawn-doctor.invalid:443"

// Probe checks that a proxy answers and takes this client: nil, or what is wrong.
func (d *Dialer) Probe(ctx context.Context, p *proxyenv.Proxy) error {
	c, err := d.Connect(ctx, p, probeTarget)
	var e *Error
	switch {
	case err == nil: // it looks later
		return c.Close()
	case errors.As(err, &e) && e.Answered:
		return nil
	}
	return err
}
