//go:build vm

package vmtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// freePort returns a TCP port of the loopback that is free now.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatal(l.Addr())
	}
	return a.Port
}

// background starts a command in the guest that goes on until the test ends.
func background(t *testing.T, dir string, args ...string) {
	t.Helper()
	c := command(t.Context(), dir, args...)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
}

func get(url string) (string, error) {
	r, err := http.Get(url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return string(b), err
}

func TestPorts(t *testing.T) {
	dir := temp(t)
	writeFile(t, filepath.Join(dir, "index.html"), "served")
	must(t, dir, "run", "--", "true")
	port := freePort(t)
	must(t, dir, "port", fmt.Sprintf("%d:8123", port))
	urls := []string{fmt.Sprintf("http://127.0.0.1:%d/", port), fmt.Sprintf("http://[::1]:%d/", port)}
	for _, url := range urls {
		wait(t, "a refusal, as nobody listens in the guest", func() bool { _, err := get(url); return errors.Is(err, syscall.ECONNREFUSED) })
	}
	if l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
		l.Close()
		t.Error("another program can take a published port while nobody listens in the guest")
	}
	background(t, dir, "run", "--", "python3", "-m", "http.server", "--bind", "127.0.0.1", "8123")
	url := urls[0]
	wait(t, "the server", func() bool { _, err := get(url); return err == nil })
	for _, url := range urls {
		if got, err := get(url); got != "served" || err != nil {
			t.Errorf("%s: %q, %v", url, got, err)
		}
	}
	if got := must(t, dir, "port"); !strings.Contains(got, fmt.Sprint(port)) {
		t.Errorf("%s", got)
	}
	fails(t, dir, 125, "already published", "port", fmt.Sprintf("%d:99", port))
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, other, _ := net.SplitHostPort(taken.Addr().String())
	fails(t, dir, 125, "in use by another program", "port", other+":99")
	// On the loopback only.
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			if c, err := net.Dial("tcp", net.JoinHostPort(n.IP.String(), fmt.Sprint(port))); err == nil {
				c.Close()
				t.Errorf("published on %s", n.IP)
			}
		}
	}
	must(t, dir, "port", "--remove", fmt.Sprint(port))
	if _, err := get(url); err == nil {
		t.Error("still published")
	}
}

// TestPortsOfAnOwnAddress: a page of one sandbox has no cookies of localhost, and its number is
// free there.
func TestPortsOfAnOwnAddress(t *testing.T) {
	dir := project(t, "ownaddress")
	writeFile(t, filepath.Join(dir, "index.html"), "served")
	port := freePort(t)
	taken, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	must(t, dir, "run", "--own-address", "--publish", fmt.Sprintf("%d:8123", port), "--", "true")
	var list []struct {
		Host      int
		Addresses []string
	}
	if err := json.Unmarshal([]byte(must(t, dir, "port", "--json")), &list); err != nil || len(list) != 1 || list[0].Host != port || len(list[0].Addresses) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	background(t, dir, "run", "--", "python3", "-m", "http.server", "--bind", "127.0.0.1", "8123")
	url := fmt.Sprintf("http://%s:%d/", list[0].Addresses[0], port)
	wait(t, "the server", func() bool { got, err := get(url); return got == "served" && err == nil })
}
