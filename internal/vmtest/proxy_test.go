//go:build vm

package vmtest

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/egress/tunnel/tunneltest"
)

// TestBehindAProxy: the guest reaches a name that the host cannot resolve, through a proxy with
// a password. The password is in no file of the sandbox, no argument, no environment of QEMU, and
// not in the guest.
func TestBehindAProxy(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "served %s\n", r.Host) }))
	t.Cleanup(server.Close)
	p := tunneltest.New(t, false, true)
	p.Route("far.test:8443", server.Listener.Addr().String())
	dir := project(t, "proxy")
	env := []string{"HTTPS_PROXY=" + p.URL()}
	run := func(args ...string) result { return bawnAt(t.Context(), dir, nil, env, args...) }
	script := "env; curl -sSk https://far.test:8443/; curl -sSkm 20 https://near.test:8443/ || true"
	r := run("run", "--allow", "far.test:8443", "--allow", "near.test:8443", "--", "sh", "-euc", script)
	if r.code != 0 || !strings.Contains(r.out, "served far.test:8443") {
		t.Fatalf("%d %s%s%s", r.code, r.out, r.err, logs(dir))
	}
	if got := p.Targets(); !slices.Equal(got, []string{"far.test:8443", "near.test:8443"}) {
		t.Error(got)
	}
	log := run("net", "log", "--json").out
	if !strings.Contains(log, `"via":"`+p.Addr) || !strings.Contains(log, "answered 502") {
		t.Error(log)
	}
	seen := map[string]string{"the guest": r.out + r.err, "the log": log, "inspect": run("inspect").out, "doctor": run("doctor").out}
	if !strings.Contains(seen["doctor"], p.Addr+" (HTTPS_PROXY) answers") {
		t.Error(seen["doctor"])
	}
	for _, path := range readable(t, sandboxDir("proxy")) {
		b, _ := os.ReadFile(path)
		seen[path] = string(b)
	}
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, path := range processes { // which may end meanwhile
		command, _ := os.ReadFile(filepath.Join(path, "cmdline"))
		exe, _ := os.Readlink(filepath.Join(path, "exe"))
		if strings.Contains(exe, "qemu") || exe == os.Getenv("BAWN") {
			seen[path+"/cmdline"] = string(command)
		}
		if strings.Contains(exe, "qemu") {
			set, _ := os.ReadFile(filepath.Join(path, "environ"))
			seen[path+"/environ"] = string(set)
		}
	}
	for what, text := range seen {
		if strings.Contains(text, "w0rd") {
			t.Errorf("%s has the password", what)
		}
	}
}

// readable lists the files below a directory but for disks. They may be gone before they are read.
func readable(t *testing.T, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		if fi, err := e.Info(); err == nil && fi.Size() < 4<<20 {
			list = append(list, path)
		}
		return nil
	})
	if err != nil || len(list) == 0 {
		t.Fatal(list, err)
	}
	return list
}
