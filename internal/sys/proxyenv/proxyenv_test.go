package proxyenv

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/sys/proc/proctest"
)

// setEnv sets variables of the environment, and empties the others that count.
func setEnv(t *testing.T, env map[string]string) {
	t.Helper()
	for _, n := range Variables {
		t.Setenv(n, env[n])
	}
}

func TestWhichProxyIsForWhichConnection(t *testing.T) {
	const a, b, c = "http://a.test:3128", "https://b.test", "socks5h://c.test"
	for _, test := range []struct {
		env  map[string]string
		to   string
		port uint16
		want string // without the variable; empty: directly
	}{
		{nil, "x.test", 443, ""},
		{map[string]string{"HTTPS_PROXY": a}, "x.test", 443, a},
		{map[string]string{"HTTPS_PROXY": a}, "x.test", 22, a},
		{map[string]string{"HTTPS_PROXY": a}, "x.test", 80, ""},
		{map[string]string{"http_proxy": a, "https_proxy": b}, "x.test", 80, a},
		{map[string]string{"http_proxy": a, "https_proxy": b}, "x.test", 8080, "https://b.test:443"},
		{map[string]string{"https_proxy": a, "HTTPS_PROXY": b}, "x.test", 443, a},
		{map[string]string{"https_proxy": "", "HTTPS_PROXY": a}, "x.test", 443, a},
		{map[string]string{"ALL_PROXY": c}, "x.test", 443, "socks5h://c.test:1080"},
		{map[string]string{"all_proxy": c}, "x.test", 80, "socks5h://c.test:1080"},
		{map[string]string{"ALL_PROXY": c, "HTTP_PROXY": a}, "x.test", 80, a},
		{map[string]string{"HTTPS_PROXY": "a.test:3128"}, "x.test", 443, a},
		{map[string]string{"HTTPS_PROXY": " http://a.test:3128/ "}, "x.test", 443, a},
		{map[string]string{"HTTPS_PROXY": "http://u:p%40@a.test:3128"}, "x.test", 443, a},
		{map[string]string{"HTTPS_PROXY": "http://[2001:db8::1]:3128"}, "x.test", 443, "http://[2001:db8::1]:3128"},

		{map[string]string{"HTTPS_PROXY": a, "NO_PROXY": "y.test, .corp.test,10.0.0.0/8,z.test:22"}, "x.test", 443, a},
		{map[string]string{"HTTPS_PROXY": a, "NO_PROXY": "x.test"}, "x.test", 443, ""},
		{map[string]string{"HTTPS_PROXY": a, "no_proxy": ".corp.test"}, "git.corp.test", 443, ""},
		{map[string]string{"HTTPS_PROXY": a, "NO_PROXY": "10.0.0.0/8"}, "10.1.2.3", 443, ""},
		{map[string]string{"HTTPS_PROXY": a, "NO_PROXY": "10.0.0.0/8"}, "192.0.2.1", 443, a},
		{map[string]string{"HTTPS_PROXY": a, "NO_PROXY": "2001:db8::/32"}, "2001:db8::5", 443, ""},
		{map[string]string{"HTTPS_PROXY": a, "NO_PROXY": "z.test:22"}, "z.test", 22, ""},
		{map[string]string{"HTTPS_PROXY": a, "NO_PROXY": "z.test:22"}, "z.test", 443, a},
		{map[string]string{"HTTPS_PROXY": a, "NO_PROXY": "*"}, "x.test", 443, ""},
		{map[string]string{"HTTPS_PROXY": a}, "127.0.0.1", 443, ""},
		{map[string]string{"HTTPS_PROXY": a}, "::1", 443, ""},
		{map[string]string{"HTTPS_PROXY": a}, "localhost", 443, ""},
		{map[string]string{"HTTPS_PROXY": a}, "x.localhost", 443, ""},
	} {
		t.Run(fmt.Sprintf("%v %s %d", test.env, test.to, test.port), func(t *testing.T) {
			setEnv(t, test.env)
			s, err := Read()
			if err != nil {
				t.Fatal(err)
			}
			p := s.For(test.to, test.port)
			if got := p; (got == nil) != (test.want == "") || got != nil && !strings.HasPrefix(got.String(), test.want+" (") {
				t.Errorf("got %v, want %q", got, test.want)
			}
		})
	}
}

// TestABrokenProxyIsAnError: it is not ignored, and the error has nothing of its value.
func TestABrokenProxyIsAnError(t *testing.T) {
	for _, v := range []string{
		"http://user:hunter2@", "http://user:hunter2@proxy.test:port", "http://user:hunter2@proxy.test:0", "http://user:hunter2@proxy.test:65536",
		"http://user:hunter2/x@proxy.test:3128", "http://user:hunter2#x@proxy.test:3128", "http://user:hunter2?x@proxy.test:3128",
		"http://user:hunter2%zz@proxy.test:3128", "socks4://user:hunter2@proxy.test:1080", "ftp://user:hunter2@proxy.test",
		"http://user:hunter2@proxy.test:3128/path", "http://user:hunter2@prox y.test:3128", "socks5://:hunter2@proxy.test", "://hunter2",
		"http://us%3Aer:hunter2@proxy.test", "socks5://user:hunter2" + strings.Repeat("x", 255) + "@proxy.test", "http://user:hunter2@proxy.test:3128\n",
	} {
		for _, name := range Variables[:6] {
			setEnv(t, map[string]string{name: v})
			s, err := Read()
			if v == "http://user:hunter2@proxy.test:3128\n" { // space around it is no mistake
				if err != nil {
					t.Errorf("%s=%q: %v", name, v, err)
				}
				continue
			}
			if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s=%q: %v, %v", name, v, s, err)
			}
		}
	}
}

// TestTransportFailsWithABrokenProxy: no request leaves, neither directly.
func TestTransportFailsWithABrokenProxy(t *testing.T) {
	asked := false
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer server.Close()
	setEnv(t, map[string]string{"HTTP_PROXY": "socks4://user:hunter2@127.0.0.1:1"})
	c := http.Client{Transport: Transport(http.DefaultTransport.(*http.Transport))}
	if _, err := c.Get(server.URL); err == nil || asked || !strings.Contains(err.Error(), "HTTP_PROXY") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("asked: %v, %v", asked, err)
	}
}

// TestTransportGoesThroughTheProxy: also by ALL_PROXY, which net/http alone does not know.
func TestTransportGoesThroughTheProxy(t *testing.T) {
	var got string
	proxy := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got = r.URL.String() + " " + r.Header.Get("Proxy-Authorization")
	}))
	defer proxy.Close()
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"} {
		setEnv(t, map[string]string{name: strings.Replace(proxy.URL, "://", "://user:word@", 1)})
		c := http.Client{Transport: Transport(http.DefaultTransport.(*http.Transport))}
		got = ""
		res, err := c.Get("http://mirror.test/x")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got != "http://mirror.test/x Basic dXNlcjp3b3Jk" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestEnvironForApt: apt reads lower case variables, whole URLs, and socks5h alone.
func TestEnvironForApt(t *testing.T) {
	setEnv(t, map[string]string{"HTTPS_PROXY": "proxy.test:3128", "ALL_PROXY": "socks5://user:word@socks.test", "NO_PROXY": "corp.test"})
	s, err := Read()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"http_proxy=socks5h://user:word@socks.test:1080", "https_proxy=http://proxy.test:3128", "no_proxy=corp.test"}
	if got := s.Environ(); !slices.Equal(got, want) {
		t.Error(got)
	}
	for _, p := range s.Proxies() {
		if strings.Contains(p.String(), "word") {
			t.Error(p)
		}
	}
	setEnv(t, map[string]string{"ALL_PROXY": "http://user:word@proxy.test"})
	if s, err := Read(); err != nil || len(s.Proxies()) != 1 {
		t.Error(s.Proxies(), err)
	}
	setEnv(t, nil)
	if s, err := Read(); err != nil || s.Environ() != nil || s.Proxies() != nil {
		t.Error(s, err)
	}
}

// TestAttackTransportBelievesAGuest: the environment names the certificates in a directory that a guest writes, with the
// authority of a server that reads along. A transport with authorities of its own needs none.
func TestAttackTransportBelievesAGuest(t *testing.T) {
	asked := false
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer server.Close()
	shared := t.TempDir()
	file := filepath.Join(shared, "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	proctest.Share(t, shared)
	setEnv(t, nil)
	t.Setenv("SSL_CERT_FILE", file)
	t.Setenv("SSL_CERT_DIR", "")
	c := http.Client{Transport: Transport(http.DefaultTransport.(*http.Transport))}
	if _, err := c.Get(server.URL); err == nil || asked || !strings.Contains(err.Error(), "a guest can write to") {
		t.Errorf("asked: %v, %v", asked, err)
	}
	setEnv(t, map[string]string{"HTTP_PROXY": server.URL})
	c = http.Client{Transport: Transport(http.DefaultTransport.(*http.Transport))}
	if _, err := c.Get("http://mirror.test/x"); err == nil || asked || !strings.Contains(err.Error(), "a guest can write to") {
		t.Errorf("by a proxy: asked: %v, %v", asked, err)
	}
	setEnv(t, nil)
	own := http.Client{Transport: Transport(server.Client().Transport.(*http.Transport))}
	res, err := own.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if !asked {
		t.Error("not asked")
	}
}
