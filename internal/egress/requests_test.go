package egress

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/net/http2"

	"bawn.dev/bawn/internal/egress/audit"
	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/secret"
)

// requestServer notes the requests that it gets, as METHOD PATH.
type requestServer struct {
	*counter
	mu  sync.Mutex
	got []string
}

func newRequestServer(t *testing.T, useTLS bool) *requestServer {
	s := &requestServer{}
	s.counter = newCounter(t, useTLS, func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.got = append(s.got, r.Method+" "+r.RequestURI)
		s.mu.Unlock()
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, "hello")
	})
	return s
}

func (s *requestServer) seen() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.got, "\n")
}

// rulesFrom compiles lines of a file of rules.
func rulesFrom(t *testing.T, lines ...string) *policy.Set {
	t.Helper()
	rules, err := policy.ParseFile("test", []byte(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return policy.Compile(rules)
}

// newRequestLab is a lab without secrets in which example.com is served.
func newRequestLab(t *testing.T, rules ...string) (l *lab, server *requestServer, authority *x509.CertPool) {
	server = newRequestServer(t, true)
	l, authority = newInspectedLab(t, &secrets{list: []secret.Bound{}}, server.counter, nil)
	l.SetPolicy(rulesFrom(t, rules...))
	for _, port := range []string{"443", "9443"} {
		l.serve("example.com", "203.0.113.7:"+port, server.addr())
	}
	return l, server, authority
}

// do sends one request and returns the status and the body of its answer.
func do(t *testing.T, c *http.Client, method, url string, header ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return answered(t, res)
}

// TestRequestRulesOverTLS: each request is judged on one kept connection of HTTP/2, and answered
// with the rule that is missing; the log has it with its method, path and status.
func TestRequestRulesOverTLS(t *testing.T) {
	for _, port := range []string{"443", "9443"} {
		base := "https://example.com:" + port
		l, server, authority := newRequestLab(t, "allow GET,POST "+base+"/v1/**", "deny "+base+"/v1/admin/**")
		c := l.trusting(authority)
		for _, step := range []struct {
			method, path string
			header       []string
			status       int
			say          string
		}{
			{"GET", "/v1/models?key=hidden", nil, 202, "hello"},
			{"DELETE", "/v1/models", nil, 403, "bawn policy allow 'DELETE https://example.com"},
			{"GET", "/v1/admin/users", nil, 403, "denies it"},
			{"GET", "/v1/%61dmin/users", nil, 403, "denies it"},
			{"GET", "/v1/%2e%2e/x", nil, 400, "different ways"},
			{"GET", "/v1//x", nil, 400, "different ways"},
			{"GET", "/v1/x%5cy", nil, 400, "different ways"},
			{"GET", "/v1/..;/admin", nil, 400, "different ways"},
			{"POST", "/v1/x", []string{"X-HTTP-Method-Override", "DELETE"}, 403, "DELETE"},
			{"POST", "/v1/x?_method=delete", nil, 403, "delete"},
			{"POST", "/v1/x?%5fmethod=PUT", nil, 403, "PUT"},
			{"GET", "/v1/x", []string{"X-Original-URL", "/v1/admin"}, 403, "x-original-url"},
			{"POST", "/v1/x?method=delete", nil, 403, "delete"},
			{"POST", "/v1/x?%24httpMethod=PUT", nil, 403, "PUT"},
			{"POST", "/v1/x", []string{"X-Tunneled-Method", "PATCH"}, 403, "PATCH"},
			{"POST", "/v1/x", []string{"X-Original-URI", "/v1/admin"}, 403, "x-original-uri"},
			{"POST", "/v1/x", []string{"X_Forwarded_Path", "/v1/admin"}, 403, "x-forwarded-path"},
			{"GET", "/v1/x", []string{"X-OriginalURL", "/v1/admin"}, 403, "x-originalurl"},
			{"GET", "/v1/x", []string{"X-Matched-Path", "/v1/admin"}, 403, "x-matched-path"},
			{"GET", "/v1/x", []string{"X-Waws-Unencoded-Url", "/v1/admin"}, 403, "x-waws-unencoded-url"},
			{"GET", "/v1/x", []string{"X-Forward-Uri", "/v1/admin"}, 403, "x-forward-uri"},
			{"GET", "/v1/x", []string{"Path-Info", "/v1/admin"}, 403, "path-info"},
			{"GET", "/v1/x", []string{"X-Accel-Mapping", "/=/"}, 403, "x-accel-mapping"},
			{"POST", "/v1/x", []string{"Destination", base + "/v1/admin/y"}, 403, "destination"},
			{"POST", "/v1/x", []string{"X-Amz-Copy-Source", "/other/secret"}, 403, "x-amz-copy-source"},
			{"GET", "/v1/last?method=rpc.delete", []string{"X-Method-Override", "POST", "Access-Control-Request-Method", "DELETE", "X-Request-Id", "1", "Hx-Current-Url", "/"}, 202, "hello"},
		} {
			status, body := do(t, c, step.method, base+step.path, step.header...)
			if status != step.status || !strings.Contains(body, step.say) {
				t.Errorf("%s %s: %d %s", step.method, step.path, status, body)
			}
		}
		if got := server.seen(); got != "GET /v1/models?key=hidden\nGET /v1/last?method=rpc.delete" || server.conns.Load() != 1 {
			t.Errorf("the server got %q over %d connections", got, server.conns.Load())
		}
		if d := l.Denials(); len(d) == 0 || !strings.Contains(d[len(d)-1].Text(), "DELETE example.com:"+port+"/v1/models") {
			t.Errorf("%+v", d)
		}
		l.Close()
		var allowed, denied []string
		for _, e := range readAll(t, l.path) {
			line := fmt.Sprintf("%s %s %d", e.Method, e.Path, e.Status)
			switch {
			case e.Event == audit.EventRequest && e.Got == 5 && e.Name == "example.com" && strings.HasPrefix(e.Rule, "allow GET,POST"):
				allowed = append(allowed, line)
			case e.Method != "" && e.Verdict == audit.Denied:
				denied = append(denied, line)
			}
			if strings.Contains(e.Text("allow"), "hidden") {
				t.Errorf("a query is logged: %+v", e)
			}
		}
		if strings.Join(allowed, ", ") != "GET /v1/models 202, GET /v1/last 202" || len(denied) != 24 || denied[0] != "DELETE /v1/models 403" || denied[3] != "GET /v1/%2e%2e/x 400" {
			t.Errorf("log: %q, %q", allowed, denied)
		}
	}
}

// TestAttackRequestTargets: heads that a client of HTTP/1 writes by hand. The server sees none of
// what no rule allows, and what it sees is what was judged.
func TestAttackRequestTargets(t *testing.T) {
	for head, status := range map[string]string{
		"GET /v1/../admin HTTP/1.1\r\nHost: example.com":                       "400",
		"GET /v1\\..\\admin HTTP/1.1\r\nHost: example.com":                     "400",
		"GET //example.com/admin HTTP/1.1\r\nHost: example.com":                "400",
		"GET https://example.com/admin HTTP/1.1\r\nHost: example.com":          "403",
		"GET https://example.com/v1/../admin HTTP/1.1\r\nHost: example.com":    "400",
		"GET https://other.test/v1/x HTTP/1.1\r\nHost: example.com":            "403",
		"GET https:/admin HTTP/1.1\r\nHost: example.com":                       "403",
		"GET https:admin HTTP/1.1\r\nHost: example.com":                        "400",
		"GET /v1/x HTTP/1.1\r\nHost: other.test":                               "403",
		"GET /v1/x HTTP/1.1\r\nHost: example.com\r\nHost: other.test":          "400",
		"GET /v1/x#/../admin HTTP/1.1\r\nHost: example.com":                    "400",
		"OPTIONS * HTTP/1.1\r\nHost: example.com":                              "200", // answered by bawn
		"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443":            "403",
		"GET /admin?/v1/x HTTP/1.1\r\nHost: example.com":                       "403",
		"get /v1/x HTTP/1.1\r\nHost: example.com":                              "403",
		"GET /v1/x HTTP/1.1\r\nHost: example.com\r\nX_HTTP_Method_Override: P": "403",
	} {
		l, server, authority := newRequestLab(t, "allow GET https://example.com/v1/**")
		raw := l.mustDial("example.com", 443)
		c := tls.Client(raw, &tls.Config{ServerName: "example.com", RootCAs: authority, NextProtos: []string{"http/1.1"}})
		if _, err := io.WriteString(c, head+"\r\nConnection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		answer, _ := io.ReadAll(c)
		if !strings.HasPrefix(string(answer), "HTTP/1.1 "+status) || server.seen() != "" {
			t.Errorf("%q: %.200q, the server got %q", head, answer, server.seen())
		}
		raw.Close()
	}
}

// TestAttackSmuggledRequest: a second request in the body of one that is allowed is no request for the
// server.
func TestAttackSmuggledRequest(t *testing.T) {
	hidden := "GET /admin HTTP/1.1\r\nHost: example.com\r\n\r\n"
	for _, head := range []string{
		"POST /v1/x HTTP/1.1\r\nHost: example.com\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
		"POST /v1/x HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + hidden,
		"POST /v1/x HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n" + hidden,
		fmt.Sprintf("GET /v1/x HTTP/1.1\r\nHost: example.com\r\nContent-Length: %d\r\n\r\n%s", len(hidden), hidden),
		"POST /v1/x HTTP/1.1\r\nHost: example.com\r\n\r\n" + hidden,
	} {
		l, server, authority := newRequestLab(t, "allow https://example.com/v1/**")
		raw := l.mustDial("example.com", 443)
		c := tls.Client(raw, &tls.Config{ServerName: "example.com", RootCAs: authority, NextProtos: []string{"http/1.1"}})
		if _, err := io.WriteString(c, head); err != nil {
			t.Fatal(err)
		}
		_ = c.CloseWrite()
		_, _ = io.Copy(io.Discard, c)
		if strings.Contains(server.seen(), "/admin") {
			t.Errorf("%q: the server got %q", head, server.seen())
		}
		raw.Close()
	}
}

// TestAttackHTTP2Paths: the pseudo-fields of a client that writes frames by hand.
func TestAttackHTTP2Paths(t *testing.T) {
	for _, fields := range [][]string{
		{":method", "GET", ":scheme", "https", ":path", "/v1/../admin", ":authority", "example.com"},
		{":method", "GET", ":scheme", "https", ":path", "/admin", ":authority", "example.com"},
		{":method", "GET", ":scheme", "https", ":path", "https://example.com/admin", ":authority", "example.com"},
		{":method", "GET", ":scheme", "https", ":path", "admin", ":authority", "example.com"},
		{":method", "GET", ":scheme", "https", ":path", "*", ":authority", "example.com"},
		{":method", "GET", ":scheme", "https", ":path", "", ":authority", "example.com"},
		{":method", "GET", ":scheme", "https", ":path", "/v1/x", ":authority", "other.test"}, // coalesced with another host
		{":method", "GET", ":scheme", "https", ":path", "/v1/x", ":authority", "example.com", "host", "other.test", "x-original-url", "/"},
		{":method", "GET /admin HTTP/1.1", ":scheme", "https", ":path", "/v1/x", ":authority", "example.com"},
		{":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":path", "/v1/x", ":authority", "example.com"},
	} {
		l, server, authority := newRequestLab(t, "allow GET https://example.com/v1/**")
		raw := l.mustDial("example.com", 443)
		c := tls.Client(raw, &tls.Config{ServerName: "example.com", RootCAs: authority, NextProtos: []string{"h2"}})
		if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		fr := http2.NewFramer(&out, c)
		_ = fr.WriteSettings()
		out.Write(headersFrame(1, true, fields...))
		if _, err := c.Write(out.Bytes()); err != nil {
			t.Fatal(err)
		}
		for { // until the stream is answered or the connection ends
			f, err := fr.ReadFrame()
			if err != nil || f.Header().StreamID == 1 {
				break
			}
		}
		if server.seen() != "" {
			t.Errorf("%q: the server got %q", fields, server.seen())
		}
		raw.Close()
	}
}

// TestRequestRulesInTheClear: HTTP/1 and HTTP/2 without TLS, on port 80 and on another, on kept
// connections.
func TestRequestRulesInTheClear(t *testing.T) {
	for _, port := range []string{"80", "8080"} {
		server := newRequestServer(t, false)
		base := "http://plain.test:" + port
		l := newLab(t, nil)
		l.SetPolicy(rulesFrom(t, "allow GET "+base+"/v1/**", "deny "+base+"/v1/admin/**"))
		l.serve("plain.test", "203.0.113.8:"+port, server.addr())
		for _, step := range []struct {
			method, path string
			status       int
			say          string
		}{
			{"GET", "/v1/x?q=1", 202, "hello"},
			{"GET", "/v1/admin", 403, "denies it"},
			{"PUT", "/v1/x", 403, "bawn policy allow 'PUT http://plain.test"},
			{"GET", "/v1/a%2f..%2fadmin", 400, "different ways"},
			{"GET", "/v1/y", 202, "hello"},
		} {
			if status, body := do(t, l.client(), step.method, base+step.path); status != step.status || !strings.Contains(body, step.say) {
				t.Errorf("%s %s: %d %s", step.method, step.path, status, body)
			}
		}
		var h2c http.Protocols
		h2c.SetUnencryptedHTTP2(true)
		c := l.client()
		c.Transport.(*http.Transport).Protocols = &h2c
		if status, _ := do(t, c, "GET", base+"/v1/z"); status != 202 {
			t.Errorf("HTTP/2: %d", status)
		}
		if status, _ := do(t, c, "DELETE", base+"/v1/z"); status != 403 {
			t.Errorf("HTTP/2: %d", status)
		}
		if got := server.seen(); got != "GET /v1/x?q=1\nGET /v1/y\nGET /v1/z" {
			t.Errorf("port %s: the server got %q", port, got)
		}
		// An absolute target is judged by its path, and nothing but HTTP passes.
		conn := l.mustDial("plain.test", map[string]uint16{"80": 80, "8080": 8080}[port])
		fmt.Fprintf(conn, "GET %s/admin HTTP/1.1\r\nHost: plain.test:%s\r\n\r\n", base, port)
		if res, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || res.StatusCode != 403 {
			t.Errorf("absolute target: %v %v", res, err)
		}
		conn = l.mustDial("plain.test", map[string]uint16{"80": 80, "8080": 8080}[port])
		fmt.Fprint(conn, "\x00\x01 not HTTP\r\n\r\n")
		if b, _ := io.ReadAll(conn); len(b) != 0 {
			t.Errorf("other bytes are answered with %q", b)
		}
		l.Close()
		var list []string
		for _, e := range readAll(t, l.path) {
			if e.Event == audit.EventRequest {
				list = append(list, fmt.Sprintf("%s %s %d %d", e.Method, e.Path, e.Status, e.Got))
			}
		}
		if strings.Join(list, ", ") != "GET /v1/x 202 5, GET /v1/y 202 5, GET /v1/z 0 0" {
			t.Errorf("log: %q", list)
		}
	}
}

// TestAttackUpgradeUnderRequestRules: only WebSocket is offered to a server whose requests are judged.
func TestAttackUpgradeUnderRequestRules(t *testing.T) {
	got := make(chan string, 1)
	server := newCounter(t, false, func(_ http.ResponseWriter, r *http.Request) {
		got <- r.Header.Get("Upgrade") + ", " + r.Header.Get("Connection")
	})
	l := newLab(t, nil)
	l.SetPolicy(rulesFrom(t, "allow http://plain.test/v1/**"))
	l.serve("plain.test", "203.0.113.8:80", server.addr())
	for offer, want := range map[string]string{"a-tunnel/1": ", ", "h2c, a-tunnel/1": ", ", "a-tunnel/1, WebSocket": "WebSocket, Upgrade"} {
		if status, body := do(t, l.client(), "GET", "http://plain.test/v1/x", "Connection", "Upgrade", "Upgrade", offer); status != 200 {
			t.Errorf("%s: %d %s", offer, status, body)
		}
		if seen := <-got; seen != want {
			t.Errorf("%s: the server was offered %q", offer, seen)
		}
	}
}

// TestWaysAroundRequestRules: by the address, over UDP, with raw:, on a connection that was open
// before the rule, as another protocol.
func TestWaysAroundRequestRules(t *testing.T) {
	l, server, authority := newRequestLab(t,
		"allow example.com:443,9443", "allow raw:example.com:443", "allow udp:example.com:443", "allow 203.0.113.0/24:443,9443", "deny https://example.com/admin",
		"deny https://example.com:9443/admin")
	if status, body := do(t, l.trusting(authority), "GET", "https://example.com/admin"); status != 403 {
		t.Errorf("with raw: %d %s", status, body)
	}
	before := server.conns.Load()
	c, err := l.dialAddr(netip.MustParseAddrPort("203.0.113.7:443"))
	if err != nil {
		t.Fatal(err)
	}
	if err := tls.Client(c, &tls.Config{ServerName: "example.com", RootCAs: authority}).HandshakeContext(t.Context()); err == nil || server.conns.Load() != before {
		t.Errorf("by its address: %v", err)
	}
	name, _ := netip.AddrFromSlice(l.ask("example.com.", dns.TypeA).Answer[0].(*dns.A).A.To4())
	if _, err := l.packets(netip.AddrPortFrom(name, 443)); err == nil {
		t.Error("over UDP")
	}
	conn := l.mustDial("example.com", 9443)
	fmt.Fprint(conn, "SSH-2.0-x\r\n\x00\x01\x02\x03")
	if b, _ := io.ReadAll(conn); len(b) != 0 || server.conns.Load() != before {
		t.Errorf("as another protocol: %q", b)
	}
}

// TestChangedRequestRulesCutRequests that are under way, and connections that were not inspected.
func TestChangedRequestRulesCutRequests(t *testing.T) {
	started := make(chan struct{}, 4)
	server := newCounter(t, true, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		started <- struct{}{}
		<-r.Context().Done()
	})
	l, authority := newInspectedLab(t, &secrets{list: []secret.Bound{}}, server, nil)
	l.serve("example.com", "203.0.113.7:443", server.addr())
	theirs := x509.NewCertPool()
	theirs.AddCert(server.Certificate())
	stream := func(roots *x509.CertPool) io.ReadCloser {
		r, _ := http.NewRequestWithContext(t.Context(), "GET", "https://example.com/v1/events", nil)
		res, err := l.trusting(roots).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		<-started
		return res.Body
	}
	l.SetPolicy(rulesFrom(t, "allow https://example.com/**"))
	body := stream(authority)
	l.SetPolicy(rulesFrom(t, "allow https://example.com/**", "deny https://example.com/v2/**")) // not about it
	l.SetPolicy(rulesFrom(t, "allow https://example.com/**", "deny https://example.com/v1/**"))
	if _, err := io.ReadAll(body); err == nil {
		t.Error("a request that is forbidden now ended as if it were whole")
	}
	l.SetPolicy(rulesFrom(t, "allow example.com"))
	body = stream(theirs)
	l.SetPolicy(rulesFrom(t, "allow example.com", "deny https://example.com/v1/**"))
	if _, err := io.ReadAll(body); err == nil {
		t.Error("a connection that was not inspected goes on")
	}
}

// TestRequestsWithoutInspector: what cannot be inspected does not pass.
func TestRequestsWithoutInspector(t *testing.T) {
	server := newRequestServer(t, true)
	l := newLab(t, nil)
	l.SetPolicy(rulesFrom(t, "allow example.com", "allow https://example.com/**"))
	l.serve("example.com", "203.0.113.7:443", server.addr())
	theirs := x509.NewCertPool()
	theirs.AddCert(server.Certificate())
	if _, err := l.trusting(theirs).Get("https://example.com/"); err == nil || server.conns.Load() != 0 {
		t.Error("it passed")
	}
}
