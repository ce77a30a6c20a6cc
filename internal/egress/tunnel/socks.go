package tunnel

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"

	"golang.org/x/net/proxy"

	"bawn.dev/bawn/internal/sys/proxyenv"
)

// connectSOCKS asks a SOCKS proxy for a connection to target.
func connectSOCKS(ctx context.Context, c net.Conn, p *proxyenv.Proxy, target string) (net.Conn, error) {
	var auth *proxy.Auth
	if u := p.URL.User; u != nil {
		password, _ := u.Password()
		auth = &proxy.Auth{User: u.Username(), Password: password}
	}
	d, err := proxy.SOCKS5("tcp", p.Address(), auth, nil)
	if err != nil {
		return nil, err
	}
	// Dial of that package returns a connection whose halves cannot be closed one by one.
	with, ok := d.(interface {
		DialWithConn(ctx context.Context, c net.Conn, network, address string) (net.Addr, error)
	})
	if !ok {
		return nil, errors.New("golang.org/x/net/proxy has no DialWithConn")
	}
	if _, err := with.DialWithConn(ctx, c, "tcp", target); err != nil {
		return nil, refusedSOCKS(err, p, target)
	}
	return c, nil
}

// refusedSOCKS words an error of package proxy, whose texts are its only interface.
func refusedSOCKS(err error, p *proxyenv.Proxy, target string) error {
	var op *net.OpError
	if errors.As(err, &op) && strings.HasPrefix(op.Op, "socks") {
		err = op.Err
	}
	text := err.Error()
	reply, isReply := strings.CutPrefix(text, "unknown error ")
	switch {
	case isReply:
		return &refusal{"answered about " + target + ": " + reply, true}
	case strings.Contains(text, "authentication") && p.URL.User != nil:
		return &refusal{"does not take the user and password of its URL", false}
	case strings.Contains(text, "authentication"):
		return &refusal{"wants a user and a password: write them into the URL, as socks5://USER:PASSWORD@HOST:PORT", false}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it ended the connection before its answer was whole")
	}
	return err
}
