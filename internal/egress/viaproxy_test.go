package egress

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"bawn.dev/bawn/internal/egress/audit"
	"bawn.dev/bawn/internal/egress/tunnel/tunneltest"
	"bawn.dev/bawn/internal/policy"
)

// newProxyLab is a lab on a host that has a proxy. The host cannot resolve names, but for
// those of serve.
func newProxyLab(t *testing.T, p *tunneltest.Proxy, noProxy string, rules testRules, change ...func(*Config)) *lab {
	t.Helper()
	s := p.Settings(t, noProxy)
	return newLab(t, rules, append(change, func(c *Config) { c.Proxies = s })...)
}

// kinds runs a test with each kind of proxy.
func kinds(t *testing.T, f func(t *testing.T, p *tunneltest.Proxy)) {
	for name, kind := range map[string][2]bool{
		"HTTP": {false, false}, "HTTP with a password": {false, true}, "SOCKS": {true, false}, "SOCKS with a password": {true, true},
	} {
		t.Run(name, func(t *testing.T) { f(t, tunneltest.New(t, kind[0], kind[1])) })
	}
}

// logged returns the log's entries after the gateway's end, and fails if the log has the
// proxy's credentials.
func (l *lab) logged() []audit.Entry {
	l.t.Helper()
	l.Close()
	b, err := os.ReadFile(l.path)
	if err != nil {
		l.t.Fatal(err)
	}
	if text := string(b); strings.Contains(text, "w0rd") || strings.Contains(text, tunneltest.User) {
		l.t.Errorf("the log has the proxy's credentials: %s", text)
	}
	return readAll(l.t, l.path)
}

// TestProxyGetsTheName: TLS, HTTP and a server that speaks first go through the proxy by name,
// which the host cannot resolve, and the log has them.
func TestProxyGetsTheName(t *testing.T) {
	kinds(t, func(t *testing.T, p *tunneltest.Proxy) {
		l := newProxyLab(t, p, "", testRules{"good.test:443", "good.test:80", "good.test:22"})
		secure, plain := newCounter(t, true, nil), newCounter(t, false, nil)
		p.Route("good.test:443", secure.addr())
		p.Route("good.test:80", plain.addr())
		p.Route("good.test:22", tunneltest.Serve(t, func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-test\r\n") }))
		for _, url := range []string{"https://good.test/", "http://good.test/"} {
			if code, body := get(t, l.client(), url); code != 200 || body != "hello good.test" {
				t.Errorf("%s: %d %s", url, code, body)
			}
		}
		if line, err := bufio.NewReader(l.mustDial("good.test", 22)).ReadString('\n'); line != "SSH-2.0-test\r\n" {
			t.Errorf("%q, %v", line, err)
		}
		if got := p.Targets(); !slices.Equal(got, []string{"good.test:443", "good.test:80", "good.test:22"}) {
			t.Error(got)
		}
		opened := 0
		for _, e := range l.logged() {
			if e.Event == audit.EventOpen {
				opened++
				if e.Name != "good.test" || e.Via != p.Addr || e.Addr.IsValid() || e.Rule == "" {
					t.Errorf("%+v", e)
				}
			}
		}
		if opened != 3 {
			t.Errorf("%d connections in the log", opened)
		}
	})
}

// TestProxyDoesNotSeeWhatIsDenied: by a rule, by the server name, by the Host of a request.
func TestProxyDoesNotSeeWhatIsDenied(t *testing.T) {
	kinds(t, func(t *testing.T, p *tunneltest.Proxy) {
		l := newProxyLab(t, p, "", testRules{"good.test:443", "good.test:80", "-bad.test:443", "*.wide.test:443"})
		if _, err := l.dialName("bad.test", 443); err == nil {
			t.Error("bad.test")
		}
		if _, err := l.dialName("good.test", 22); !errors.Is(err, errRejected) {
			t.Error("port 22:", err)
		}
		c := tls.Client(l.mustDial("good.test", 443), &tls.Config{ServerName: "evil.test", InsecureSkipVerify: true})
		if err := c.Handshake(); err == nil {
			t.Error("another server name")
		}
		if got := send(t, l.mustDial("good.test", 80), "GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n"); !strings.Contains(got, " 403 ") {
			t.Errorf("%q", got)
		}
		if got := send(t, l.mustDial("good.test", 80), "CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n"); strings.Contains(got, " 200 ") {
			t.Errorf("%q", got)
		}
		if got := p.Targets(); len(got) > 0 {
			t.Error(got)
		}
		_ = l.logged()
	})
}

// TestNoProxyIsDialledDirectly: what NO_PROXY lists, by name and by address, and this host.
func TestNoProxyIsDialledDirectly(t *testing.T) {
	p := tunneltest.New(t, false, true)
	server := newCounter(t, false, nil)
	l := newProxyLab(t, p, ".corp.test,203.0.113.0/24", testRules{"git.corp.test:80", "203.0.113.5:80", "host:8080"})
	l.serve("git.corp.test", "198.51.100.1:80", server.addr())
	l.serve("", "203.0.113.5:80", server.addr())
	l.serve("", "127.0.0.1:8080", server.addr())
	for _, url := range []string{"http://git.corp.test/", "http://203.0.113.5/", "http://" + policy.HostName + ":8080/"} {
		if code, _ := get(t, l.client(), url); code != 200 {
			t.Errorf("%s: %d", url, code)
		}
	}
	if got := p.Targets(); len(got) > 0 {
		t.Error(got)
	}
	for _, e := range l.logged() {
		if e.Event == audit.EventOpen && (e.Via != "" || !e.Addr.IsValid()) {
			t.Errorf("%+v", e)
		}
	}
}

// TestAddressFloorBehindAProxy: an address that may not be dialled is not asked of the proxy
// either, whether the guest names it or the host resolves a name to it.
func TestAddressFloorBehindAProxy(t *testing.T) {
	p := tunneltest.New(t, false, false)
	l := newProxyLab(t, p, "", testRules{
		"0.0.0.0/0:80", "meta.test:443", "two.test:443", "inner.test:443", "private:open.test:443", "10.9.0.0/16:443",
	})
	l.zone["meta.test"] = addrs("169.254.169.254")
	l.zone["two.test"] = addrs("203.0.113.1", "10.0.0.1")
	l.zone["inner.test"] = addrs("10.0.0.1")
	l.zone["open.test"] = addrs("10.0.0.1")
	for _, a := range []string{"169.254.169.254:80", "127.0.0.1:80", "10.0.0.1:80", "0.0.0.0:80"} {
		if c, err := l.dialAddr(netip.MustParseAddrPort(a)); err == nil {
			if got := send(t, c, "GET / HTTP/1.1\r\nHost: "+a+"\r\n\r\n"); !strings.Contains(got, " 403 ") {
				t.Errorf("%s: %q", a, got)
			}
		}
	}
	for _, name := range []string{"meta.test", "two.test", "inner.test"} {
		if _, err := l.client().Get("https://" + name + "/"); err == nil {
			t.Errorf("%s is reached", name)
		}
	}
	if got := p.Targets(); len(got) > 0 {
		t.Errorf("the proxy was asked for %v", got)
	}
	server := newCounter(t, true, nil)
	p.Route("open.test:443", server.addr())
	p.Route("10.9.1.1:443", server.addr())
	if code, _ := get(t, l.client(), "https://open.test/"); code != 200 {
		t.Error("open.test:", code)
	}
	if code, _ := get(t, l.client(), "https://10.9.1.1/"); code != 200 {
		t.Error("10.9.1.1:", code)
	}
	if got := p.Targets(); !slices.Equal(got, []string{"open.test:443", "10.9.1.1:443"}) {
		t.Error(got)
	}
	_ = l.logged()
}

// TestAFlowThatEndsDoesNotHideAnAddress: a name counts as one that the host cannot resolve only
// if the resolver said so, and not because the guest gave up first.
func TestAFlowThatEndsDoesNotHideAnAddress(t *testing.T) {
	p := tunneltest.New(t, false, false)
	f := &fakeNet{answers: [][]netip.Addr{addrs("169.254.169.254")}}
	d := f.dialer(testRules{"meta.test:443"})
	d.proxies, d.tunnel = p.Settings(t, ""), newLab(t, nil).dialer.tunnel
	resolve := d.resolve
	d.resolve = func(ctx context.Context, name string) ([]netip.Addr, error) {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return resolve(ctx, name)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	to := policy.Flow{Name: "meta.test", Port: 443, Proto: policy.TCP}
	for _, ctx := range []context.Context{ended, t.Context()} {
		if _, _, err := d.connect(ctx, to); err == nil {
			t.Error("connected")
		}
	}
	if _, denied := asDenied(func() error { _, _, err := d.connect(t.Context(), to); return err }()); !denied || len(p.Targets()) > 0 {
		t.Error("not denied", p.Targets())
	}
}

// TestAnUnresolvedNameIsAskedForOnce: a resolver that does not know a name is not asked for
// each connection; a direct connection to the name asks it all the same.
func TestAnUnresolvedNameIsAskedForOnce(t *testing.T) {
	p := tunneltest.New(t, false, false)
	server := newCounter(t, true, nil)
	p.Route("far.test:443", server.addr())
	var asked atomic.Int32
	l := newProxyLab(t, p, "far.test:8443", testRules{"far.test:443,8443"}, func(c *Config) {
		c.Resolve = func(context.Context, string) ([]netip.Addr, error) {
			asked.Add(1)
			return nil, errors.New("no resolver")
		}
	})
	for range 3 {
		c := l.client()
		if code, _ := get(t, c, "https://far.test/"); code != 200 {
			t.Error(code)
		}
		c.CloseIdleConnections()
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the resolver was asked %d times", n)
	}
	if _, _, err := l.dialer.connect(t.Context(), policy.Flow{Name: "far.test", Port: 8443, Proto: policy.TCP}); err == nil || !strings.Contains(err.Error(), "no resolver") {
		t.Error(err)
	}
}

// TestNamesThatAProxyMayTakeForAddresses are denied.
func TestNamesThatAProxyMayTakeForAddresses(t *testing.T) {
	for name, want := range map[string]bool{
		"127.1": true, "0x7f000001": true, "2130706433": true, "10.0.0.0x1": true, "a.0X7F": true, "1.2.3.4": true, "a.1": true, "0x": true,
		"a.test": false, "1.test": false, "0x1.test": false, "a.x1": false, "xn--a": false, "1a": false, "0xg": false,
	} {
		if got := likeAddress(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
	p := tunneltest.New(t, false, false)
	d := (&fakeNet{}).dialer(testRules{"a.example:443"})
	d.proxies, d.tunnel = p.Settings(t, ""), newLab(t, nil).dialer.tunnel
	_, _, err := d.connect(t.Context(), policy.Flow{Name: "169.16689662", Port: 443, Proto: policy.TCP})
	if _, denied := asDenied(err); !denied || len(p.Targets()) > 0 {
		t.Error(err, p.Targets())
	}
}

// TestGivenAddressesBehindAProxy: --add-host decides what a name is; the proxy is asked for
// that address, and NO_PROXY may have it.
func TestGivenAddressesBehindAProxy(t *testing.T) {
	p := tunneltest.New(t, true, false)
	server := newCounter(t, false, nil)
	l := newProxyLab(t, p, "203.0.113.0/24", testRules{"a.test:80", "b.test:80", "c.test:80"}, func(c *Config) {
		c.Hosts = map[string][]netip.Addr{"a.test": addrs("198.51.100.7"), "b.test": addrs("203.0.113.7"), "c.test": addrs("10.0.0.7")}
	})
	p.Route("198.51.100.7:80", server.addr())
	l.serve("", "203.0.113.7:80", server.addr())
	for name, want := range map[string]int{"a.test": 200, "b.test": 200, "c.test": 403} {
		if code, _ := get(t, l.client(), "http://"+name+"/"); code != want {
			t.Errorf("%s: %d", name, code)
		}
	}
	if got := p.Targets(); !slices.Equal(got, []string{"198.51.100.7:80"}) {
		t.Error(got)
	}
	_ = l.logged()
}

// TestUDPBehindAProxy is denied with a reason, but for what NO_PROXY lists.
func TestUDPBehindAProxy(t *testing.T) {
	p := tunneltest.New(t, true, true)
	l := newProxyLab(t, p, "time.corp.test", testRules{"udp quic.test:443", "udp time.corp.test:123"})
	to := policy.Flow{Name: "quic.test", Port: 443, Proto: policy.UDP}
	_, _, err := l.dialer.connect(t.Context(), to)
	if d, denied := asDenied(err); !denied || !strings.Contains(d.Reason, "UDP") || !strings.Contains(d.Reason, "NO_PROXY") || strings.Contains(d.Reason, "w0rd") {
		t.Error(err)
	}
	l.serve("time.corp.test", "198.51.100.1:123", "127.0.0.1:9")
	to.Name, to.Port = "time.corp.test", 123
	c, at, err := l.dialer.connect(t.Context(), to)
	if err != nil || at != addrs("198.51.100.1")[0] {
		t.Fatal(at, err)
	}
	c.Close()
	if got := p.Targets(); len(got) > 0 {
		t.Error(got)
	}
}

// TestInspectedHostThroughAProxy: the secret reaches the server through the proxy, and nothing
// of it or of the proxy's password is in the log.
func TestInspectedHostThroughAProxy(t *testing.T) {
	kinds(t, func(t *testing.T, p *tunneltest.Proxy) {
		var got []string
		server := newCounter(t, true, keyEcho(&got))
		l, authority := newInspectedLab(t, &secrets{}, server, testRules{"example.com:443"})
		l.dialer.proxies = p.Settings(t, "")
		p.Route("example.com:443", server.addr())
		r, err := http.NewRequestWithContext(t.Context(), "GET", "https://example.com/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Api-Key", testStandIn)
		res, err := l.trusting(authority).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if code, body := answered(t, res); code != 200 || body != "your key is "+testStandIn || !slices.Equal(got, []string{testSecret}) {
			t.Error(code, body, got)
		}
		if got := p.Targets(); !slices.Equal(got, []string{"example.com:443"}) {
			t.Error(got)
		}
		_ = l.logged()
	})
}

// TestAProxyThatRefuses: the guest learns that the proxy is the reason, and the log which one
// and why. There is no direct attempt.
func TestAProxyThatRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		answer, page, log string
	}{
		"502":     {"HTTP/1.1 502 Bad Gateway\r\n\r\n", "refused it or did not reach it", "answered 502 Bad Gateway for good.test:80"},
		"407":     {"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n", "bawn doctor", "does not take the user and password"},
		"nothing": {"", "bawn doctor", "ended the connection before its answer was whole"},
	} {
		t.Run(name, func(t *testing.T) {
			addr := tunneltest.Serve(t, func(conn net.Conn) {
				_, _ = bufio.NewReader(conn).ReadString('\n')
				_, _ = io.WriteString(conn, c.answer)
				_ = conn.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, conn)
			})
			s := tunneltest.Settings(t, "http://"+tunneltest.User+":w0rd@"+addr, "")
			var direct atomic.Int32
			l := newLab(t, testRules{"good.test:80", "good.test:443", "good.test:22"}, func(conf *Config) {
				conf.Proxies = s
				conf.Dial = func(context.Context, string, string) (net.Conn, error) {
					direct.Add(1)
					return nil, errors.New("direct")
				}
			})
			l.zone["good.test"] = addrs("203.0.113.1")
			code, body := get(t, l.client(), "http://good.test/")
			if code != 502 || !strings.Contains(body, c.page) || strings.Contains(body, addr) || strings.Contains(body, "w0rd") {
				t.Error(code, body)
			}
			if _, err := l.client().Get("https://good.test/"); err == nil {
				t.Error("TLS is answered")
			}
			if _, err := l.dialName("good.test", 22); !errors.Is(err, errRejected) {
				t.Error("port 22:", err)
			}
			if direct.Load() > 0 {
				t.Error("a direct attempt")
			}
			all := l.logged()
			if e := all[len(all)-1]; !strings.Contains(all[0].Reason+e.Reason, addr) {
				t.Errorf("%+v", all)
			}
			if !slices.ContainsFunc(all, func(e audit.Entry) bool { return strings.Contains(e.Reason, c.log) }) {
				t.Errorf("%+v", all)
			}
		})
	}
}

// TestAProxyThatStallsEndsWithTheFlow: closing the gateway does not wait for it.
func TestAProxyThatStallsEndsWithTheFlow(t *testing.T) {
	asked := make(chan struct{})
	var once sync.Once
	addr := tunneltest.Serve(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1))
		once.Do(func() { close(asked) })
		_, _ = io.Copy(io.Discard, c)
	})
	s := tunneltest.Settings(t, addr, "")
	l := newLab(t, testRules{"good.test:22"}, func(c *Config) { c.Proxies = s })
	done := make(chan error, 1)
	go func() { _, err := l.dialName("good.test", 22); done <- err }()
	<-asked
	l.Close()
	if err := <-done; !errors.Is(err, errRejected) {
		t.Error(err)
	}
}

// TestNewRulesCutATunnel: a connection through the proxy ends when its rule does.
func TestNewRulesCutATunnel(t *testing.T) {
	p := tunneltest.New(t, false, false)
	l := newProxyLab(t, p, "", testRules{"good.test:22"})
	p.Route("good.test:22", tunneltest.Serve(t, func(c net.Conn) {
		_, _ = io.WriteString(c, "x")
		_, _ = io.Copy(io.Discard, c)
	}))
	c := l.mustDial("good.test", 22)
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	l.SetPolicy(testRules{"other.test:22"}.set())
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("it goes on")
	}
}

// TestGuestAndTheProxyItself: the proxy's own address is a target like any other.
func TestGuestAndTheProxyItself(t *testing.T) {
	p := tunneltest.New(t, false, false)
	l := newProxyLab(t, p, "", testRules{"good.test:443"})
	if _, err := l.dialAddr(netip.MustParseAddrPort(p.Addr)); !errors.Is(err, errRejected) {
		t.Error(err)
	}
	if got := p.Targets(); len(got) > 0 {
		t.Error(got)
	}
}
