package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"time"

	"bawn.dev/bawn/internal/sandbox"
)

// Client calls one sandbox's supervisor. Its methods may be called by several goroutines
// at once, and return an *Error, or the context's error where that ended first.
type Client struct {
	http  http.Client
	probe time.Duration // see WhileAnswering
}

// NewClient returns a client. It dials for each call and keeps no connection, so it needs
// no closing.
func NewClient(dial func(context.Context) (net.Conn, error)) *Client {
	return &Client{probe: defaultProbe, http: http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
	}}}
}

// maxAnswer bounds the answer to a request, in bytes.
const maxAnswer = 16 << 20

// call makes one request; in and out may be nil. It waits as long as the supervisor answers other
// requests meanwhile.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	ctx, done := c.WhileAnswering(ctx)
	defer done()
	return c.ask(ctx, method, path, in, out)
}

// ask is call for a caller that limits ctx itself.
func (c *Client) ask(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.open(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Close()
	if out == nil {
		_, err := io.Copy(io.Discard, io.LimitReader(resp, maxAnswer))
		return noAnswer(ctx, err)
	}
	return noAnswer(ctx, json.NewDecoder(io.LimitReader(resp, maxAnswer)).Decode(out))
}

// noAnswer returns an error that came in the place of an answer, or nil for nil.
func noAnswer(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return Errorf(ReasonNoAnswer, "the supervisor does not answer: %w", err)
}

// open makes one request and returns the body of its response as it comes.
func (c *Client) open(ctx context.Context, method, path string, in any) (io.ReadCloser, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://supervisor"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, noAnswer(ctx, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusMethodNotAllowed {
		return nil, Errorf(ReasonVersion, "the sandbox was started by another version of bawn, which does not know this request")
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return nil, noAnswer(ctx, err)
	}
	f, ok := parseFailure(b)
	if !ok {
		return nil, Errorf(ReasonNoAnswer, "supervisor: %s", resp.Status)
	}
	return nil, f.err()
}

// Status returns the present state of the sandbox. A supervisor that works answers at once: if the
// answer takes long, the error is ErrHangs.
func (c *Client) Status(ctx context.Context) (Status, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*c.probe, ErrHangs)
	defer cancel()
	var s Status
	err := c.ask(ctx, http.MethodGet, "/status", nil, &s)
	return s, err
}

// Usage returns what the sandbox takes of the host; see Service.
func (c *Client) Usage(ctx context.Context) (Usage, error) {
	var u Usage
	err := c.call(ctx, http.MethodGet, "/usage", nil, &u)
	return u, err
}

// Stop ends the sandbox; see Service.
func (c *Client) Stop(ctx context.Context, force bool) error {
	return c.call(ctx, http.MethodPost, "/stop", forceRequest{force}, nil)
}

// Suspend saves the sandbox's machine and ends it; see Service.
func (c *Client) Suspend(ctx context.Context, force bool) error {
	return c.call(ctx, http.MethodPost, "/suspend", forceRequest{force}, nil)
}

// Snapshot saves the present state of the sandbox; see Service.
func (c *Client) Snapshot(ctx context.Context, path string) error {
	return c.call(ctx, http.MethodPost, "/snapshot", path, nil)
}

// OpenPorts publishes ports: all, or after an error none; see Service.ChangePorts.
func (c *Client) OpenPorts(ctx context.Context, ports []sandbox.Port) ([]sandbox.Port, error) {
	return c.ChangePorts(ctx, ports, nil)
}

// ClosePorts closes ports by their numbers on the host: all, or after an error none.
func (c *Client) ClosePorts(ctx context.Context, hosts []uint16) error {
	_, err := c.ChangePorts(ctx, nil, hosts)
	return err
}

// ChangePorts closes some ports and publishes others in one step; see Service. It makes
// no request when there is nothing to change.
func (c *Client) ChangePorts(ctx context.Context, add []sandbox.Port, remove []uint16) ([]sandbox.Port, error) {
	if len(add)+len(remove) == 0 {
		return nil, nil
	}
	var opened []sandbox.Port
	err := c.call(ctx, http.MethodPost, "/ports", portsRequest{add, remove}, &opened)
	return opened, err
}

// SettleLog returns when all earlier decisions are in the network log.
func (c *Client) SettleLog(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/log/settle", nil, nil)
}

// ReloadPolicy puts the rules on disk in force.
func (c *Client) ReloadPolicy(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/policy/reload", nil, nil)
}

// AllowOnce adds a rule that is forgotten when the sandbox stops.
func (c *Client) AllowOnce(ctx context.Context, rule string) error {
	return c.call(ctx, http.MethodPost, "/policy/once", rule, nil)
}

// AllowedOnce lists the rules of AllowOnce.
func (c *Client) AllowedOnce(ctx context.Context) ([]string, error) {
	var rules []string
	err := c.call(ctx, http.MethodGet, "/policy/once", nil, &rules)
	return rules, err
}

// RefuseAccess refuses a rule that the guest asked for; see Service.
func (c *Client) RefuseAccess(ctx context.Context, rule string) error {
	return c.call(ctx, http.MethodPost, "/policy/refuse", rule, nil)
}

// FollowShares makes the guest see what lies at the paths of the shares now; see Service.
func (c *Client) FollowShares(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/shares/follow", nil, nil)
}

// AddAgent gives the running guest an agent; see Service.
func (c *Client) AddAgent(ctx context.Context, a sandbox.Agent) error {
	return c.call(ctx, http.MethodPost, "/agents", a, nil)
}

// BeginRestorePoint begins a restore point of the project; see Service.
func (c *Client) BeginRestorePoint(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/restore-point", nil, nil)
}

// ForgetOnce removes the rules of AllowOnce and puts the rules on disk in force.
func (c *Client) ForgetOnce(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/policy/forget", nil, nil)
}

// maxEvent bounds an event that is received, in bytes.
const maxEvent = 1 << 20

// Events yields the events of the sandbox, KindStatus first, until the sandbox's
// supervisor ends (it then stops without an error), ctx ends, or an event of KindLagged
// has reported that the caller did not keep up. An error is the last element.
func (c *Client) Events(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		body, err := c.open(ctx, http.MethodGet, "/events", nil)
		if err != nil {
			yield(Event{}, err)
			return
		}
		defer body.Close()
		lines := bufio.NewScanner(body)
		lines.Buffer(nil, maxEvent)
		for lines.Scan() {
			var e Event
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				yield(Event{}, fmt.Errorf("malformed event: %w", err))
				return
			}
			if !yield(e, nil) {
				return
			}
		}
		// A supervisor that was killed ends the stream within a chunk.
		if err := lines.Err(); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			yield(Event{}, noAnswer(ctx, err))
		}
	}
}
