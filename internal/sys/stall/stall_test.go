package stall

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestAttackASilentServer: one that never answers, stops in the middle, or sends a byte now and then; the error names it.
// One that is slow but goes on, and a slow reader, are left alone.
func TestAttackASilentServer(t *testing.T) {
	const limit = 300 * time.Millisecond
	stop := make(chan struct{})
	wait := func(r *http.Request, d time.Duration) {
		select {
		case <-time.After(d):
		case <-stop:
		case <-r.Context().Done():
		}
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		flush := func(s string) {
			_, _ = io.WriteString(w, s)
			_ = http.NewResponseController(w).Flush()
		}
		switch r.URL.Path {
		case "/never":
			wait(r, time.Minute)
		case "/stops":
			flush(strings.Repeat("x", 10_000))
			wait(r, time.Minute)
		case "/trickles":
			for range 1000 {
				flush("x")
				wait(r, limit/10)
			}
		case "/slow":
			for range 6 {
				flush(strings.Repeat("x", minBytes))
				wait(r, limit/3)
			}
		default:
			flush("whole")
		}
	}))
	defer server.Close()
	defer close(stop)
	client := &http.Client{Transport: &Transport{http.DefaultTransport, limit}}
	get := func(path string, pause time.Duration) error {
		answer, err := client.Get(server.URL + path)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		time.Sleep(pause)
		_, err = io.Copy(io.Discard, answer.Body)
		return err
	}
	for _, path := range []string{"/never", "/stops", "/trickles"} {
		began := time.Now()
		err := get(path, 0)
		var stalled *Error
		if !errors.As(err, &stalled) || stalled.Host != server.Listener.Addr().String() || !strings.Contains(err.Error(), "try again") || time.Since(began) > 30*time.Second {
			t.Errorf("%s: %v after %v", path, err, time.Since(began))
		}
	}
	if err := get("/whole", 2*limit); err != nil {
		t.Errorf("a slow reader: %v", err)
	}
	for range 3 { // a machine may be busy for longer than the limit
		if err := get("/slow", 0); err == nil {
			return
		}
	}
	t.Error("a slow server is not waited for")
}
