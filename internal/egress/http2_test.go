package egress

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"bawn.dev/bawn/internal/egress/httpwire"
	"bawn.dev/bawn/internal/policy"
)

// appendFrame appends a frame as it stands on the wire, of any contents.
func appendFrame(b []byte, kind http2.FrameType, flags http2.Flags, stream uint32, payload ...[]byte) []byte {
	p := bytes.Join(payload, nil)
	b = append(b, byte(len(p)>>16), byte(len(p)>>8), byte(len(p)), byte(kind), byte(flags))
	return append(binary.BigEndian.AppendUint32(b, stream), p...)
}

// http2Client encodes what a client sends.
func http2Client(fields ...string) []byte {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		_ = enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return block.Bytes()
}

// pass runs frames through the check and returns what would go to the server.
func passHTTP2(f *flow, in []byte) ([]byte, error) {
	h := f.newHTTP2(nil)
	h.framed = false // there is no client to answer
	var out bytes.Buffer
	w := bufio.NewWriter(&out)
	r := bufio.NewReader(bytes.NewReader(in))
	var err error
	for err == nil {
		err = h.frame(w, r)
	}
	w.Flush()
	return out.Bytes(), err
}

func testFlow(t testing.TB) *flow {
	g := New(Config{Policy: testRules{"good.example:80"}.set(), Pool4: testPool4, Pool6: testPool6})
	t.Cleanup(g.Close)
	return &flow{g: g, to: policy.Flow{Name: "good.example", Port: 80, Proto: "tcp"}}
}

func TestHTTP2Frames(t *testing.T) {
	f := testFlow(t)
	good := http2Client(":method", "POST", ":scheme", "http", ":path", "/", ":authority", "good.example", "content-type", "application/grpc")
	evil := http2Client(":method", "POST", ":scheme", "http", ":path", "/", ":authority", "evil.example")
	both := http2Client(":method", "POST", ":scheme", "http", ":path", "/", ":authority", "good.example", "host", "evil.example")
	none := http2Client(":method", "POST", ":scheme", "http", ":path", "/")
	tunnel := http2Client(":method", "CONNECT", ":authority", "good.example:80")
	trailer := http2Client("grpc-status", "0")
	headers := func(stream uint32, flags http2.Flags, block []byte) []byte {
		return appendFrame(nil, http2.FrameHeaders, flags, stream, block)
	}
	padded := appendFrame(nil, http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersPadded|http2.FlagHeadersPriority, 1, []byte{3, 0, 0, 0, 0, 9}, good, []byte{0, 0, 0})
	split := append(headers(1, 0, good[:5]), appendFrame(nil, http2.FrameContinuation, http2.FlagHeadersEndHeaders, 1, good[5:])...)
	for name, in := range map[string][]byte{
		"request":     headers(1, http2.FlagHeadersEndHeaders, good),
		"padded":      padded,
		"split":       split,
		"with body":   append(headers(1, http2.FlagHeadersEndHeaders, good), appendFrame(nil, http2.FrameData, http2.FlagHeadersEndStream, 1, bytes.Repeat([]byte("x"), 100_000))...),
		"trailer":     append(headers(1, http2.FlagHeadersEndHeaders, good), headers(1, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, trailer)...),
		"other frame": appendFrame(nil, 0x8, 0, 0, []byte{0, 0, 1, 0}),
	} {
		out, err := passHTTP2(f, in)
		if !errors.Is(err, io.EOF) || !bytes.Equal(out, in) {
			t.Errorf("%s: %d of %d bytes passed, %v", name, len(out), len(in), err)
		}
	}
	for name, in := range map[string][]byte{
		"another authority": headers(1, http2.FlagHeadersEndHeaders, evil),
		"two authorities":   headers(1, http2.FlagHeadersEndHeaders, both),
		"none":              headers(1, http2.FlagHeadersEndHeaders, none),
		"CONNECT":           headers(1, http2.FlagHeadersEndHeaders, tunnel),
		"interrupted":       append(headers(1, 0, good[:5]), appendFrame(nil, http2.FrameData, 0, 1, []byte("x"))...),
		"other stream":      append(headers(1, 0, good[:5]), appendFrame(nil, http2.FrameContinuation, http2.FlagHeadersEndHeaders, 3, good[5:])...),
		"continuation":      appendFrame(nil, http2.FrameContinuation, http2.FlagHeadersEndHeaders, 1, good),
		"push":              appendFrame(nil, http2.FramePushPromise, http2.FlagHeadersEndHeaders, 1, good),
		"bad padding":       appendFrame(nil, http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersPadded, 1, []byte{200}, good),
		"bad index":         headers(1, http2.FlagHeadersEndHeaders, []byte{0xff, 0x7f}),
		"endless":           bytes.Repeat(append(headers(1, 0, good), appendFrame(nil, http2.FrameContinuation, 0, 1, good)...), 3000),
		"bomb":              headers(1, http2.FlagHeadersEndHeaders, append(http2Client("x", strings.Repeat("y", 4000)), bytes.Repeat([]byte{0xbe}, 1000)...)),
		"second evil":       append(headers(1, http2.FlagHeadersEndHeaders, good), headers(3, http2.FlagHeadersEndHeaders, evil)...),
	} {
		out, err := passHTTP2(f, in)
		var he *httpwire.Error
		if !errors.As(err, &he) || bytes.Contains(out, evil) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzHTTP2(f *testing.F) {
	good := http2Client(":method", "GET", ":scheme", "http", ":path", "/", ":authority", "good.example")
	f.Add(appendFrame(nil, http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, good))
	f.Add(append(appendFrame(nil, http2.FrameHeaders, 0, 1, good[:4]), appendFrame(nil, http2.FrameContinuation, http2.FlagHeadersEndHeaders, 1, good[4:])...))
	fl := testFlow(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := passHTTP2(fl, in)
		if err == nil || !bytes.HasPrefix(in, out) {
			t.Fatalf("%v; %x became %x", err, in, out)
		}
	})
}

func TestHTTP2Clear(t *testing.T) {
	l := newLab(t, testRules{"good.example:80", "good.example:50051"})
	s := newCounter(t, false, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s", r.Proto, r.Host, b)
	})
	for _, port := range []uint16{80, 50051} {
		l.serve("good.example", fmt.Sprintf("203.0.113.1:%d", port), s.addr())
		//nolint:staticcheck // its successor speaks no HTTP/2 in the clear from the start on this connection
		tr := &http2.Transport{AllowHTTP: true, DialTLSContext: func(context.Context, string, string, *tls.Config) (net.Conn, error) {
			return l.dialName("good.example", port)
		}}
		defer tr.CloseIdleConnections() //nolint:staticcheck // as above
		c := &http.Client{Transport: tr}
		base := fmt.Sprintf("http://good.example:%d/", port)
		for range 2 {
			r, err := c.Post(base, "text/plain", strings.NewReader("body"))
			if err != nil {
				t.Fatal(err)
			}
			if b, _ := io.ReadAll(r.Body); string(b) != fmt.Sprintf("HTTP/2.0 good.example:%d body", port) {
				t.Fatalf("%q", b)
			}
			r.Body.Close()
		}
		before := s.requests.Load()
		req, _ := http.NewRequest("GET", base, nil)
		req.Host = "other.example"
		r, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(r.Body)
		if r.StatusCode != 403 || !strings.Contains(string(b), "other.example") || s.requests.Load() != before {
			t.Fatalf("%d %q", r.StatusCode, b)
		}
		r.Body.Close()
	}
}
