package supervisor

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bawn.dev/bawn/internal/sandbox"
)

// echo answers a guest's port 7 with what it reads, after it has all of it.
func echo(port uint16) (net.Conn, error) {
	if port != 7 {
		return nil, errors.New("connection refused")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go func() {
		c, err := l.Accept()
		l.Close()
		if err != nil {
			return
		}
		b, _ := io.ReadAll(c)
		_, _ = c.Write(b)
		c.Close()
	}()
	return net.Dial("tcp", l.Addr().String())
}

func TestPublishRelaysHalfClosed(t *testing.T) {
	p := newPorts(echo, slog.New(slog.DiscardHandler))
	defer p.close()
	got, err := p.publish(sandbox.Port{Guest: 7})
	if err != nil || got.Host == 0 {
		t.Fatal(got, err)
	}
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", got.Host))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "until the end")
	_ = c.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != "until the end" {
		t.Fatalf("%q, %v", b, err)
	}
}

func TestPublishOnlyOnLoopback(t *testing.T) {
	p := newPorts(echo, slog.New(slog.DiscardHandler))
	defer p.close()
	got, err := p.publish(sandbox.Port{Guest: 7})
	if err != nil {
		t.Fatal(err)
	}
	if ip := p.open[got.Host].listener.Addr().(*net.TCPAddr).IP; !ip.IsLoopback() {
		t.Errorf("published on %s", ip)
	}
}

func TestClosedGuestPortIsReset(t *testing.T) {
	p := newPorts(echo, slog.New(slog.DiscardHandler))
	defer p.close()
	got, err := p.publish(sandbox.Port{Guest: 9})
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", got.Host))
	if err == nil {
		_, err = c.Read(make([]byte, 1))
		c.Close()
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}

func TestPublishErrorsNameTheNextStep(t *testing.T) {
	p := newPorts(echo, slog.New(slog.DiscardHandler))
	defer p.close()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	busy := uint16(l.Addr().(*net.TCPAddr).Port)
	if _, err := p.publish(sandbox.Port{Host: busy, Guest: 7}); err == nil || !strings.Contains(err.Error(), "-p HOST:7") {
		t.Errorf("busy port: %v", err)
	}
	got, _ := p.publish(sandbox.Port{Guest: 7})
	if _, err := p.publish(sandbox.Port{Host: got.Host, Guest: 8}); err == nil || !strings.Contains(err.Error(), "--remove") {
		t.Errorf("twice: %v", err)
	}
	if err := p.unpublish(got.Host); err != nil {
		t.Error(err)
	}
	if err := p.unpublish(got.Host); err == nil {
		t.Error("closed twice")
	}
}

func TestLogIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console.log")
	l, err := openLog(path, 1000)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 100 {
		if _, err := l.Write([]byte(strings.Repeat("x", 99) + "\n")); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{path, path + ".1"} {
		fi, err := os.Stat(p)
		if err != nil || fi.Size() > 1000 || fi.Size() == 0 || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", p, fi, err)
		}
	}
}

// TestPublishAnyOnce: a port that may be any of the host's stays the one that it
// became, however often it is asked for, and can be closed.
func TestPublishAnyOnce(t *testing.T) {
	p := newPorts(echo, slog.New(slog.DiscardHandler))
	defer p.close()
	first, err := p.publish(sandbox.Port{Guest: 7})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := p.publish(sandbox.Port{Guest: 7}); again != first || err != nil {
		t.Errorf("%v, then %v, %v", first, again, err)
	}
	if err := p.unpublish(first.Host); err != nil {
		t.Error(err)
	}
	if len(p.open) != 0 {
		t.Errorf("still open: %v", p.open)
	}
}
