package inspect

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"bawn.dev/bawn/internal/login"
	"bawn.dev/bawn/internal/secret"
	"bawn.dev/bawn/internal/sys/accept"
	"bawn.dev/bawn/internal/tokens"
)

const (
	// clientTime bounds the TLS handshake with a client, the server's included.
	clientTime = time.Minute
	// headTime bounds how long the head of a request may take.
	headTime = time.Minute
	// idleTime ends a connection on which no request is under way. An answer may pause for
	// any time.
	idleTime = 10 * time.Minute
	// maxHead bounds the head of a request, in bytes.
	maxHead = 64 << 10
	// maxStreams bounds the requests that are under way on one connection of HTTP/2.
	maxStreams = 250
	// maxSessions bounds the inspected connections of a sandbox, and maxRequests the requests
	// that are under way on all of them.
	maxSessions = 512
	maxRequests = 2048
	// maxExcess bounds the requests beyond maxRequests that are answered with an error at a time.
	maxExcess = 64
	// maxUnread bounds what one connection of HTTP/2 holds for a peer that does not read, each
	// way, in bytes; maxUnreadUp of it what one request does.
	maxUnread   = 1 << 20
	maxUnreadUp = 256 << 10
	// copyBuffer is the buffer of each direction of a body, in bytes.
	copyBuffer = 32 << 10
)

// Bindings tells the secrets of a sandbox. It may run concurrently.
type Bindings interface {
	List() ([]secret.Bound, error)
}

// Config is what an Inspector works with.
type Config struct {
	Bindings Bindings
	// Logins are the logins of the sandbox's agents; nil: none.
	Logins *login.Sandbox
	// CA returns the authority. It is called for each connection, and may run concurrently.
	CA func(context.Context) (*CA, error)
	// Roots are those by which servers are verified; nil: the host's.
	Roots *x509.CertPool
}

// Inspector ends TLS for the hosts of one sandbox's secrets. Safe for concurrent use.
type Inspector struct {
	c        Config
	sent     sentValues
	issued   issued
	tokens   tokens.Ledger
	buffers  buffers
	sessions chan struct{} // a place for each connection
	requests chan struct{} // a place for each request
	excess   chan struct{} // a place for each answer to a request beyond them
	// exchanges has a place for each request for tokens.
	exchanges chan struct{}
	held      *semaphore.Weighted // bytes of the bodies that are held
	windows   windows
	work      chan struct{} // a place for each body that is being decoded at the moment
	times     times
}

// times are the deadlines of connections. Tests have shorter ones.
type times struct {
	client, head, idle, handshake time.Duration
}

// New returns an Inspector.
func New(c Config) *Inspector {
	return &Inspector{
		c: c, sent: sentValues{pause: chancePause},
		sessions: make(chan struct{}, maxSessions), requests: make(chan struct{}, maxRequests), excess: make(chan struct{}, maxExcess), exchanges: make(chan struct{}, maxExchanges), held: semaphore.NewWeighted(maxHeldBodies), windows: make(windows, maxWindows), work: make(chan struct{}, workers()),
		times: times{client: clientTime, head: headTime, idle: idleTime, handshake: handshakeTime},
	}
}

// workers returns how many bodies of requests are decoded at once. A few bytes can decode to thousands of times as many, each of
// which is looked at: half of the processors are left for others.
func workers() int { return max(1, runtime.GOMAXPROCS(0)/2) }

// Target is the server that a client wants, and how to reach and report it.
type Target struct {
	Name string
	Port uint16
	// Dial connects to the server, as the rules allow it now. It may be called several
	// times, concurrently.
	Dial func() (net.Conn, error)
	// Begin decides whether the rules allow a request, whose method and URL are those that are
	// sent on. It may run concurrently. nil: the rules allow every request.
	Begin func(r *http.Request) Admission
	// Refused logs why a request or an answer was refused. It may run concurrently.
	Refused func(reason string)
	// Fault logs what is wrong on the host with a request or a connection that is refused; Refused is called as well, with
	// what the guest may know of it. It may run concurrently.
	Fault func(reason string)
	// Explain returns the page about an error of Dial or of the connection, for the guest.
	Explain func(err error) (status int, page []byte)
	// Page returns the page about a refusal.
	Page func(status int, reason string) []byte
}

// Wants reports whether TLS to a host is ended here: some secret of the sandbox is for it, or a login,
// or agents get their tokens there. An error means that it is not known; the connection must not pass then.
func (i *Inspector) Wants(name string, port uint16) (bool, error) {
	list, err := i.bindings()
	if err != nil {
		return false, err
	}
	if at, err := i.endpoints(secret.Host{Name: name, Port: port}); err != nil || len(at) > 0 {
		return true, err
	}
	return slices.ContainsFunc(list, func(b secret.Bound) bool { return b.IsFor(name, port) }), nil
}

// host returns the host of a target.
func (t *Target) host() secret.Host { return secret.Host{Name: t.Name, Port: t.Port} }

// hostPort returns the authority of the server.
func (s *session) hostPort() string { return net.JoinHostPort(s.t.Name, portText(s.t.host())) }

// portText returns the port of a host.
func portText(h secret.Host) string { return strconv.Itoa(int(h.Port)) }

// session is one connection of a client.
type session struct {
	i     *Inspector
	t     Target
	up    *upstream
	proxy *httputil.ReverseProxy
	// transport sends requests to the server, of the guest by proxy and bawn's own (ask).
	transport *http.Transport

	mu      sync.Mutex
	known   map[string]bool // values that are found in answers, by Secret.Stored
	ended   bool
	running sync.WaitGroup // requests
}

// Serve serves a client that is about to send its ClientHello, which must name t.Name, until
// the connection or ctx ends. It closes conn and what it dialled.
func (i *Inspector) Serve(ctx context.Context, conn net.Conn, t Target) {
	defer conn.Close()
	select {
	case i.sessions <- struct{}{}:
		defer func() { <-i.sessions }()
	default:
		t.Refused(fmt.Sprintf("more than %d inspected connections", cap(i.sessions)))
		return
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	s := &session{i: i, t: t, up: &upstream{t: t, roots: i.c.Roots, times: i.times}, known: map[string]bool{}}
	defer s.up.close()
	client, err := s.handshake(ctx, conn)
	if err != nil {
		s.failed(err)
		return
	}
	s.transport = s.up.transport()
	defer s.transport.CloseIdleConnections()
	s.proxy = &httputil.ReverseProxy{
		Rewrite: s.rewrite, Transport: roundTripper(s.roundTrip),
		ErrorHandler: s.answerError, FlushInterval: -1, BufferPool: &i.buffers, ErrorLog: discard,
	}
	s.serve(ctx, client)
}

// discard takes the messages of net/http, which name what the guest sent.
var discard = log.New(io.Discard, "", 0)

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// roundTrip sends a request, and judges the answer as the server sent it: the proxy takes off what Connection says
// is for that connection only, which may be the content coding.
func (s *session) roundTrip(r *http.Request) (*http.Response, error) {
	res, err := s.transport.RoundTrip(s.informed(r))
	if err != nil {
		return nil, err
	}
	if err := s.answer(res); err != nil {
		res.Body.Close()
		return nil, err
	}
	return res, nil
}

// handshake dials the server, and then answers the client as the server did.
func (s *session) handshake(ctx context.Context, conn net.Conn) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.i.times.client)
	defer cancel()
	ca, err := s.i.c.CA(ctx)
	if err != nil {
		return nil, noAuthority(err)
	}
	leaf, err := ca.leaf(s.t.Name)
	if err != nil {
		return nil, noAuthority(err)
	}
	client := tls.Server(conn, &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if h.ServerName != s.t.Name {
			return nil, fmt.Errorf("the ClientHello names %.255q", h.ServerName)
		}
		offers := offered(h.SupportedProtos)
		s.up.start(h.Context(), offers)
		return &tls.Config{
			MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true,
			Certificates: []tls.Certificate{*leaf}, NextProtos: s.up.choice(offers),
		}, nil
	}})
	return client, client.HandshakeContext(ctx)
}

// noAuthority is the refusal of connections for which there is no certificate. err may name files of the host.
func noAuthority(err error) error {
	return &refusal{reason: "no certificate can be made: " + err.Error(), told: "bawn's certificates cannot be made on the host: bawn net log says there why"}
}

// offered returns the protocols of a ClientHello that bawn speaks, in the client's order.
func offered(protos []string) (list []string) {
	for _, p := range protos {
		if p == "h2" || p == "http/1.1" {
			list = append(list, p)
		}
	}
	return list
}

// choice returns the protocols that the client may be answered with: the server's, or if
// the server was not reached any, for the error page.
func (u *upstream) choice(offers []string) []string {
	switch {
	case u.err != nil:
		return offers
	case u.proto != "":
		return []string{u.proto}
	case slices.Contains(offers, "http/1.1"):
		return []string{"http/1.1"}
	}
	return nil
}

// failed logs why a handshake with the client failed, if that is of use to a person.
func (s *session) failed(err error) {
	var op *net.OpError
	var fault *refusal
	switch {
	case errors.As(err, &fault):
		s.note(fault.reason, cmp.Or(fault.told, fault.reason))
	case errors.As(err, &op) && op.Op == "remote error":
		s.t.Refused(fmt.Sprintf("the client refused bawn's certificate for %s (%v): it trusts it after a restart of the sandbox (bawn stop); a client with a list of its own never does", s.t.Name, op.Err))
	case errors.As(err, &op), errors.Is(err, io.EOF), errors.Is(err, context.Canceled), errors.Is(err, net.ErrClosed):
	default:
		s.t.Refused(fmt.Sprintf("the TLS handshake failed: %v", err))
	}
}

// serve answers the client's requests.
func (s *session) serve(ctx context.Context, client *tls.Conn) {
	l := accept.NewOne(client)
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	server := &http.Server{
		Handler: s, Protocols: &protocols, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerConnection: maxUnread, MaxReceiveBufferPerStream: maxUnreadUp},
		ReadHeaderTimeout: s.i.times.head, IdleTimeout: s.i.times.idle, MaxHeaderBytes: maxHead, ErrorLog: discard,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed || state == http.StateHijacked {
				l.Close()
			}
		},
	}
	_ = server.Serve(l) // ends when the connection does
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.running.Wait()
}

// ServeHTTP implements http.Handler.
func (s *session) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return
	}
	s.running.Add(1)
	s.mu.Unlock()
	defer s.running.Done()
	select {
	case s.i.requests <- struct{}{}:
		defer func() { <-s.i.requests }()
	default:
		s.tooMany(w)
		return
	}
	if s.up.err != nil {
		s.explain(w, s.up.err)
		return
	}
	c := &counted{ResponseWriter: w}
	w = c
	defer c.done()
	out, err := s.judge(r, c)
	if err != nil {
		s.refuse(w, err)
		return
	}
	if l := exchangeOf(out.Context()).login; l != nil {
		s.serveLogin(w, out, l)
		return
	}
	if err := s.confirm(out); err != nil {
		s.refuse(w, err)
		return
	}
	if r.ProtoMajor == 1 {
		// An answer may begin before the request has ended.
		_ = http.NewResponseController(w).EnableFullDuplex()
	}
	s.proxy.ServeHTTP(w, out)
}

// tooMany refuses a request beyond the bound. An answer waits until the client takes it, and the request's head with it: so
// few of them have one, and the others end without.
func (s *session) tooMany(w http.ResponseWriter) {
	why := unavailable("more than %d inspected requests at once", cap(s.i.requests))
	select {
	case s.i.excess <- struct{}{}:
		defer func() { <-s.i.excess }()
		s.refuse(w, why)
		_ = http.NewResponseController(w).Flush() // else it waits when the place is given back
	default:
		s.note(why.reason, why.reason)
		panic(http.ErrAbortHandler)
	}
}

// rewrite addresses a request to the server. What httputil changes beyond that is undone:
// the client meant what it wrote.
func (s *session) rewrite(p *httputil.ProxyRequest) {
	p.Out.URL.Scheme, p.Out.URL.Host = "https", s.hostPort()
	p.Out.Host = p.In.Host
	p.Out.URL.RawQuery = p.In.URL.RawQuery
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if v, ok := p.In.Header[name]; ok {
			p.Out.Header[name] = v
		}
	}
}

// answerError answers a request that got no answer.
func (s *session) answerError(w http.ResponseWriter, r *http.Request, err error) {
	if x := exchangeOf(r.Context()); x != nil {
		if x.login != nil {
			x.login.Close() // the guest may take as long as it likes to read
		}
		if why := x.refused.Load(); why != nil { // logged already
			s.page(w, why.status, s.t.Page(why.status, why.reason))
			return
		}
	}
	s.explain(w, err)
}

// explain answers a request that did not reach the server.
func (s *session) explain(w http.ResponseWriter, err error) {
	var invalid *tls.CertificateVerificationError
	if errors.As(err, &invalid) {
		reason := fmt.Sprintf("the certificate of %s is not valid: %v", s.t.Name, invalid.Err)
		s.page(w, http.StatusBadGateway, s.t.Page(http.StatusBadGateway, reason))
		return
	}
	status, page := s.t.Explain(err)
	s.page(w, status, page)
}

// refuse logs a refusal and answers with it.
func (s *session) refuse(w http.ResponseWriter, err error) {
	status, told := http.StatusForbidden, err.Error()
	var why *refusal
	if errors.As(err, &why) {
		status, told = why.status, cmp.Or(why.told, told)
	}
	if why != nil && why.answer != nil {
		write(w, why.answer)
		return
	}
	if why == nil || !why.logged {
		s.note(err.Error(), told)
	}
	s.page(w, status, s.t.Page(status, told))
}

// note logs a refusal, of which the guest is told less if told is another text.
func (s *session) note(reason, told string) {
	if told != reason {
		s.t.Fault(reason)
	}
	s.t.Refused(told)
}

// page answers with a text.
func (s *session) page(w http.ResponseWriter, status int, text []byte) {
	write(w, &Answer{status, textType, text})
}

// textType is the Content-Type of a page.
const textType = "text/plain; charset=utf-8"

// write answers with an answer of bawn's own.
func write(w http.ResponseWriter, a *Answer) {
	h := w.Header()
	h.Set("Content-Type", a.Type)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Bawn", "denied")
	h.Set("Content-Length", strconv.Itoa(len(a.Body)))
	w.WriteHeader(a.Status)
	_, _ = w.Write(a.Body)
}

// buffers are those of bodies.
type buffers struct{ pool sync.Pool }

// Get implements httputil.BufferPool.
func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[copyBuffer]byte); ok {
		return p[:]
	}
	return make([]byte, copyBuffer)
}

// Put implements httputil.BufferPool.
func (b *buffers) Put(p []byte) { b.pool.Put((*[copyBuffer]byte)(p)) }
