package egress

import (
	"errors"
	"net"
	"net/http"
	"sync"

	"bawn.dev/bawn/internal/egress/tlshello"
	"bawn.dev/bawn/internal/inspect"
	"bawn.dev/bawn/internal/tokens"
)

// TLS to a host that has a secret, or about whose requests there are rules, is ended here
// (package inspect), as one more outcome of the decision about a flow: the rules, the server
// name, the addresses and the log are those of every flow. A rule with raw: is the exception
// that its user made: nothing is inspected, and no secret put in.

// inspects reports whether TLS is ended here for a client's ClientHello. why is not empty if
// the flow must not pass: it would go around the inspection. spoke: the server spoke first.
func (f *flow) inspects(h tlshello.Hello, spoke bool) (ends bool, why string) {
	rules := f.judgesRequests()
	switch {
	case rules && f.g.cfg.Inspect == nil:
		return false, "the requests to " + f.to.Name + " cannot be inspected"
	case rules && spoke:
		return false, "the server spoke before the TLS handshake, so that the requests to " + f.to.Name + " cannot be inspected"
	case rules:
		return true, ""
	case f.g.cfg.Inspect == nil || h.ServerName == "":
		return false, ""
	}
	wanted, err := f.g.cfg.Inspect.Wants(h.ServerName, f.to.Port)
	switch {
	case err != nil:
		f.fault(err.Error())
		return false, inspect.ErrNoList.Error()
	case !wanted:
		return false, ""
	case f.to.Name == "":
		return false, "the TLS handshake names " + h.ServerName + ", which has a secret, on a connection to an address: connect to the name"
	case spoke:
		return false, "the server spoke before the TLS handshake, so that it cannot be inspected for the secret of " + h.ServerName
	}
	return true, ""
}

// uninspected returns why a flow that no inspection can look into must not pass: its host has
// a secret, or rules are about its requests. Empty: it may.
func (f *flow) uninspected() string {
	if f.judgesRequests() {
		return "rules are about the requests to " + f.to.Name + ", and only HTTP over TCP is inspected: clients fall back to it"
	}
	if f.g.cfg.Inspect == nil || f.to.Name == "" || f.to.Host {
		return ""
	}
	wanted, err := f.g.cfg.Inspect.Wants(f.to.Name, f.to.Port)
	switch {
	case err != nil:
		f.fault(err.Error())
		return inspect.ErrNoList.Error()
	case wanted:
		return f.to.Name + " has a secret, and only TLS over TCP is inspected: clients fall back to it"
	}
	return ""
}

// Tokens returns how many tokens the answers of language models said that they took, by host, of
// those whose requests are inspected. It may run concurrently.
func (g *Gateway) Tokens() []tokens.Total {
	if g.cfg.Inspect == nil {
		return nil
	}
	return g.cfg.Inspect.Tokens()
}

// serveInspected ends the client's TLS. up is the server if it is dialled already.
func (f *flow) serveInspected(c *heldConn, up net.Conn) {
	f.setApp("inspected")
	var mu sync.Mutex
	f.g.cfg.Inspect.Serve(f.ctx, c, inspect.Target{
		Name: f.to.Name, Port: f.to.Port,
		Dial: func() (net.Conn, error) {
			mu.Lock()
			first := up
			up = nil
			mu.Unlock()
			if first != nil {
				return first, nil
			}
			return f.connect()
		},
		Begin:   f.beginInspected,
		Refused: f.refused,
		Fault:   f.fault,
		Explain: f.explainError,
		Page: func(status int, reason string) []byte {
			return errorText(status, reason, "")
		},
	})
}

// beginInspected judges a request on a connection whose TLS is ended here.
func (f *flow) beginInspected(r *http.Request) inspect.Admission {
	q, err := f.beginRequest(r.Method, "https", r.URL.RequestURI(), func(yield func(name, value string) bool) {
		for name, values := range r.Header {
			for _, v := range values {
				if !yield(name, v) {
					return
				}
			}
		}
	})
	var denied *deniedRequest
	if errors.As(err, &denied) {
		a := inspect.Admission{Status: denied.answer.Status, Page: denied.page()}
		if denied.api {
			a.Page, a.Type = apiError(a.Page)
		}
		return a
	}
	return inspect.Admission{End: q.end, Body: q.bodyJudge(r.Header), Confirm: q.confirmNodes}
}

// explainError returns the page about a failed dial or connection.
func (f *flow) explainError(err error) (status int, page []byte) {
	if d, ok := asDenied(err); ok {
		return http.StatusForbidden, errorText(http.StatusForbidden, d.Reason, f.g.suggestFor(d))
	}
	return http.StatusBadGateway, errorText(http.StatusBadGateway, "the server was not reached: "+reachError(err), "")
}
