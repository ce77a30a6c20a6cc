package egress

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"bawn.dev/bawn/internal/egress/tlshello"
	"bawn.dev/bawn/internal/policy"
)

// serveTLS checks a ClientHello and relays. up is the server if it is dialled
// already. spoke: it spoke first, and the caller relays what it sends.
func (f *flow) serveTLS(c *heldConn, up net.Conn, spoke bool) {
	f.setApp("tls")
	h, n, err := readHello(c)
	if word := f.checkHello(h, err); err != nil || word != nil {
		f.drop(c, up, word)
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	switch inspect, why := f.inspects(h, spoke); {
	case why != "":
		f.refused(why)
		f.drop(c, up, tlshello.Alert(tlshello.AlertAccessDenied))
		return
	case inspect:
		f.serveInspected(c, up)
		return
	}
	if up == nil {
		if up = f.connectTLS(c); up == nil {
			return
		}
	}
	if err := c.pass(up, n); err != nil {
		f.drop(c, up, nil)
		return
	}
	guard := &tlshello.Guard{Check: func(again tlshello.Hello) error {
		if again.ServerName != h.ServerName {
			return errors.New("a second ClientHello names another server")
		}
		return f.checkECH(again)
	}}
	if spoke {
		f.up(c, c, up, guard)
		return
	}
	f.relay(c, c, up, guard)
}

// refusedHello is what is wrong with a ClientHello.
type refusedHello struct{ error }

// readHello reads until the first ClientHello is whole, and returns it with the number
// of bytes of held that are its own. Errors are refusedHello, or those of c.
func readHello(c *heldConn) (tlshello.Hello, int, error) {
	var p tlshello.Parser
	for n := 0; ; {
		m, done, err := p.Feed(c.held[n:])
		switch n += m; {
		case done:
			return p.Hello(), n, nil
		case err == nil && n > tlshello.MaxHello:
			err = errors.New("the ClientHello is too long, or split into too many records")
		}
		if err != nil {
			return tlshello.Hello{}, 0, refusedHello{err}
		}
		if err := c.fill(); err != nil {
			return tlshello.Hello{}, 0, err
		}
	}
}

// checkHello judges what readHello returned, and logs a denial. It returns the
// alert for the client; nil if the ClientHello may pass, or the client gave up.
func (f *flow) checkHello(h tlshello.Hello, err error) (word []byte) {
	switch {
	case errors.As(err, new(refusedHello)):
		f.refused(err.Error())
		return tlshello.Alert(tlshello.AlertUnexpectedMessage)
	case err != nil:
		return nil
	}
	if err := f.checkECH(h); err != nil {
		f.deny(policy.Decision{Reason: err.Error()}, f.g.suggestECH(f.to))
		return tlshello.Alert(tlshello.AlertUnrecognizedName)
	}
	if why := f.checkName(h); why != "" {
		f.refused(why)
		return tlshello.Alert(tlshello.AlertUnrecognizedName)
	}
	return nil
}

// connectTLS dials for a client that has sent its ClientHello. Where that fails it
// ends the client's connection and returns nil.
func (f *flow) connectTLS(c net.Conn) net.Conn {
	up, err := f.connect()
	if err == nil {
		return up
	}
	if _, denied := asDenied(err); denied {
		refuse(c, tlshello.Alert(tlshello.AlertAccessDenied))
		return nil
	}
	abort(c)
	return nil
}

// drop ends both sides; word goes to the client first, if there is one.
func (f *flow) drop(c, up net.Conn, word []byte) {
	if up != nil {
		abort(up)
	}
	if word != nil {
		refuse(c, word)
		return
	}
	abort(c)
}

// checkECH returns an error if a ClientHello has the extension Encrypted Client Hello (RFC
// 9849) and no rule with ech: permits that for the flow's name. The server name in the
// clear is compared in any case.
func (f *flow) checkECH(h tlshello.Hello) error {
	if !h.ECH {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.d.ECH {
		return errors.New("the TLS handshake may hide its server name (ECH): switch ECH off in the client, or use an ech: rule")
	}
	f.usedECH = true
	return nil
}

// checkName returns why a ClientHello is refused for its server name, or "".
func (f *flow) checkName(h tlshello.Hello) string {
	switch {
	case h.ServerName == "" && f.to.Name != "":
		return "the TLS handshake names no server (SNI): only a rule with raw: allows this traffic"
	case h.ServerName == "":
		return "" // an address by an IP rule: clients name no server then (RFC 6066, section 3)
	}
	return f.checkHost(h.ServerName, 0, "TLS")
}

// maxAlso bounds the hosts that a client may name on one connection to an address.
const maxAlso = 64

// checkHost compares a host that the client named with the flow's, and returns
// why it is refused, or "". A flow to an address may name the address, or a name
// that the rules allow on this port. port 0 is none.
func (f *flow) checkHost(host string, port uint16, where string) string {
	if port != 0 && port != f.to.Port {
		return fmt.Sprintf("%s names port %d, the connection goes to port %d", where, port, f.to.Port)
	}
	if f.to.Name != "" {
		if host != f.to.Name {
			return fmt.Sprintf("%s names %.255q, the connection goes to %s", where, host, f.to.Name)
		}
		return ""
	}
	if a, err := netip.ParseAddr(host); err == nil && a == f.to.Addr {
		return ""
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.decideHere(host)
	switch {
	case d.Requests:
		return fmt.Sprintf("%s names %.255q on a connection to %s, and rules are about its requests: connect to the name", where, host, f.to.Addr)
	case !d.Allow:
		return fmt.Sprintf("%s names %.255q, which no rule allows, on a connection to %s", where, host, f.to.Addr)
	case slices.Contains(f.also, host):
	case len(f.also) == maxAlso:
		return fmt.Sprintf("%s names %.255q, after %d other hosts on one connection", where, host, maxAlso)
	default:
		f.also = append(f.also, host)
	}
	return ""
}
