package image

import (
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"bawn.dev/bawn/internal/debian"
	"bawn.dev/bawn/internal/egress/tunnel/tunneltest"
	"bawn.dev/bawn/internal/sys/proxyenv/proxyenvtest"
)

// TestPullGoesThroughTheProxy: by ALL_PROXY too, to a registry that the host cannot reach; with
// a broken variable nothing is fetched.
func TestPullGoesThroughTheProxy(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir()) // no credential helpers of the person
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	addr := server.Listener.Addr().String()
	ref, err := name.ParseReference(addr + "/team/app:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, testImage(t)); err != nil {
		t.Fatal(err)
	}
	p := tunneltest.New(t, true, true)
	p.Route("10.11.12.13:5000", addr) // package remote speaks HTTP to private addresses
	_ = p.Settings(t, "")
	if _, err := open(t.Context(), "10.11.12.13:5000/team/app:1"); err != nil {
		t.Error(err)
	}
	if got := p.Targets(); !slices.Contains(got, "10.11.12.13:5000") {
		t.Error(got)
	}
	t.Setenv("ALL_PROXY", "socks4://staff:hunter2@"+p.Addr)
	if _, err := open(t.Context(), "10.11.12.13:5000/team/app:1"); err == nil || !strings.Contains(err.Error(), "ALL_PROXY") || strings.Contains(err.Error(), "hunter2") {
		t.Error(err)
	}
}

// TestMmdebstrapGetsTheProxy: by its environment, and no password by its arguments.
func TestMmdebstrapGetsTheProxy(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "mmdebstrap"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	proxyenvtest.Set(t, "HTTPS_PROXY=staff:hunter2@proxy.test:3128")
	const ofEnv, ofApt = "http://staff:hunter2@proxy.test:3128", "http://apt:hunter2@cache.test:3142/"
	for _, c := range []struct{ conf, want []string }{
		{nil, []string{"https_proxy=" + ofEnv}},
		{[]string{`Acquire::http::Proxy "` + ofApt + `";`}, []string{"http_proxy=" + ofApt, "https_proxy=" + ofApt}},
		{[]string{`Acquire::https::Proxy "` + ofApt + `";`}, []string{"https_proxy=" + ofApt}},
	} {
		cmd, err := mmdebstrap(t.Context(), modeUnshare, debian.Mirror{}, append(c.conf, `Acquire::Retries "3";`))
		if err != nil {
			t.Fatal(err)
		}
		env := cmd.Environ()
		for _, want := range c.want {
			if !slices.Contains(env, want) {
				t.Errorf("%q: %s is not in %q", c.conf, want, env)
			}
		}
		if args := strings.Join(cmd.Args, " "); strings.Contains(args, "hunter2") || !strings.Contains(args, `--aptopt=Acquire::Retries "3";`) {
			t.Error(args)
		}
	}
	t.Setenv("HTTPS_PROXY", "staff:hunter2@")
	if _, err := mmdebstrap(t.Context(), modeUnshare, debian.Mirror{}, nil); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Error(err)
	}
}
