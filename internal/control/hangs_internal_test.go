package control

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// TestAStoppedSupervisorHoldsNoRequest: the kernel takes its connections, and nobody reads them.
func TestAStoppedSupervisorHoldsNoRequest(t *testing.T) {
	for name, call := range map[string]func(*Client, context.Context) error{
		"status":        func(c *Client, ctx context.Context) error { _, err := c.Status(ctx); return err },
		"suspend":       func(c *Client, ctx context.Context) error { return c.Suspend(ctx, false) },
		"snapshot":      func(c *Client, ctx context.Context) error { return c.Snapshot(ctx, "/x") },
		"follow shares": func(c *Client, ctx context.Context) error { return c.FollowShares(ctx) },
		"reload policy": func(c *Client, ctx context.Context) error { return c.ReloadPolicy(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := NewClient(func(context.Context) (net.Conn, error) {
					ours, _ := net.Pipe()
					return ours, nil
				})
				began := time.Now()
				if err := call(c, t.Context()); !errors.Is(err, ErrHangs) || ReasonOf(err) != ReasonHangs {
					t.Errorf("%v", err)
				}
				if took := time.Since(began); took > 5*time.Minute {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

// TestASlowRequestWaits: one that takes long, of a supervisor that answers others.
func TestASlowRequestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewClient(func(context.Context) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				defer theirs.Close()
				r, err := http.ReadRequest(bufio.NewReader(theirs))
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, r.Body)
				if r.URL.Path == "/suspend" {
					time.Sleep(time.Hour)
				}
				_, _ = io.WriteString(theirs, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}\n")
			}()
			return ours, nil
		})
		if err := c.Suspend(t.Context(), false); err != nil {
			t.Error(err)
		}
	})
}
