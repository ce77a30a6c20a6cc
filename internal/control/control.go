// Package control is how the command line speaks to the supervisor of one
// sandbox: HTTP with JSON bodies over the sandbox's control socket, which only
// the sandbox's owner can open.
//
// The Service interface is the whole of it: the supervisor implements it, New
// serves it, Client calls it.
package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
)

// Status is what a supervisor tells of its sandbox.
type Status struct {
	Name       string          `json:"name"`
	Phase      sandbox.Phase   `json:"phase"`
	PID        int             `json:"pid"`        // of the supervisor
	MachinePID int             `json:"machinePid"` // of the process that runs the machine
	Since      time.Time       `json:"since"`
	Accel      string          `json:"accel"` // how the guest's code runs: "kvm" or "tcg"
	Kernel     string          `json:"kernel"`
	Ports      []sandbox.Port  `json:"ports"`
	Mounts     []sandbox.Mount `json:"mounts"`
	// Attached is how many commands, shells and clients of SSH work in it.
	Attached int `json:"attached"`
	// Resumed: it was suspended and went on, and did not boot.
	Resumed bool `json:"resumed,omitempty"`
	// Starved: the machine stands still until the host's disk has room again.
	Starved bool `json:"starved,omitempty"`
}

// Service is what a supervisor does when asked.
type Service interface {
	Status() Status
	// Stop ends the sandbox and returns when its machine has powered off.
	// With force it is ended at once, as if the plug were pulled.
	Stop(ctx context.Context, force bool) error
	// Suspend writes the sandbox's machine to its folder and ends it. It refuses
	// while somebody is attached, except with force.
	Suspend(ctx context.Context, force bool) error
	// Snapshot writes the sandbox's machine and disk to a folder at path, which is
	// beside other snapshots, and lets it go on.
	Snapshot(ctx context.Context, path string) error
	// Publish opens a port on the host's loopback; a Host of 0 picks a free
	// one. It returns what it opened.
	Publish(p sandbox.Port) (sandbox.Port, error)
	// Unpublish closes a port by its number on the host.
	Unpublish(host uint16) error
}

// maxBody bounds a request's body, in bytes.
const maxBody = 1 << 20

// Routes returns the handler that serves s. More routes may be added to it.
func Routes(s Service) *http.ServeMux {
	mux := http.NewServeMux()
	Handle(mux, "GET /status", func(context.Context, struct{}) (Status, error) { return s.Status(), nil })
	Handle(mux, "POST /stop", func(ctx context.Context, r stopRequest) (struct{}, error) {
		return struct{}{}, s.Stop(ctx, r.Force)
	})
	Handle(mux, "POST /suspend", func(ctx context.Context, r stopRequest) (struct{}, error) {
		return struct{}{}, s.Suspend(ctx, r.Force)
	})
	Handle(mux, "POST /snapshot", func(ctx context.Context, path string) (struct{}, error) {
		return struct{}{}, s.Snapshot(ctx, path)
	})
	Handle(mux, "POST /ports", func(_ context.Context, p sandbox.Port) (sandbox.Port, error) { return s.Publish(p) })
	Handle(mux, "POST /ports/remove", func(_ context.Context, p sandbox.Port) (struct{}, error) {
		return struct{}{}, s.Unpublish(p.Host)
	})
	return mux
}

type stopRequest struct {
	Force bool `json:"force"`
}

type failure struct {
	Error string `json:"error"`
}

// Handle adds a route whose request and response are JSON.
func Handle[In, Out any](mux *http.ServeMux, pattern string, f func(context.Context, In) (Out, error)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		var in In
		if r.Method != http.MethodGet {
			if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&in); err != nil {
				answer(w, http.StatusBadRequest, failure{"malformed request: " + err.Error()})
				return
			}
		}
		out, err := f(r.Context(), in)
		if err != nil {
			answer(w, http.StatusUnprocessableEntity, failure{err.Error()})
			return
		}
		answer(w, http.StatusOK, out)
	})
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the client is gone if this fails
}

// Client calls one sandbox's supervisor.
type Client struct {
	http http.Client
}

// NewClient returns a client of the sandbox in d. It connects when called.
func NewClient(d store.Dir) *Client {
	return &Client{http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.Dial(ctx, store.ControlSocket)
		},
	}}}
}

// Call makes one request; in and out may be nil.
func (c *Client) Call(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.Open(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Close()
	if out == nil {
		_, err := io.Copy(io.Discard, resp)
		return err
	}
	return json.NewDecoder(resp).Decode(out)
}

// Open makes one request and returns the body of its response as it comes.
func (c *Client) Open(ctx context.Context, method, path string, in any) (io.ReadCloser, error) {
	b, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://supervisor"+path, bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("supervisor does not answer: %w", err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return nil, errors.New("the sandbox was started by another version of bawn: stop it, and run again")
	}
	var f failure
	if err := json.NewDecoder(resp.Body).Decode(&f); err != nil || f.Error == "" {
		return nil, fmt.Errorf("supervisor: %s", resp.Status)
	}
	return nil, errors.New(f.Error)
}

// Status asks how the sandbox is.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.Call(ctx, http.MethodGet, "/status", nil, &s)
	return s, err
}

// Stop ends the sandbox; see Service.
func (c *Client) Stop(ctx context.Context, force bool) error {
	return c.Call(ctx, http.MethodPost, "/stop", stopRequest{force}, nil)
}

// Suspend saves the sandbox's machine and ends it; see Service.
func (c *Client) Suspend(ctx context.Context, force bool) error {
	return c.Call(ctx, http.MethodPost, "/suspend", stopRequest{force}, nil)
}

// Snapshot saves the sandbox as it is; see Service.
func (c *Client) Snapshot(ctx context.Context, path string) error {
	return c.Call(ctx, http.MethodPost, "/snapshot", path, nil)
}

// Publish opens a port; see Service.
func (c *Client) Publish(ctx context.Context, p sandbox.Port) (sandbox.Port, error) {
	err := c.Call(ctx, http.MethodPost, "/ports", p, &p)
	return p, err
}

// Unpublish closes a port; see Service.
func (c *Client) Unpublish(ctx context.Context, host uint16) error {
	return c.Call(ctx, http.MethodPost, "/ports/remove", sandbox.Port{Host: host}, nil)
}

// SettleLog returns when the network log has all that was decided before.
func (c *Client) SettleLog(ctx context.Context) error {
	return c.Call(ctx, http.MethodPost, "/log/settle", struct{}{}, nil)
}

// ReloadPolicy puts the rules on disk in force.
func (c *Client) ReloadPolicy(ctx context.Context) error {
	return c.Call(ctx, http.MethodPost, "/policy/reload", struct{}{}, nil)
}

// AllowedOnce lists the rules of AllowOnce.
func (c *Client) AllowedOnce(ctx context.Context) ([]string, error) {
	var rules []string
	err := c.Call(ctx, http.MethodGet, "/policy/once", nil, &rules)
	return rules, err
}

// ForgetOnce takes back what was allowed once, and puts the rules on disk in
// force.
func (c *Client) ForgetOnce(ctx context.Context) error {
	return c.Call(ctx, http.MethodPost, "/policy/forget", struct{}{}, nil)
}

// AllowOnce adds a rule that is forgotten when the sandbox stops.
func (c *Client) AllowOnce(ctx context.Context, rule string) error {
	return c.Call(ctx, http.MethodPost, "/policy/once", rule, nil)
}
