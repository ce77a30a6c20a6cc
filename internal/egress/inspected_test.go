package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"bawn.dev/bawn/internal/egress/audit"
	"bawn.dev/bawn/internal/inspect"
	"bawn.dev/bawn/internal/secret"
	"bawn.dev/bawn/internal/tokens"
)

const (
	testSecret  = "sk-the-real-value-0123456789abcdefghij"
	testStandIn = "sk-0PlaceholderPlaceholderPlaceholder9"
)

// secrets are those of a test's sandbox.
type secrets struct {
	list []secret.Bound
	err  error
}

func (s *secrets) List() ([]secret.Bound, error) { return s.list, s.err }

// newInspectedLab is a lab with a secret for api.test; authority is the CA that the guest
// trusts.
func newInspectedLab(t *testing.T, s *secrets, server *counter, rules testRules) (l *lab, authority *x509.CertPool) {
	t.Helper()
	if s.list == nil {
		s.list = []secret.Bound{{
			Secret:      secret.Secret{Name: "EXAMPLE_KEY", For: []secret.Host{{Name: "example.com", Port: 443}, {Name: "example.com", Port: 9443}}},
			Placeholder: testStandIn,
			Value:       func(context.Context) (string, error) { return testSecret, nil },
		}}
	}
	state := t.TempDir()
	if _, err := inspect.OpenCA(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(state, "inspect-ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	authority = x509.NewCertPool()
	authority.AddCert(cert)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate()) // for example.com and *.example.com
	l = newLab(t, rules, func(c *Config) {
		c.Inspect = inspect.New(inspect.Config{Bindings: s, CA: func(ctx context.Context) (*inspect.CA, error) { return inspect.OpenCA(ctx, state) }, Roots: roots})
	})
	l.ca = filepath.Join(state, "inspect-ca.crt")
	return l, authority
}

// keyEcho answers with the credential that it got.
func keyEcho(got *[]string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		*got = append(*got, r.Header.Get("X-Api-Key"))
		_, _ = io.WriteString(w, "your key is "+r.Header.Get("X-Api-Key"))
	}
}

// trusting is a client of the guest's that trusts these authorities and no others.
func (l *lab) trusting(roots *x509.CertPool) *http.Client {
	c := l.client()
	c.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: roots}
	return c
}

// TestSecretIsPutInOnTheWayToItsHost: the server gets the value, the guest its placeholder, and
// the log says that the connection was inspected. Also where bawn dials first.
func TestSecretIsPutInOnTheWayToItsHost(t *testing.T) {
	for _, port := range []string{"443", "9443"} {
		var got []string
		server := newCounter(t, true, keyEcho(&got))
		l, authority := newInspectedLab(t, &secrets{}, server, testRules{"example.com:443", "example.com:9443"})
		l.serve("example.com", "203.0.113.7:"+port, server.addr())
		c := l.trusting(authority)
		for range 3 {
			r, _ := http.NewRequestWithContext(t.Context(), "GET", "https://example.com:"+port+"/", nil)
			r.Header.Set("X-Api-Key", testStandIn)
			res, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if res.StatusCode != 200 || string(body) != "your key is "+testStandIn || res.ProtoMajor != 2 {
				t.Errorf("port %s: %s %s", port, res.Status, body)
			}
		}
		if strings.Join(got, " ") != testSecret+" "+testSecret+" "+testSecret || server.conns.Load() != 1 {
			t.Errorf("port %s: the server got %q over %d connections", port, got, server.conns.Load())
		}
		l.Close()
		found := false
		for _, e := range readAll(t, l.path) {
			found = found || e.Event == audit.EventClose && e.App == "inspected" && e.Rule != "" && e.Sent > 0 && e.Got > 0
		}
		if b, _ := os.ReadFile(l.path); !found || strings.Contains(string(b), testSecret) || strings.Contains(string(b), testStandIn) {
			t.Errorf("port %s: the log is %s", port, b)
		}
	}
}

// TestTokensOfInspectedHosts are counted by host and port.
func TestTokensOfInspectedHosts(t *testing.T) {
	server := newCounter(t, true, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"usage":{"input_tokens":25,"output_tokens":7}}`)
	}))
	l, authority := newInspectedLab(t, &secrets{}, server, testRules{"example.com:443", "example.com:9443"})
	for _, port := range []string{"443", "9443"} {
		l.serve("example.com", "203.0.113.7:"+port, server.addr())
		res, err := l.trusting(authority).Post("https://example.com:"+port+"/v1/messages", "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	waitFor(t, "the sums", func() bool { return len(l.Tokens()) == 2 })
	took := tokens.Usage{Input: 25, Output: 7}
	want := []tokens.Total{{Host: "example.com", Requests: 1, Usage: took}, {Host: "example.com:9443", Requests: 1, Usage: took}}
	if got := l.Tokens(); !slices.Equal(got, want) {
		t.Errorf("%+v, not %+v", got, want)
	}
	if got := newLab(t, nil).Tokens(); got != nil {
		t.Errorf("without inspection: %+v", got)
	}
}

// TestOtherHostsAreNotInspected: their own certificate reaches the guest.
func TestOtherHostsAreNotInspected(t *testing.T) {
	var got []string
	server := newCounter(t, true, keyEcho(&got))
	l, authority := newInspectedLab(t, &secrets{}, server, testRules{"www.example.com:443", "example.com:443 raw"})
	l.serve("www.example.com", "203.0.113.7:443", server.addr())
	l.serve("example.com", "203.0.113.8:443", server.addr())
	theirs := x509.NewCertPool()
	theirs.AddCert(server.Certificate())
	for _, url := range []string{"https://www.example.com/", "https://example.com/"} { // the second has a raw: rule
		if status, body := get(t, l.trusting(theirs), url); status != 200 {
			t.Errorf("%s: %d %s", url, status, body)
		}
		if _, err := l.trusting(authority).Get(url); err == nil {
			t.Errorf("%s has a certificate of bawn's", url)
		}
	}
}

// TestRefusalsOfInspectedConnections are answers with the reason, and stand in the log.
func TestRefusalsOfInspectedConnections(t *testing.T) {
	var got []string
	server := newCounter(t, true, keyEcho(&got))
	l, authority := newInspectedLab(t, &secrets{}, server, testRules{"example.com:443"})
	l.serve("example.com", "203.0.113.7:443", server.addr())
	r, _ := http.NewRequestWithContext(t.Context(), "GET", "https://example.com/", nil)
	r.Header.Set("Authorization", "Bearer of-the-attacker")
	res, err := l.trusting(authority).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if res.StatusCode != 403 || res.Header.Get("X-Bawn") != "denied" || !strings.Contains(string(body), "other-credentials") || len(got) != 0 {
		t.Errorf("%s %s", res.Status, body)
	}
	if d := l.Denials(); len(d) != 1 || !strings.Contains(d[0].Reason, "Authorization") || strings.Contains(d[0].Reason, "attacker") {
		t.Errorf("%+v", d)
	}
}

// TestInspectionKeepsTheAddressFloor: a name with a secret may not lead into the host's or a
// private network any more than another.
func TestInspectionKeepsTheAddressFloor(t *testing.T) {
	server := newCounter(t, true, nil)
	for _, addr := range []string{"127.0.0.1", "10.1.2.3", "169.254.169.254"} {
		l, authority := newInspectedLab(t, &secrets{}, server, testRules{"example.com:443"})
		l.serve("example.com", addr+":443", server.addr())
		status, body := get(t, l.trusting(authority), "https://example.com/")
		if status != 403 || server.conns.Load() != 0 {
			t.Errorf("%s: %d %s", addr, status, body)
		}
	}
}

// TestWaysAroundTheInspection to a host with a secret: by its address, over UDP, without a
// list of secrets.
func TestWaysAroundTheInspection(t *testing.T) {
	server := newCounter(t, true, nil)
	s := &secrets{}
	l, authority := newInspectedLab(t, s, server, testRules{"example.com:443", "203.0.113.0/24:443", "udp example.com:443", "www.example.com:443"})
	l.serve("example.com", "203.0.113.7:443", server.addr())
	l.serve("www.example.com", "203.0.113.9:443", server.addr())
	c, err := l.dialAddr(netip.MustParseAddrPort("203.0.113.7:443"))
	if err != nil {
		t.Fatal(err)
	}
	if err := tls.Client(c, &tls.Config{ServerName: "example.com", RootCAs: authority}).HandshakeContext(t.Context()); err == nil || server.conns.Load() != 0 {
		t.Errorf("by its address: %v, %d", err, server.conns.Load())
	}
	name, _ := netip.AddrFromSlice(l.ask("example.com.", dns.TypeA).Answer[0].(*dns.A).A.To4())
	if _, err := l.packets(netip.AddrPortFrom(name, 443)); !errors.Is(err, errRejected) {
		t.Errorf("over UDP: %v", err)
	}
	s.err = errors.New("the list of secrets is damaged")
	if _, err := l.trusting(authority).Get("https://www.example.com/"); err == nil || server.conns.Load() != 0 {
		t.Error("it is not known which hosts have a secret, and one is reached")
	}
}

// TestRulesCutInspectedConnections in the middle of an answer, as they do others.
func TestRulesCutInspectedConnections(t *testing.T) {
	server := newCounter(t, true, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	l, authority := newInspectedLab(t, &secrets{}, server, testRules{"example.com:443"})
	l.serve("example.com", "203.0.113.7:443", server.addr())
	r, _ := http.NewRequestWithContext(t.Context(), "GET", "https://example.com/", nil)
	res, err := l.trusting(authority).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	l.SetPolicy(testRules{"other.test:443"}.set())
	if _, err := io.ReadAll(res.Body); err == nil {
		t.Error("the answer ended as if it were whole")
	}
}

// TestAttackOtherAccountInTheClear: a host with a secret is not reached in plain HTTP with another
// credential or the placeholder; plain requests pass.
func TestAttackOtherAccountInTheClear(t *testing.T) {
	server := newRequestServer(t, false)
	host := "plain.test"
	theirs := &secrets{list: []secret.Bound{{
		Secret: secret.Secret{Name: "EXAMPLE_KEY", For: []secret.Host{{Name: host, Port: 443}}}, Placeholder: testStandIn,
		Value: func(context.Context) (string, error) { return testSecret, nil },
	}}}
	l, _ := newInspectedLab(t, theirs, newCounter(t, true, nil), nil)
	l.SetPolicy(rulesFrom(t, "allow plain.test", "allow other.test"))
	l.serve(host, "203.0.113.8:80", server.addr())
	l.serve("other.test", "203.0.113.9:80", server.addr())
	var h2c http.Protocols
	h2c.SetUnencryptedHTTP2(true)
	for _, protocols := range []*http.Protocols{nil, &h2c} {
		for _, c := range []struct{ path, name, value string }{
			{"/", "Authorization", "Bearer of-the-attacker"},
			{"/", "X-Api-Key", testStandIn},
			{"/", "Cookie", "session=of-the-attacker"},
			{"/?api_key=of-the-attacker", "X-Plain", "1"},
			{"/?a=1;token=of-the-attacker-long", "X-Plain", "1"},
			{"/" + testStandIn, "X-Plain", "1"},
			{"/?q=" + testStandIn, "X-Plain", "1"},
			{"/", "Content-Type", "application/x-www-form-urlencoded"},
			{"/", "content-type", "Multipart/Form-Data; boundary=b"},
		} {
			client := l.client()
			client.Transport.(*http.Transport).Protocols = protocols
			if status, page := do(t, client, "GET", "http://"+host+c.path, c.name, c.value); status != 403 || strings.Contains(page, "attacker") {
				t.Errorf("%s, %s: %d %s", c.path, c.name, status, page)
			}
		}
	}
	if got := server.seen(); got != "" {
		t.Errorf("the server got %q", got)
	}
	if status, _ := do(t, l.client(), "GET", "http://"+host+"/index?page=1", "Accept", "text/html"); status != 202 {
		t.Errorf("without a credential: %d", status)
	}
	if status, _ := do(t, l.client(), "GET", "http://other.test/", "Authorization", "Bearer own"); status != 202 {
		t.Errorf("to a host without a secret: %d", status)
	}
}
