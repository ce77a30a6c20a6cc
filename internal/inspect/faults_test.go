package inspect

import (
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bawn.dev/bawn/internal/secret"
)

// TestAnswersThatBreakOff are broken for the guest too: never an end that looks like a whole
// answer.
func TestAnswersThatBreakOff(t *testing.T) {
	everyProtocol(t, func(t *testing.T, proto string) {
		p := newPlace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/short":
				w.Header().Set("Content-Length", "100")
			case "/gzip":
				w.Header().Set("Content-Encoding", "gzip")
				_, _ = io.WriteString(w, gzipped(strings.Repeat("a long text ", 10_000))[:40])
				return
			}
			_, _ = io.WriteString(w, "the beginning")
			_ = http.NewResponseController(w).Flush()
			if r.URL.Path == "/reset" {
				panic(http.ErrAbortHandler)
			}
		}), bothProtocols, bound(secret.Place{}))
		for _, path := range []string{"/short", "/reset", "/gzip"} {
			res, err := p.client(proto).Do(request(t, "GET", path, nil, "Authorization", "Bearer "+standIn))
			if err != nil {
				continue // broken off before its head was passed on
			}
			b, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err == nil && res.StatusCode == 200 {
				t.Errorf("%s: a whole answer: %q", path, b)
			}
		}
		if res, _ := p.do(p.client(proto), request(t, "GET", "/", nil)); res.StatusCode != 200 {
			t.Error("afterwards:", res.Status)
		}
	})
}

// TestManyConnections at once are served, and take the memory that docs/limits.md says; the
// client's and the server's are counted here too.
func TestManyConnections(t *testing.T) {
	everyProtocol(t, func(t *testing.T, proto string) {
		const n, each = 50, 600 << 10
		p := newPlace(t, &seen{}, bothProtocols, bound(secret.Place{}))
		p.do(p.client(proto), request(t, "GET", "/", nil, "X-Api-Key", standIn))
		before := inUse()
		clients := make([]*http.Client, n)
		for i := range clients {
			clients[i] = p.client(proto)
			if res, _ := p.do(clients[i], request(t, "GET", "/", nil, "X-Api-Key", standIn)); res.StatusCode != 200 {
				t.Fatal(res.Status)
			}
		}
		after := inUse()
		if per := (after - before) / n; after > before && per > each {
			t.Errorf("a connection takes %d KiB", per>>10)
		} else {
			t.Logf("a connection takes %d KiB", per>>10)
		}
		for _, c := range clients {
			c.CloseIdleConnections()
		}
	})
}

// inUse returns the bytes of heap and stacks.
func inUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// TestTooManyAtOnce: connections and requests beyond the bounds are refused, and there is
// room again when others end.
func TestTooManyAtOnce(t *testing.T) {
	release, entered := make(chan struct{}), make(chan struct{}, 10)
	p := newPlace(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { entered <- struct{}{}; <-release }), bothProtocols, bound(secret.Place{}))
	c := p.client("h2")
	first := make(chan error, 1)
	go func() {
		res, err := c.Do(request(t, "GET", "/", nil))
		if err == nil {
			res.Body.Close()
		}
		first <- err
	}()
	<-entered
	for range cap(p.i.requests) - 1 {
		p.i.requests <- struct{}{}
	}
	if res, body := p.do(c, request(t, "GET", "/", nil)); res.StatusCode != 503 || !strings.Contains(body, "at once") {
		t.Error(res.Status, body)
	}
	for range cap(p.i.sessions) - 1 {
		p.i.sessions <- struct{}{}
	}
	if _, err := p.client("h2").Do(request(t, "GET", "/", nil)); err == nil {
		t.Error("a connection too many")
	}
	close(release)
	if err := <-first; err != nil {
		t.Error(err)
	}
	for range cap(p.i.requests) - 1 {
		<-p.i.requests
	}
	if res, _ := p.do(c, request(t, "GET", "/", nil)); res.StatusCode != 200 {
		t.Error("afterwards:", res.Status)
	}
}

// TestGuestThatDoesNotRead makes the gateway hold no more than the bound of an endless answer.
// With HTTP/1.1 only sockets hold bytes; with HTTP/2 each end of a connection has a window.
func TestGuestThatDoesNotRead(t *testing.T) {
	var written atomic.Int64
	stuck := make(chan struct{})
	p := newPlace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(stuck)
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Second))
		for r.Context().Err() == nil {
			n, err := w.Write(make([]byte, 64<<10))
			written.Add(int64(n))
			if err != nil {
				return
			}
		}
	}), bothProtocols, bound(secret.Place{}))
	res, err := p.client("h2").Do(request(t, "GET", "/", nil, "Authorization", "Bearer "+standIn))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	<-stuck                       // the server could write no more, or its second was over
	const clients = (4 + 1) << 20 // the window of net/http's client, and buffers on the way
	if n := written.Load(); n > maxUnread+clients {
		t.Errorf("%d KiB are on their way", n>>10)
	} else {
		t.Logf("%d KiB are on their way", n>>10)
	}
}
