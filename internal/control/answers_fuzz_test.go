package control_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/sandbox"
)

// FuzzAnswers answers each call of a client with given bytes in the place of a supervisor: the
// call returns, with the answer or an error.
func FuzzAnswers(f *testing.F) {
	const head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
	for i, s := range []string{
		head + `{"name":"a","phase":"running","limits":[{"kind":"x"}],"ports":[{"host":1,"guest":2}]}`,
		head + `[{"host":1,"guest":2}]`, head + `["allow a.test"]`, head + `{"kind":"status","status":{}}` + "\n" + `{"kind":"denied"}` + "\n", head + "{",
		"HTTP/1.1 422 x\r\nContent-Length: 40\r\n\r\n" + `{"error":"x","reason":"disk-full","port":{}}`,
		"HTTP/1.1 404 x\r\n\r\n", "HTTP/1.1 302 x\r\nLocation: http://other/\r\n\r\n", "HTTP/1.1 100 x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", "\x00", "",
	} {
		f.Add(i, []byte(s))
	}
	f.Fuzz(func(t *testing.T, which int, answer []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		c := control.NewClient(func(context.Context) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				defer theirs.Close()
				r, err := http.ReadRequest(bufio.NewReader(theirs))
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, r.Body)
				_, _ = theirs.Write(answer)
			}()
			return ours, nil
		})
		calls := []func() error{
			func() error { _, err := c.Status(ctx); return err },
			func() error { return c.Stop(ctx, true) },
			func() error { return c.Snapshot(ctx, "/x") },
			func() error { _, err := c.OpenPorts(ctx, []sandbox.Port{{Guest: 1}}); return err },
			func() error { _, err := c.AllowedOnce(ctx); return err },
			func() error {
				var last error
				for _, err := range c.Events(ctx) {
					last = err
				}
				return last
			},
		}
		if err := calls[uint(which)%uint(len(calls))](); err != nil && err.Error() == "" {
			t.Error("an error without a text")
		}
		if ctx.Err() != nil {
			t.Error("the call did not return")
		}
	})
}
