package tunnel

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"bawn.dev/bawn/internal/sys/proxyenv"
	"bawn.dev/bawn/internal/sys/relay"
)

// maxHead bounds the head of a proxy's answer, in bytes.
const maxHead = 64 << 10

var errLongHead = fmt.Errorf("the head of its answer is longer than %d bytes", maxHead)

// connectHTTP asks an HTTP proxy for a tunnel to target.
func connectHTTP(_ context.Context, c net.Conn, p *proxyenv.Proxy, target string) (net.Conn, error) {
	r := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: target}, Host: target, Header: http.Header{"User-Agent": {"bawn"}}}
	if u := p.URL.User; u != nil {
		password, _ := u.Password()
		r.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)))
	}
	if err := r.Write(c); err != nil {
		return nil, err
	}
	bounded := &io.LimitedReader{R: c, N: maxHead}
	read := bufio.NewReader(bounded)
	answer, err := http.ReadResponse(read, r) //nolint:bodyclose // what follows the head is the server's
	switch {
	case err != nil && bounded.N == 0:
		return nil, errLongHead
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errors.New("it ended the connection before its answer was whole")
	case err != nil:
		return nil, plainError(err)
	case answer.StatusCode/100 != 2: // the body is left unread: the connection is closed
		return nil, refusedHTTP(answer, p, target)
	}
	early, err := read.Peek(read.Buffered()) // of a server that speaks first
	if err != nil || len(early) == 0 {
		return c, err
	}
	return &earlyConn{Conn: c, early: early}, nil
}

// plainError returns the error of a connection as it is, and any other without its text, which
// quotes the answer.
func plainError(err error) error {
	var network net.Error
	if errors.As(err, &network) {
		return err
	}
	return errors.New("its answer is not HTTP")
}

// refusedHTTP words an answer other than 2xx.
func refusedHTTP(answer *http.Response, p *proxyenv.Proxy, target string) error {
	status := strings.TrimSpace(fmt.Sprintf("%03d %s", answer.StatusCode, http.StatusText(answer.StatusCode)))
	switch answer.StatusCode {
	case http.StatusProxyAuthRequired, http.StatusUnauthorized: // tinyproxy says 401 to a wrong password
		return &refusal{"answered " + status + ": " + credentialHint(answer.Header, p), false}
	case http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return &refusal{"answered " + status + ": it does not permit tunnels to " + target + " (many permit port 443 only)", true}
	}
	return &refusal{"answered " + status + " for " + target, answer.StatusCode >= 400}
}

// credentialHint says what to do about a 407 or 401.
func credentialHint(h http.Header, p *proxyenv.Proxy) string {
	var kinds []string
	for _, v := range h.Values("Proxy-Authenticate") {
		for _, k := range []string{"Basic", "Digest", "NTLM", "Negotiate", "Kerberos"} {
			if first, _, _ := strings.Cut(v, " "); strings.EqualFold(first, k) {
				kinds = append(kinds, k)
			}
		}
	}
	switch offered := strings.Join(kinds, ", "); {
	case offered != "" && !strings.Contains(offered, "Basic"):
		return "it takes " + offered + ", and bawn knows Basic only: run a local proxy that logs in to it"
	case p.URL.User != nil:
		return "it does not take the user and password of the URL"
	}
	return "it wants a user and a password: write them into the URL, as http://USER:PASSWORD@HOST:PORT"
}

// earlyConn is a connection that begins with bytes which were read with the proxy's answer.
type earlyConn struct {
	net.Conn
	early []byte
}

func (c *earlyConn) Read(b []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(b, c.early)
		c.early = c.early[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// CloseWrite ends this side.
func (c *earlyConn) CloseWrite() error { return relay.CloseWrite(c.Conn) }

// SetLinger makes Close reset the connection, where it can.
func (c *earlyConn) SetLinger(sec int) error {
	if l, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		return l.SetLinger(sec)
	}
	return nil
}
