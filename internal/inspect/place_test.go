package inspect

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"bawn.dev/bawn/internal/secret"
)

// What the tests use: the value of the secret, what the guest has instead, and the host.
const (
	realValue = "sk-real-VALUE-0123456789abcdefghijkl/+="
	standIn   = "sk-stand1nABCDEFGHIJKLMNOPQRSTUVWXYZabc"
	elsewhere = "ghp_elsewhereElsewhereElsewhereElsewhere"
	hostName  = "api.example.test"
)

// testBindings is a list of secrets.
type testBindings struct {
	mu   sync.Mutex
	list []secret.Bound
	err  error
}

func (b *testBindings) List() ([]secret.Bound, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.list, b.err
}

// bound is a secret for hostName.
func bound(p secret.Place) secret.Bound {
	return secret.Bound{
		Secret:      secret.Secret{Name: "EXAMPLE_KEY", For: []secret.Host{{Name: hostName, Port: 443}}, Place: p},
		Placeholder: standIn,
		Value:       func(context.Context) (string, error) { return realValue, nil },
	}
}

// boundElsewhere is a secret for another host.
func boundElsewhere() secret.Bound {
	return secret.Bound{
		Secret: secret.Secret{Name: "OTHER_KEY", For: []secret.Host{{Name: "other.example.test", Port: 443}}}, Placeholder: elsewhere,
		Value: func(context.Context) (string, error) {
			return "", errors.New("asked for the value of the wrong secret")
		},
	}
}

// place is a client behind an Inspector, and a real server.
type place struct {
	t           testing.TB
	i           *Inspector
	bindings    *testBindings
	trusted     *x509.CertPool // of the client
	pem         []byte         // the same
	guest       net.Listener
	upstreamTLS *tls.Config // of the server
	stop        func()      // ends all connections, and waits for their ends

	mu      sync.Mutex
	refused []string
	dials   int
	server  string // its address
	serving sync.WaitGroup
}

// newPlace starts both. protos are what the server speaks.
func newPlace(t testing.TB, h http.Handler, protos []string, list ...secret.Bound) *place {
	t.Helper()
	return placeOf(t, h, protos, true, list...)
}

// placeOf is newPlace; the host trusts the server's certificate or not.
func placeOf(t testing.TB, h http.Handler, protos []string, valid bool, list ...secret.Bound) *place {
	t.Helper()
	worldCA, err := OpenCA(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := worldCA.leaf(hostName)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(h)
	server.EnableHTTP2 = false
	for _, p := range protos {
		server.EnableHTTP2 = server.EnableHTTP2 || p == "h2"
	}
	server.TLS = &tls.Config{Certificates: []tls.Certificate{*cert}, NextProtos: protos}
	server.Config.ErrorLog = discard
	server.StartTLS()
	t.Cleanup(server.Close)

	ours, err := OpenCA(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p := &place{t: t, upstreamTLS: server.TLS, bindings: &testBindings{list: list}, trusted: x509.NewCertPool()}
	p.trusted.AddCert(ours.cert)
	p.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ours.cert.Raw})
	roots := x509.NewCertPool()
	if valid {
		roots.AddCert(worldCA.cert)
	}
	p.i = New(Config{Bindings: p.bindings, CA: func(context.Context) (*CA, error) { return ours, nil }, Roots: roots})
	p.i.sent.pause = time.Minute // however slow this machine is
	p.serve(server.Listener.Addr().String())
	return p
}

// serve takes the guest's connections.
func (p *place) serve(upstream string) {
	p.server = upstream
	var err error
	if p.guest, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.serving.Go(func() {
		for {
			c, err := p.guest.Accept()
			if err != nil {
				return
			}
			p.serving.Go(func() { p.i.Serve(ctx, c, p.target(upstream)) })
		}
	})
	p.stop = func() {
		p.guest.Close()
		cancel()
		p.serving.Wait()
	}
	p.t.Cleanup(p.stop)
}

func (p *place) target(upstream string) Target {
	return Target{
		Name: hostName, Port: 443,
		Dial: func() (net.Conn, error) {
			p.mu.Lock()
			p.dials++
			p.mu.Unlock()
			return net.Dial("tcp", upstream)
		},
		Refused: func(reason string) {
			p.mu.Lock()
			p.refused = append(p.refused, reason)
			p.mu.Unlock()
		},
		Fault: func(reason string) {
			p.mu.Lock()
			p.refused = append(p.refused, reason)
			p.mu.Unlock()
		},
		Explain: func(err error) (int, []byte) {
			return http.StatusBadGateway, fmt.Append(nil, "the server was not reached: ", err)
		},
		Page: func(status int, reason string) []byte { return fmt.Appendf(nil, "bawn: %d: %s\n", status, reason) },
	}
}

// dialServer connects to the server, without the Inspector.
func (p *place) dialServer(ctx context.Context, _, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", p.server)
}

// log returns the refusals.
func (p *place) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.refused, "\n")
}

// client returns a client of the guest's that speaks only that protocol.
func (p *place) client(proto string) *http.Client {
	var protocols http.Protocols
	protocols.SetHTTP1(proto != "h2")
	protocols.SetHTTP2(proto == "h2")
	tr := &http.Transport{
		Protocols: &protocols, TLSClientConfig: &tls.Config{RootCAs: p.trusted}, DisableCompression: true, ExpectContinueTimeout: time.Minute,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", p.guest.Addr().String())
		},
	}
	p.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// dial opens a connection of the guest's, on which it speaks that protocol.
func (p *place) dial(t *testing.T, proto string) *tls.Conn {
	t.Helper()
	c, err := tls.Dial("tcp", p.guest.Addr().String(), &tls.Config{RootCAs: p.trusted, ServerName: hostName, NextProtos: []string{proto}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// startHTTP2 begins HTTP/2 on a connection of a client's.
func startHTTP2(c net.Conn, settings ...http2.Setting) *http2.Framer {
	_, _ = io.WriteString(c, http2.ClientPreface) // an error is one of the next read, too
	f := http2.NewFramer(c, c)
	_ = f.WriteSettings(settings...)
	return f
}

// headBlock encodes the fields of a head for HTTP/2: names, and a value behind each.
func headBlock(fields ...string) []byte {
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}) // to memory
	}
	return block.Bytes()
}

// do sends a request and returns the answer with its body.
func (p *place) do(c *http.Client, r *http.Request) (*http.Response, string) {
	p.t.Helper()
	res, err := c.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return res, string(b)
}

func request(t testing.TB, method, path string, body io.Reader, header ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "https://"+hostName+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

// seen records what a server got, and answers with 200.
type seen struct {
	mu    sync.Mutex
	heads []*http.Request
	body  []string
}

func (s *seen) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heads = append(s.heads, r)
	if err != nil {
		s.body = append(s.body, "cut:"+string(b))
		return
	}
	s.body = append(s.body, string(b))
}

func (s *seen) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.heads)
}

func (s *seen) last() (*http.Request, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heads[len(s.heads)-1], s.body[len(s.body)-1]
}

// everyProtocol runs a test over HTTP/1.1 and HTTP/2.
func everyProtocol(t *testing.T, f func(t *testing.T, proto string)) {
	for _, proto := range []string{"http/1.1", "h2"} {
		t.Run(proto, func(t *testing.T) { f(t, proto) })
	}
}

var bothProtocols = []string{"h2", "http/1.1"}
