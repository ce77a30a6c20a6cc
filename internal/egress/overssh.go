package egress

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"bawn.dev/bawn/internal/egress/gitssh"
	"bawn.dev/bawn/internal/egress/gitwire"
	"bawn.dev/bawn/internal/policy"
)

// Theory of operation: git over SSH
//
// Where a rule is about a repository (policy.Decision.SSH), a connection of SSH to its host is ended here by
// package gitssh, as one more outcome of the decision about a flow. What a session asks is a request like
// those of HTTP (requests.go): it is judged before anything is dialled, it is listed, so that a change of the
// rules cuts it, and it is logged with the method fetch or push. A push is judged by its list of refs, and
// refused in git's terms, as one over HTTPS is (push.go).
//
// On port 22 the server speaks at once, as clients may wait for it. On another port of the rule a client
// tells by its first bytes that it speaks SSH, and not TLS.

const sshPort = 22

// maxSSH bounds the connections of SSH that are ended here at a time. Each may hold some MiB: the windows of
// two channels.
const maxSSH = 32

// sshVersion is what either side of SSH sends first (RFC 4253, section 4.2).
var sshVersion = []byte("SSH-")

// judgesSSH reports whether SSH on the flow is to be ended here.
func (f *flow) judgesSSH() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.d.SSH
}

// beginsSSH reports whether a client's first bytes are those of SSH.
func beginsSSH(c *heldConn) bool {
	for len(c.held) < len(sshVersion) && bytes.HasPrefix(sshVersion, c.held) {
		if c.fill() != nil {
			return false
		}
	}
	return bytes.HasPrefix(c.held, sshVersion)
}

// sshOnly serves a connection to a port where only SSH is expected.
func (f *flow) sshOnly(req TCPRequest) {
	c, err := req.Accept()
	if err != nil || !f.add(c) {
		return
	}
	f.serveSSH(c)
}

// serveSSH ends the client's SSH.
func (f *flow) serveSSH(c net.Conn) {
	f.setApp(overSSH)
	if f.g.cfg.SSH == nil {
		f.refused("git over SSH is not served here")
		abort(c)
		return
	}
	select {
	case f.g.ssh <- struct{}{}:
		defer func() { <-f.g.ssh }()
	default:
		f.refused(fmt.Sprintf("more than %d connections of git over SSH are open", maxSSH))
		abort(c)
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	f.g.cfg.SSH.Serve(f.ctx, c, gitssh.Target{
		Name: f.to.Name, Port: f.to.Port, Dial: f.dialSSH, Begin: f.beginSSH, Refused: f.refused, Fault: f.fault,
	})
}

// dialSSH dials the server. The guest is told the error, whose details connect has logged.
func (f *flow) dialSSH() (net.Conn, error) {
	c, err := f.connect()
	if d, ok := asDenied(err); ok {
		return nil, d
	} else if err != nil {
		return nil, errors.New(reachError(err))
	}
	return c, nil
}

// beginSSH judges what a session asks.
func (f *flow) beginSSH(c gitssh.Command) (gitssh.Session, error) {
	r := &openRequest{f: f, began: time.Now(), q: policy.SSHRequest(f.to.Name, f.to.Port, c.Path, c.Push)}
	r, err := r.begin("")
	var denied *deniedRequest
	if errors.As(err, &denied) {
		return nil, errors.New(string(denied.page()))
	}
	return sshSession{r}, nil
}

// sshSession is a session that was let through.
type sshSession struct{ r *openRequest }

// Push judges the list of refs of a push.
func (s sshSession) Push(in *bufio.Reader) (on io.Reader, answer []byte, protocol bool) {
	push, refusal := s.r.admitPush(in, gitwire.ReadOpen)
	switch {
	case refusal != nil:
		return nil, refusal.Body, refusal.Type == gitwire.ContentType
	case !push.NeedsPack():
		return bytes.NewReader(push.Head()), nil, false
	}
	return io.MultiReader(bytes.NewReader(push.Head()), in), nil, false
}

// End logs the session.
func (s sshSession) End(sent, got int64, why string) {
	s.r.why = why
	s.r.end(0, sent, got)
}
