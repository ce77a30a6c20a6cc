package inspect

import (
	"bufio"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"bawn.dev/bawn/internal/secret"
)

// echo answers with what it got as a credential, in the way that the path says.
func echo(w http.ResponseWriter, r *http.Request) {
	_, v, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	j, _ := json.Marshal(map[string]string{"key": v})
	long := strings.Repeat("some text of no interest, ", 5000)
	switch r.URL.Path {
	case "/header":
		w.Header().Set("X-Echo", "got "+v)
		w.Header().Set("Set-Cookie", "session=of-the-secret")
		w.Header().Set("Alt-Svc", `h3=":8443"`)
	case "/name":
		w.Header().Set("X-Sk-Real", v)
	case "/redirect":
		http.Redirect(w, r, "https://elsewhere.example.test/?k="+url.QueryEscape(v), http.StatusFound)
	case "/error":
		http.Error(w, "bad key "+v, http.StatusUnauthorized)
	case "/json":
		_, _ = w.Write(j)
	case "/json-slashes":
		_, _ = io.WriteString(w, strings.ReplaceAll(string(j), "/", `\/`))
	case "/form":
		_, _ = io.WriteString(w, "k="+url.QueryEscape(v))
	case "/base64":
		_, _ = io.WriteString(w, base64.StdEncoding.EncodeToString([]byte("user:"+v)))
	case "/base64url":
		_, _ = io.WriteString(w, base64.RawURLEncoding.EncodeToString([]byte("us:"+v+"more")))
	case "/hex":
		_, _ = io.WriteString(w, hex.EncodeToString([]byte(v)))
	case "/gzip":
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = io.WriteString(w, gzipped(long+v+long))
	case "/deflate":
		w.Header().Set("Content-Encoding", "deflate")
		_, _ = io.WriteString(w, zlibbed(v))
	case "/zstd":
		w.Header().Set("Content-Encoding", "zstd")
		_, _ = io.WriteString(w, zstded(v))
	case "/split":
		for _, b := range []byte(long[:100] + v + long[:100]) {
			_, _ = w.Write([]byte{b})
			_ = http.NewResponseController(w).Flush()
		}
	case "/trailer":
		w.Header().Set("Trailer", "X-Known")
		_, _ = io.WriteString(w, "body")
		w.Header().Set("X-Known", v)
		w.Header().Set(http.TrailerPrefix+"X-Unknown", v)
		w.Header().Set(http.TrailerPrefix+"Set-Cookie", "session=of-the-secret")
		w.Header().Set(http.TrailerPrefix+"Alt-Svc", `h3=":8443"`)
	case "/members":
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = io.WriteString(w, gzipped(long+v[:9])+gzipped("")+gzipped(v[9:])+gzipped(long))
	case "/frames":
		w.Header().Set("Content-Encoding", "zstd")
		_, _ = io.WriteString(w, zstded(v[:9])+"\x50\x2a\x4d\x18\x04\x00\x00\x00skip"+zstded(v[9:]))
	case "/hints":
		w.Header().Set("Link", "<https://x.example/?"+v+">")
		w.Header().Set("Set-Cookie", "session=of-the-secret")
		w.Header().Set("Alt-Svc", `h3=":8443"`)
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
	case "/long":
		_, _ = io.WriteString(w, long+v+long+v)
	case "/many":
		_, _ = io.WriteString(w, v+v+v)
	}
}

// TestAnswersDoNotCarryTheValue in any part or encoding; the guest sees its placeholder.
func TestAnswersDoNotCarryTheValue(t *testing.T) {
	everyProtocol(t, func(t *testing.T, proto string) {
		p := newPlace(t, http.HandlerFunc(echo), bothProtocols, bound(secret.Place{}))
		real := []byte(realValue)
		for path, shows := range map[string]string{
			"/header": standIn, "/redirect": standIn, "/error": standIn, "/json": standIn, "/json-slashes": standIn, "/form": standIn, "/gzip": standIn, "/name": standIn,
			"/deflate": standIn, "/zstd": standIn, "/split": standIn, "/members": standIn, "/frames": standIn, "/trailer": standIn, "/long": standIn, "/many": standIn + standIn + standIn,
			"/base64": "AAAA", "/base64url": "AAAA", "/hex": "AAAA", "/hints": "",
		} {
			res, body := p.do(p.client(proto), request(t, "GET", path, nil, "Authorization", "Bearer "+standIn, "Accept-Encoding", "br, gzip, zstd;q=0.5"))
			all := fmt.Sprint(res.Header, res.Trailer, body)
			if !strings.Contains(all, shows) {
				t.Errorf("%s: %.300s", path, all)
			}
			for _, form := range append(escaped(realValue), encoded(real)...) {
				if strings.Contains(all, string(form)) {
					t.Errorf("%s: the guest sees the value as %s", path, form)
				}
			}
			if strings.Contains(all, "of-the-secret") || strings.Contains(all, "8443") {
				t.Errorf("%s: the guest gets a session of the secret's, or another way: %v", path, res.Header)
			}
		}
	})
}

// TestAnswerInUnknownCodingIsRefused for a host that a value was sent to.
func TestAnswerInUnknownCodingIsRefused(t *testing.T) {
	asked := make(chan string, 10)
	p := newPlace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Header.Get("Accept-Encoding")
		w.Header().Set("Content-Encoding", r.URL.Query().Get("coding"))
		_, _ = io.WriteString(w, "anything")
	}), bothProtocols, bound(secret.Place{}))
	for _, coding := range []string{"br", "gzip, br", "compress"} {
		res, body := p.do(p.client("h2"), request(t, "GET", "/?coding="+url.QueryEscape(coding), nil, "Authorization", "Bearer "+standIn, "Accept-Encoding", "br, compress"))
		if res.StatusCode != http.StatusBadGateway || strings.Contains(body, "anything") || p.log() == "" {
			t.Errorf("%s: %d %s", coding, res.StatusCode, body)
		}
		if a := <-asked; a != "identity" {
			t.Errorf("the server was asked for %q", a)
		}
	}
}

// TestValueThatWasSentBefore, by another process, is found in the answer to a request without
// any placeholder.
func TestValueThatWasSentBefore(t *testing.T) {
	p := newPlace(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "kept: "+realValue)
	}), bothProtocols, bound(secret.Place{}))
	if _, body := p.do(p.client("h2"), request(t, "GET", "/", nil)); body != "kept: "+standIn {
		t.Error(body)
	}
}

// TestInformationalAnswers (1xx) pass, without the value.
func TestInformationalAnswers(t *testing.T) {
	everyProtocol(t, func(t *testing.T, proto string) {
		p := newPlace(t, http.HandlerFunc(echo), bothProtocols, bound(secret.Place{}))
		got := make(chan string, 1)
		r := request(t, "GET", "/hints", nil, "Authorization", "Bearer "+standIn)
		res, _ := p.do(p.client(proto), r.WithContext(withHints(r.Context(), got)))
		if hints := <-got; res.StatusCode != 200 || !strings.Contains(hints, standIn) || strings.Contains(hints, "of-the-secret") || strings.Contains(hints, "8443") {
			t.Errorf("%d, %s", res.StatusCode, hints)
		}
	})
}

// TestStreams: events come as they are sent, while the request goes on; trailers follow.
func TestStreams(t *testing.T) {
	everyProtocol(t, func(t *testing.T, proto string) {
		p := newPlace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).EnableFullDuplex()
			w.Header().Set("Content-Type", "text/event-stream")
			w.Header().Set("Trailer", "Grpc-Status")
			_ = http.NewResponseController(w).Flush()
			for s := bufio.NewScanner(r.Body); s.Scan(); {
				fmt.Fprintf(w, "data: %s %s\n\n", s.Text(), r.Header.Get("Te"))
				_ = http.NewResponseController(w).Flush()
			}
			w.Header().Set("Grpc-Status", "0")
		}), bothProtocols, bound(secret.Place{}))
		in, out := io.Pipe()
		res, err := p.client(proto).Do(request(t, "POST", "/", in, "X-Api-Key", standIn, "Te", "trailers"))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		events := bufio.NewReader(res.Body)
		for i := range 20 { // each answer is read before the next word is sent
			fmt.Fprintf(out, "word-%d\n", i)
			line, err := events.ReadString('\n')
			if want := fmt.Sprintf("data: word-%d trailers\n", i); line != want || err != nil {
				t.Fatalf("%q, %v", line, err)
			}
			_, _ = events.ReadString('\n')
		}
		out.Close()
		if _, err := io.Copy(io.Discard, events); err != nil || res.Trailer.Get("Grpc-Status") != "0" {
			t.Error(err, res.Trailer)
		}
		if res.ProtoMajor == 2 != (proto == "h2") {
			t.Error(res.Proto)
		}
	})
}

// TestLargeUpload is not held: the server has its beginning before its end was written.
func TestLargeUpload(t *testing.T) {
	everyProtocol(t, func(t *testing.T, proto string) {
		const size = 12 << 20
		began := make(chan struct{})
		p := newPlace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var first [1]byte
			_, _ = io.ReadFull(r.Body, first[:])
			close(began)
			n, err := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, n+1, err)
		}), bothProtocols, bound(secret.Place{}))
		body := io.MultiReader(strings.NewReader("a"), waiting{began}, io.LimitReader(zeros{}, size))
		r := request(t, "PUT", "/", body, "Authorization", "Bearer "+standIn, "Expect", "100-continue")
		r.ContentLength = size + 1
		if res, got := p.do(p.client(proto), r); res.StatusCode != 200 || got != fmt.Sprint(size+1, nil) {
			t.Errorf("%d %s", res.StatusCode, got)
		}
	})
}

// waiting ends when the channel is closed.
type waiting struct{ until chan struct{} }

func (w waiting) Read([]byte) (int, error) { <-w.until; return 0, io.EOF }

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestExpectContinue: the body is not asked of the client before the server wants it.
func TestExpectContinue(t *testing.T) {
	p := newPlace(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
	}), bothProtocols, bound(secret.Place{}))
	read := false
	r := request(t, "PUT", "/", readerFunc(func([]byte) (int, error) { read = true; return 0, io.EOF }), "Authorization", "Bearer "+standIn, "Expect", "100-continue")
	r.ContentLength = 1 << 30
	if res, _ := p.do(p.client("http/1.1"), r); res.StatusCode != 413 || read {
		t.Error(res.StatusCode, read)
	}
}

// TestWebSocket passes both ways, and ends when the server sends the value back.
func TestWebSocket(t *testing.T) {
	p := newPlace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, CompressionMode: websocket.CompressionContextTakeover})
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if string(b) == "who am I?" {
				b = []byte(r.Header.Get("Authorization"))
			}
			if c.Write(r.Context(), kind, b) != nil {
				return
			}
		}
	}), bothProtocols, bound(secret.Place{}))
	c, res, err := websocket.Dial(t.Context(), "wss://"+hostName+"/", &websocket.DialOptions{
		HTTPClient: p.client("http/1.1"), HTTPHeader: http.Header{"Authorization": {"Bearer " + standIn}}, CompressionMode: websocket.CompressionContextTakeover,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if e := res.Header.Get("Sec-Websocket-Extensions"); e != "" {
		t.Error("compressed:", e)
	}
	for i := range 3 {
		if err := c.Write(t.Context(), websocket.MessageText, fmt.Appendf(nil, "message %d", i)); err != nil {
			t.Fatal(err)
		}
		if _, b, err := c.Read(t.Context()); string(b) != fmt.Sprintf("message %d", i) || err != nil {
			t.Fatalf("%q, %v", b, err)
		}
	}
	if err := c.Write(t.Context(), websocket.MessageText, []byte("who am I?")); err != nil {
		t.Fatal(err)
	}
	if _, b, err := c.Read(t.Context()); err == nil {
		t.Errorf("the guest got %q", b)
	}
	if !strings.Contains(p.log(), "after an upgrade") {
		t.Error(p.log())
	}
}

// TestProtocolOfTheServerIsKept: what client and server both speak is used.
func TestProtocolOfTheServerIsKept(t *testing.T) {
	for _, c := range []struct {
		server []string
		client string
		want   int // major version at the server; 0: the client fails, as it would there
	}{
		{bothProtocols, "h2", 2},
		{bothProtocols, "http/1.1", 1},
		{[]string{"http/1.1"}, "http/1.1", 1},
		{[]string{"http/1.1"}, "h2", 0},
		{nil, "http/1.1", 1},
	} {
		s := &seen{}
		p := newPlace(t, s, c.server, bound(secret.Place{}))
		res, err := p.client(c.client).Do(request(t, "GET", "/", nil))
		if err == nil {
			res.Body.Close()
		}
		if passed := err == nil && res.StatusCode == 200; passed != (c.want > 0) {
			t.Errorf("server %v, client %s: %v", c.server, c.client, err)
			continue
		}
		if c.want > 0 {
			if r, _ := s.last(); r.ProtoMajor != c.want || res.ProtoMajor != c.want {
				t.Errorf("server %v, client %s: %s and %s", c.server, c.client, r.Proto, res.Proto)
			}
		}
	}
}

// TestServerWithoutAValidCertificate gets no request; the guest is told why.
func TestServerWithoutAValidCertificate(t *testing.T) {
	everyProtocol(t, func(t *testing.T, proto string) {
		s := &seen{}
		p := placeOf(t, s, bothProtocols, false, bound(secret.Place{}))
		res, body := p.do(p.client(proto), request(t, "GET", "/", nil, "Authorization", "Bearer "+standIn))
		if res.StatusCode != http.StatusBadGateway || !strings.Contains(body, "certificate") || s.count() != 0 {
			t.Errorf("%d %s", res.StatusCode, body)
		}
	})
}

// TestClientThatDoesNotTrustTheAuthority is told of in the log.
func TestClientThatDoesNotTrustTheAuthority(t *testing.T) {
	p := newPlace(t, &seen{}, bothProtocols, bound(secret.Place{}))
	p.trusted = nil
	if _, err := p.client("h2").Do(request(t, "GET", "/", nil)); err == nil {
		t.Fatal("it connected")
	}
	p.guest.Close()
	p.serving.Wait()
	if !strings.Contains(p.log(), "bawn stop") {
		t.Error(p.log())
	}
}

// TestKeptConnection serves many requests, and dials again when the server has ended its
// side.
func TestKeptConnection(t *testing.T) {
	s := &seen{}
	p := newPlace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/last" {
			w.Header().Set("Connection", "close")
		}
		s.ServeHTTP(w, r)
	}), []string{"http/1.1"}, bound(secret.Place{}))
	c := p.client("http/1.1")
	for range 10 {
		p.do(c, request(t, "POST", "/", strings.NewReader("x"), "Authorization", "Bearer "+standIn))
	}
	if p.dials != 1 || s.count() != 10 {
		t.Errorf("%d dials for %d requests", p.dials, s.count())
	}
	p.do(c, request(t, "GET", "/last", nil))
	if res, _ := p.do(c, request(t, "GET", "/", nil)); res.StatusCode != 200 || p.dials != 2 {
		t.Errorf("%d, %d dials", res.StatusCode, p.dials)
	}
}

// TestRedirectIsNotFollowed by the gateway.
func TestRedirectIsNotFollowed(t *testing.T) {
	n := 0
	p := newPlace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n++
		http.Redirect(w, r, "/again", http.StatusTemporaryRedirect)
	}), bothProtocols, bound(secret.Place{}))
	if res, _ := p.do(p.client("h2"), request(t, "POST", "/", strings.NewReader("x"), "Authorization", "Bearer "+standIn)); res.StatusCode != 307 || n != 1 {
		t.Error(res.StatusCode, n)
	}
}

// TestServeEndsWithItsContext, also in the middle of an answer.
func TestServeEndsWithItsContext(t *testing.T) {
	everyProtocol(t, func(t *testing.T, proto string) {
		p := newPlace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}), bothProtocols, bound(secret.Place{}))
		res, err := p.client(proto).Do(request(t, "GET", "/", nil))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		p.stop() // returns when Serve has
		if _, err := io.ReadAll(res.Body); err == nil {
			t.Error("the answer was not cut")
		}
	})
}
