package egress

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"bawn.dev/bawn/internal/policy"
)

// Theory of operation: how a TCP connection is inspected
//
// Who speaks first decides when bawn dials. On TLS ports and on port 80 the
// client does: the connection is accepted, the first bytes are read and checked,
// and only then is the server dialled, so a forbidden name never reaches it. On
// these ports other bytes than TLS or HTTP are denied.
//
// On any other port the server may speak first (SSH, SMTP, MySQL): bawn dials,
// then accepts, so that the guest sees a refused connection as refused, and both
// directions are open at once. What the client begins like TLS or like an HTTP
// request is checked as on the ports above. What may become a request's first line
// waits for its end: a minute if it begins with a method that servers know, else a
// moment, for some protocols have no line end after their first word. Anything else,
// binary bytes at once, passes as it comes, and is watched to the end of the
// connection: see watcher.
//
// Where rules are about requests, the client speaks first on any port, and each request is
// judged: requests.go.
//
// Where rules are about repositories of git, SSH is ended here: overssh.go.
//
// Under a rule marked raw, and to the host's own loopback, nothing is inspected.
//
// Whatever inspects the client's bytes takes them from one reader, heldConn, and hands
// on those that it has judged.
//
// Files: inspect.go has that reader and the watcher, sniff.go tells protocols by their
// first bytes, eitherfirst.go serves the ports where either side may speak first,
// tls.go, http.go and http2.go the protocols, relay.go copies.

// tlsPorts are the ports where the client sends a ClientHello first (IANA service
// names): https, its usual second, and mail, directory, DNS and others over TLS.
var tlsPorts = []uint16{443, 465, 563, 636, 853, 989, 990, 992, 993, 994, 995, 5061, 8443}

// httpPort is the port where the client sends an HTTP request first.
const httpPort = 80

const (
	// firstByteTime is how long a client may wait before its first byte on a
	// port where it speaks first: browsers open connections ahead of need.
	firstByteTime = 5 * time.Minute
	// firstBytesTime is how long it may take from there until a ClientHello or a
	// request's first line is whole.
	firstBytesTime = time.Minute
	// graceTime is how long the rest of a first line is waited for, on ports where the
	// server may speak first, while what came of it is not like a request's.
	graceTime = 400 * time.Millisecond
)

// TCP decides on a connection from src to dst and serves it to its end.
func (g *Gateway) TCP(src, dst netip.AddrPort, req TCPRequest) {
	h := g.attribute("tcp", src, dst)
	switch {
	case slices.Contains(g.cfg.DNS, dst):
		g.serveDNSStream(h, req)
		return
	case slices.Contains(g.cfg.Info, dst):
		g.serveInfo(req)
		return
	}
	f := g.admit(h, dst, policy.TCP)
	if f == nil {
		req.Reject()
		return
	}
	defer f.end()
	f.serveTCP(req)
}

// serveTCP judges a connection and serves it.
func (f *flow) serveTCP(req TCPRequest) {
	switch d := f.judge(); {
	case !d.Allow:
		f.deny(d, f.g.suggest(f.to))
		if f.to.Port != httpPort || f.to.Name == "" {
			req.Reject()
			return
		}
		f.explain(req, d)
	case d.Raw || f.to.Host:
		f.through(req)
	case d.SSH && f.to.Port == sshPort:
		f.sshOnly(req)
	case d.Requests || slices.Contains(tlsPorts, f.to.Port) || f.to.Port == httpPort:
		f.clientFirst(req)
	default:
		f.eitherFirst(req)
	}
}

// explain accepts a denied connection to port 80 only to say why, in HTTP.
func (f *flow) explain(req TCPRequest, d policy.Decision) {
	c, err := req.Accept()
	if err != nil || !f.add(c) {
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(f.g.firstBytesTime))
	held := &heldConn{Conn: c}
	if kind, _ := new(sniffer).sniff(held); kind != kindHTTP {
		abort(c)
		return
	}
	// The head is read to its end: a client that is still sending would not
	// see the answer.
	refuse(held, f.page(d.Reason))
}

// clientFirst checks the client's first bytes before it dials.
func (f *flow) clientFirst(req TCPRequest) {
	conn, err := req.Accept()
	if err != nil || !f.add(conn) {
		return
	}
	c := &heldConn{Conn: conn}
	_ = c.SetReadDeadline(time.Now().Add(firstByteTime))
	if err := c.fill(); err != nil {
		c.Close()
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(f.g.firstBytesTime))
	if f.judgesSSH() && beginsSSH(c) {
		f.serveSSH(c)
		return
	}
	kind, _ := new(sniffer).sniff(c)
	plain := f.to.Port == httpPort || !slices.Contains(tlsPorts, f.to.Port)
	switch {
	case kind == kindTLS:
		f.serveTLS(c, nil, false)
	case kind == kindHTTP && plain:
		_ = c.SetReadDeadline(time.Time{})
		f.serveHTTP(c, f.connect)
	case kind == kindHTTP2 && plain:
		_ = c.SetReadDeadline(time.Time{})
		f.serveHTTP2(c, f.connect)
	case kind == kindHTTP:
		why := fmt.Sprintf("port %d is for TLS, and this is plain HTTP: only a rule with raw: allows this traffic", f.to.Port)
		f.refused(why)
		refuse(c, errorPage(http.StatusForbidden, why, ""))
	default:
		what := "TLS"
		if plain {
			what = "HTTP"
		}
		f.refused(fmt.Sprintf("not %s on port %d: only a rule with raw: allows this traffic", what, f.to.Port))
		abort(c)
	}
}
