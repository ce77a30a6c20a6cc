package inspect

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/net/http2"

	"bawn.dev/bawn/internal/secret"
)

// wideZstd returns the beginning of a frame of zstd that makes a decoder fill the largest window: some 2 KB.
func wideZstd(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	w, err := zstd.NewWriter(&b, zstd.WithWindowSize(maxWindow), zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 2*maxWindow)); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// TestAttackWindowsOfRequests: bodies of 2 KB that do not end make their decoders hold 8 MiB each. As many as there are
// requests would be 16 GiB of the host's memory.
func TestAttackWindowsOfRequests(t *testing.T) {
	const n = 4 * maxWindows
	p := newPlace(t, &seen{}, bothProtocols, bound(secret.Place{}))
	text, before := wideZstd(t), inUse()
	c := p.client("h2")
	var group sync.WaitGroup
	over, refused := make(chan struct{}), make(chan string, n)
	for range n {
		r, w := io.Pipe()
		group.Go(func() {
			res, err := c.Do(request(t, "POST", "/", r, "Content-Encoding", "zstd"))
			if err != nil {
				return // its body did not end
			}
			body, _ := io.ReadAll(res.Body)
			res.Body.Close()
			refused <- res.Status + string(body)
		})
		group.Go(func() {
			_, _ = io.WriteString(w, text)
			<-over
			w.CloseWithError(io.ErrClosedPipe)
		})
	}
	for range n - maxWindows {
		if said := <-refused; !strings.HasPrefix(said, "503") || !strings.Contains(said, "gzip") {
			t.Error(said)
		}
	}
	const others = 64 << 20 // connections and buffers
	if now := inUse(); now > before+maxWindows*(maxWindow+1<<20)+others {
		t.Errorf("%d MiB for %d bodies of %d bytes", (now-before)>>20, n, len(text))
	}
	close(over)
	group.Wait()
	eventually(t, "places stay taken", func() bool { return len(p.i.windows) == 0 })
	if res, body := p.do(c, request(t, "POST", "/", strings.NewReader(zstded("text")), "Content-Encoding", "zstd")); res.StatusCode != http.StatusOK {
		t.Error(res.Status, body)
	}
}

// TestAttackWindowsOfAnswers: the same by answers that the guest does not read to their end. A server is asked for zstd
// only where there is a place for it.
func TestAttackWindowsOfAnswers(t *testing.T) {
	const n = 4 * maxWindows
	text, over := wideZstd(t), make(chan struct{})
	p := newPlace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Accept-Encoding"), "zstd") && r.URL.Path != "/unasked" {
			_, _ = io.WriteString(w, "plain")
			return
		}
		w.Header().Set("Content-Encoding", "zstd")
		_, _ = io.WriteString(w, text)
		_ = http.NewResponseController(w).Flush()
		select {
		case <-over:
		case <-r.Context().Done():
		}
	}), bothProtocols, bound(secret.Place{}))
	before := inUse()
	var clients []*http.Client
	for range n / 32 { // each has a connection
		clients = append(clients, p.client("h2"))
	}
	plain := 0
	var open []io.Closer
	for i := range n {
		res, err := clients[i%len(clients)].Do(request(t, "GET", "/", nil, "Authorization", "Bearer "+standIn, "Accept-Encoding", "zstd, gzip"))
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, res.Body)
		if res.ContentLength == int64(len("plain")) {
			plain++
		}
	}
	if plain != n-maxWindows {
		t.Errorf("%d of %d answers came without zstd", plain, n)
	}
	if res, body := p.do(clients[0], request(t, "GET", "/unasked", nil, "Accept-Encoding", "zstd")); res.StatusCode != http.StatusBadGateway {
		t.Error(res.Status, body)
	}
	const others = 128 << 20 // connections, buffers and what the client has not read
	if now := inUse(); now > before+maxWindows*(maxWindow+1<<20)+others {
		t.Errorf("%d MiB for %d answers of %d bytes", (now-before)>>20, n, len(text))
	}
	for _, b := range open {
		b.Close()
	}
	eventually(t, "places stay taken", func() bool { return len(p.i.windows) == 0 })
	close(over)
}

// TestAttackDecodersOfRefusedRequests: a request that is refused after a decoder for its body was made leaves none.
func TestAttackDecodersOfRefusedRequests(t *testing.T) {
	server := awsServer()
	p := newPlace(t, server, bothProtocols, boundPair(secret.Place{}))
	var content bytes.Buffer // frames that are skipped make it long
	for content.Len() <= maxSignedBody {
		content.WriteString(zstded(strings.Repeat("x", 64<<10)))
		_, _ = content.Write([]byte("\x50\x2a\x4d\x18\x00\x00\x10\x00")) // a frame to be skipped, of 1 MiB
		_, _ = content.Write(make([]byte, 1<<20))
	}
	r := request(t, "PUT", "/b/k", &content, "Content-Encoding", "zstd")
	awsSign(t, r, thePair, "", "s3", "eu-central-1")
	if res, body := p.do(p.client("http/1.1"), r); res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Error(res.Status, body)
	}
	eventually(t, "decoders stay", func() bool { return len(p.i.windows) == 0 })
}

// TestAttackRefusedRequestsThatAreNotRead: requests beyond the bound are refused. A client that lets no answer come (HTTP/2,
// a window of 0 bytes) does not keep their heads in memory: 64 KiB for each of 250 on each of 512 connections would
// be 8 GiB.
func TestAttackRefusedRequestsThatAreNotRead(t *testing.T) {
	p := newPlace(t, &seen{}, bothProtocols, bound(secret.Place{}))
	p.i.requests = make(chan struct{}) // no place
	warm, _ := p.do(p.client("h2"), request(t, "GET", "/", nil))
	if warm.StatusCode != http.StatusServiceUnavailable {
		t.Error(warm.Status)
	}
	before := inUse()
	long := strings.Repeat("x", 50<<10)
	const connections = 2
	for i := range connections {
		c := p.dial(t, "h2")
		defer c.Close()
		f := startHTTP2(c, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		go func() { _, _ = io.Copy(io.Discard, c) }()
		for n := range uint32(maxStreams) {
			block := headBlock(":method", "GET", ":scheme", "https", ":authority", hostName, ":path", "/", "x-long", long[:len(long)-i]+strings.Repeat("y", i))
			err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*n + 1, BlockFragment: block[:10<<10], EndStream: true})
			for block = block[10<<10:]; len(block) > 0 && err == nil; {
				m := min(len(block), 10<<10)
				err = f.WriteContinuation(2*n+1, m == len(block), block[:m])
				block = block[m:]
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	time.Sleep(time.Second)
	eventually(t, "the heads of refused requests are held", func() bool { return inUse() < before+maxExcess*(128<<10)+(4<<20) })
}

// TestAttackBodiesForSecrets: bodies into which a secret is put are held until they are sent. All together are bounded, and
// a body of placeholders does not become one of many times as many bytes.
func TestAttackBodiesForSecrets(t *testing.T) {
	b := bound(secret.Place{Where: secret.InBody})
	b.Value = func(context.Context) (string, error) { return strings.Repeat("/", secret.MaxValue), nil }
	s := &seen{}
	p := newPlace(t, s, bothProtocols, b)
	c := p.client("h2")
	send := func(body string) (int, string) {
		res, page := p.do(c, request(t, "POST", "/", strings.NewReader(body), "Content-Type", "application/x-www-form-urlencoded"))
		return res.StatusCode, page
	}
	if status, page := send("a=" + strings.Repeat(standIn, 20_000)); status != http.StatusRequestEntityTooLarge {
		t.Error(status, page)
	}
	if status, page := send("a=" + standIn); status != http.StatusOK {
		t.Error(status, page)
	}
	eventually(t, "room stays taken", func() bool {
		ok := p.i.held.TryAcquire(maxHeldBodies - 1<<10)
		return ok
	})
	if status, page := send("a=" + standIn); status != http.StatusServiceUnavailable || strings.Contains(page, "X-Amz") {
		t.Error(status, page)
	}
	if s.count() != 1 {
		t.Error(s.count(), "requests came")
	}
}

// TestAttackBodiesThatDecodeToMuch take the time of the host's processors: 64 KB of gzip take seconds. Few are decoded at a time, and
// other requests do not wait for them.
func TestAttackBodiesThatDecodeToMuch(t *testing.T) {
	p := newPlace(t, &seen{}, bothProtocols, bound(secret.Place{}))
	if cap(p.i.work) < 1 || cap(p.i.work) > max(1, runtime.NumCPU()/2) {
		t.Error(cap(p.i.work), "places")
	}
	for range cap(p.i.work) {
		p.i.work <- struct{}{}
	}
	c := p.client("h2")
	send := func(ctx context.Context, coding, body string) chan int {
		status := make(chan int, 1)
		go func() {
			res, err := c.Do(request(t, "POST", "/", strings.NewReader(body), "Content-Encoding", coding).WithContext(ctx))
			if err != nil {
				status <- 0
				return
			}
			res.Body.Close()
			status <- res.StatusCode
		}()
		return status
	}
	given, cancel := context.WithCancel(t.Context())
	up := send(given, "gzip", gzipped("text"))
	waits := send(t.Context(), "gzip", gzipped("text"))
	if status := <-send(t.Context(), "", "text"); status != http.StatusOK {
		t.Error("a plain request:", status)
	}
	select {
	case status := <-waits:
		t.Error("a body was decoded without a place:", status)
	case <-time.After(200 * time.Millisecond):
	}
	cancel()
	<-up
	eventually(t, "a request that was given up stays", func() bool { return len(p.i.requests) == 1 })
	for range cap(p.i.work) {
		<-p.i.work
	}
	if status := <-waits; status != http.StatusOK {
		t.Error("afterwards:", status)
	}
	if n := len(p.i.work); n > 0 {
		t.Error(n, "places stay taken")
	}
}

// TestDecodingThatIsEnded at any moment, as its request ends, leaves neither a reader that waits nor a place that is taken.
func TestDecodingThatIsEnded(t *testing.T) {
	i := New(Config{})
	pass := lookers{func([]byte, bool) *refusal { return nil }}
	text := []byte(gzipped(strings.Repeat("some text ", 1000)))
	for n := range 2000 {
		d, err := newDecodedScan("gzip", pass, i)
		if err != nil {
			t.Fatal(err)
		}
		over := make(chan struct{})
		go func() {
			defer close(over)
			for k := range text {
				if _, err := d.feed(text[k:k+1], k == len(text)-1); err != nil {
					return
				}
			}
		}()
		for range n % 50 {
			runtime.Gosched()
		}
		d.close()
		select {
		case <-over:
		case <-time.After(time.Minute):
			t.Fatal("a reader waits")
		}
		<-d.done
	}
	if len(i.work) > 0 {
		t.Error("places stay taken")
	}
}
