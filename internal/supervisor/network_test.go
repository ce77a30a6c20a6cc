package supervisor

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/egress"
	"bawn.dev/bawn/internal/egress/audit"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/supervisor/vm"
)

// request is a connection of a guest's.
type request struct {
	guest    net.Conn // the other end of what the gateway gets
	gateway  net.Conn
	accepted chan bool
}

func newRequest() *request {
	r := &request{accepted: make(chan bool, 1)}
	r.guest, r.gateway = net.Pipe()
	return r
}

func (r *request) Accept() (net.Conn, error) {
	r.accepted <- true
	return r.gateway, nil
}

func (r *request) Reject() {
	r.accepted <- false
	r.gateway.Close()
}

// policyPlace is a sandbox's network without a guest, a server of the host's that
// it may reach, and the client that bawn's verbs use.
func policyPlace(t testing.TB) (n *network, server netip.AddrPort, client *control.Client) {
	t.Helper()
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", "")
	d := store.Dir{Path: filepath.Join(home, "sandboxes", "box")} // as in a store
	if err := os.MkdirAll(d.Path, 0o700); err != nil {
		t.Fatal(err)
	}
	netLog, err := audit.Open(d.File(store.NetLogFile), 0)
	if err != nil {
		t.Fatal(err)
	}
	n = &network{dir: d, audit: netLog, log: slog.New(slog.DiscardHandler)}
	n.gate = egress.New(egress.Config{Pool4: vm.Pool4, Pool6: vm.Pool6, Log: netLog})
	t.Cleanup(n.close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); c.Close() }()
		}
	}()
	ctl, err := d.Listen(store.ControlSocket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: control.Handler(&supervisor{network: n}), ReadHeaderTimeout: time.Minute}
	t.Cleanup(func() { s.Close() })
	go func() { _ = s.Serve(ctl) }()
	return n, netip.MustParseAddrPort(l.Addr().String()), control.NewClient(d.DialControl)
}

// connect opens a connection through the gateway; nil when it is refused.
func connect(t testing.TB, n *network, to netip.AddrPort) net.Conn {
	t.Helper()
	r := newRequest()
	go n.gate.TCP(netip.MustParseAddrPort("192.0.2.2:40000"), to, r)
	if !<-r.accepted {
		return nil
	}
	t.Cleanup(func() { r.guest.Close() })
	if _, err := r.guest.Write([]byte("x\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r.guest, make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	return r.guest
}

func writeRules(t testing.TB, n *network, lines ...string) {
	t.Helper()
	if err := os.WriteFile(n.dir.File(store.PolicyFile), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// cut wants a connection to end by itself.
func cut(t testing.TB, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := c.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("the connection goes on: %v", err)
	}
}

// TestAChangeCutsWhatItForbids: of ten thousand rules and a hundred open connections, from the request
// until the last forbidden one is cut.
func TestAChangeCutsWhatItForbids(t *testing.T) {
	n, server, client := policyPlace(t)
	change(t, n, server, client)
	if connect(t, n, server) != nil {
		t.Error("a new connection passes")
	}
}

// BenchmarkChange measures the same.
func BenchmarkChange(b *testing.B) {
	n, server, client := policyPlace(b)
	var took time.Duration
	for b.Loop() {
		took += change(b, n, server, client)
	}
	b.ReportMetric(float64(took.Milliseconds())/float64(b.N), "ms/change")
}

// change denies a server to which a hundred connections are open, with ten thousand other rules, and returns
// how long it took until the last one was cut.
func change(t testing.TB, n *network, server netip.AddrPort, client *control.Client) time.Duration {
	t.Helper()
	var lines []string
	for i := range 10000 {
		lines = append(lines, fmt.Sprintf("allow **.zone%d.test:443", i))
	}
	lines = append(lines, "allow "+server.String())
	writeRules(t, n, lines...)
	if err := client.ReloadPolicy(t.Context()); err != nil {
		t.Fatal(err)
	}
	var open []net.Conn
	for range 100 {
		open = append(open, connect(t, n, server))
	}
	writeRules(t, n, append(lines, "deny "+server.String())...)
	start := time.Now()
	if err := client.ReloadPolicy(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range open {
		cut(t, c)
	}
	return time.Since(start)
}

// TestABrokenPolicyLetsNothingPass: not what passed before, not what is open.
func TestABrokenPolicyLetsNothingPass(t *testing.T) {
	n, server, client := policyPlace(t)
	good := "allow " + server.String()
	common := filepath.Join(os.Getenv("HOME"), ".config", "bawn", "policy")
	if err := os.MkdirAll(filepath.Dir(common), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(){
		"own":    func() { writeRules(t, n, good, "allow no..name") },
		"common": func() { _ = os.WriteFile(common, []byte("permit all\n"), 0o600) },
		"folder": func() { _ = os.Mkdir(common, 0o700) },
		"binary": func() { writeRules(t, n, good, "\x00\xff") },
	} {
		os.Remove(common)
		writeRules(t, n, good)
		if err := client.ReloadPolicy(t.Context()); err != nil {
			t.Fatal(err)
		}
		c := connect(t, n, server)
		if c == nil {
			t.Fatal("nothing passes with a good policy")
		}
		spoil()
		if err := client.ReloadPolicy(t.Context()); err == nil || !strings.Contains(err.Error(), "all network traffic is denied until this mistake is corrected") {
			t.Errorf("%s: %v", name, err)
		}
		cut(t, c)
		if connect(t, n, server) != nil {
			t.Errorf("%s: a connection passes", name)
		}
	}
}

// TestAllowedOnce: in force with the rules on disk, listed, and taken back.
func TestAllowedOnce(t *testing.T) {
	n, server, client := policyPlace(t)
	ctx := t.Context()
	if err := client.AllowOnce(ctx, "no..name"); err == nil {
		t.Error("a rule that makes no sense was taken")
	}
	for range 2 {
		if err := client.AllowOnce(ctx, server.String()); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := client.AllowedOnce(ctx); err != nil || len(list) != 1 || list[0] != server.String() {
		t.Errorf("%q, %v", list, err)
	}
	c := connect(t, n, server)
	if c == nil {
		t.Fatal("it does not pass")
	}
	writeRules(t, n, "allow other.test")
	if err := client.ReloadPolicy(ctx); err != nil || connect(t, n, server) == nil {
		t.Errorf("a change of other rules took it away: %v", err)
	}
	if err := client.ForgetOnce(ctx); err != nil {
		t.Fatal(err)
	}
	cut(t, c)
	if list, err := client.AllowedOnce(ctx); err != nil || len(list) != 0 {
		t.Errorf("%q, %v", list, err)
	}
}

// TestAPolicyEditedByHand takes effect by itself; one that makes no sense lets
// the network deny everything, until it is corrected.
func TestAPolicyEditedByHand(t *testing.T) {
	n, server, _ := policyPlace(t)
	var err error
	if n.files, err = n.watchRules(); err != nil {
		t.Fatal(err)
	}
	edit := func(what, line string) {
		t.Helper()
		writeRules(t, n, line)
		for limit := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			n.mu.Lock()
			failed, same := n.failed, len(n.loaded) == 1 && n.loaded[0].String() == line
			n.mu.Unlock()
			if failed == (what == "nonsense") && (failed || same) {
				return
			}
			if time.Now().After(limit) {
				t.Fatalf("%s: failed %v, loaded %v", what, failed, n.loaded)
			}
		}
	}
	good := "allow " + server.String()
	for range 2 {
		edit("a rule", good)
		c := connect(t, n, server)
		if c == nil {
			t.Fatal("it does not pass")
		}
		edit("nonsense", "permit all")
		cut(t, c)
		if connect(t, n, server) != nil {
			t.Error("a connection passes")
		}
	}
	edit("a rule", "deny other.test")
}

// TestAttackPolicyBehindALink: a policy of dotfiles is in force as it changes behind its link,
// and while the link leads nowhere nothing passes.
func TestAttackPolicyBehindALink(t *testing.T) {
	n, server, _ := policyPlace(t)
	dots := filepath.Join(t.TempDir(), "dots")
	target, link := filepath.Join(dots, "policy"), n.dir.File(store.PolicyFile)
	if err := errors.Join(os.Mkdir(dots, 0o700), os.WriteFile(target, []byte("allow "+server.String()+"\n"), 0o600), os.Symlink(target, link)); err != nil {
		t.Fatal(err)
	}
	var err error
	if n.files, err = n.watchRules(); err != nil {
		t.Fatal(err)
	}
	if err := n.reload(); err != nil {
		t.Fatal(err)
	}
	await := func(what string, failed bool, rule string) {
		t.Helper()
		for limit := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			n.mu.Lock()
			now, loaded := n.failed, len(n.loaded) == 1 && n.loaded[0].String() == rule
			n.mu.Unlock()
			if now == failed && (failed || loaded) {
				return
			}
			if time.Now().After(limit) {
				t.Fatal("not seen: ", what)
			}
		}
	}
	allow := "allow " + server.String()
	await("the target", false, allow)
	for range 2 {
		c := connect(t, n, server)
		if c == nil {
			t.Fatal("it does not pass")
		}
		if err := os.Rename(dots, dots+".away"); err != nil { // as an unmounted home
			t.Fatal(err)
		}
		await("a link that leads nowhere", true, "")
		cut(t, c)
		if connect(t, n, server) != nil {
			t.Error("a connection passes")
		}
		if err := os.Rename(dots+".away", dots); err != nil {
			t.Fatal(err)
		}
		await("the target that came back", false, allow)
	}
	c := connect(t, n, server)
	if err := os.WriteFile(target, []byte("deny **\n"), 0o600); err != nil || c == nil {
		t.Fatal(err, c)
	}
	await("the target that was written", false, "deny **")
	cut(t, c)
}
