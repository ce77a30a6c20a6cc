package inspect

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"bawn.dev/bawn/internal/secret"
)

// testSwaps are those of the test's value.
func testSwaps() *swaps {
	s := newSwaps(swapsOf(realValue, standIn))
	s.guesses = &guesses{}
	return s
}

// free is how many characters of the value a guest may learn: those that the placeholder has too, and
// those that may be a chance.
func free() int { return countsFrom(realValue, standIn) - 1 }

// TestAttackGuessesInManyAnswers: answers that begin before the first guess are held back as well.
func TestAttackGuessesInManyAnswers(t *testing.T) {
	swaps := testSwaps()
	open := make([]stream, len(realValue))
	for i := range open {
		open[i] = newStream(swaps)
	}
	learned := 0
	for i := free(); i < len(realValue); i++ {
		s := &open[i]
		wrong, _ := s.feed(nil, []byte(realValue[:i]+"\x00"), false)
		right, _ := s.feed(nil, []byte(realValue[:i+1]), false)
		if len(wrong) == i+1 && len(right) <= i {
			learned++
		}
	}
	if learned > maxGuesses+1 {
		t.Errorf("the guest learns %d characters", learned)
	}
}

// TestAttackGuessesAtTheValue: a guest that sees its own text come back tries character after
// character, and takes what does not come at once for the right one.
func TestAttackGuessesAtTheValue(t *testing.T) {
	swaps := testSwaps()
	isHeld := func(text string) bool {
		s := newStream(swaps)
		out, _ := s.feed(nil, []byte(text), false)
		return len(out) < len(text)
	}
	known := realValue[:free()]
	for range realValue[free():] {
		var right []string
		for c := byte('!'); c < 0x7f; c++ {
			if isHeld(known + string(c)) {
				right = append(right, string(c))
			}
		}
		if len(right) != 1 {
			break // all look the same
		}
		known += right[0]
	}
	if len(known) > free()+maxGuesses+1 {
		t.Errorf("the guest learns %q", known)
	}
	// What is no guess passes, behind the bytes that are held, and the value is found.
	s := newStream(swaps)
	long := strings.Repeat("some text of no interest, ", 1000)
	out, _ := s.feed(nil, []byte(long), false)
	out, _ = s.feed(out, []byte(realValue), false)
	out, hits := s.feed(out, []byte("end"), true)
	if hits != 0 || string(out) != long+standIn+"end" {
		t.Errorf("%d, %.100q", hits, out[len(out)-100:])
	}
}

// TestValuesInPiecesAreNoGuesses: a server that sends the value byte by byte, time after time.
func TestValuesInPiecesAreNoGuesses(t *testing.T) {
	swaps := testSwaps()
	for range 3 * maxGuesses {
		s := newStream(swaps)
		var out []byte
		for i := range len(realValue) {
			out, _ = s.feed(out, []byte(realValue[i:i+1]), false)
		}
		if out, _ = s.feed(out, nil, true); string(out) != standIn {
			t.Fatalf("%q", out)
		}
	}
	if s := newStream(swaps); s.blind {
		t.Error("they were counted")
	}
}

// mixtures are forms of the value in which some characters are escaped, as frameworks do it.
func mixtures() map[string]string {
	replace := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(realValue) }
	j, _ := json.Marshal(realValue)
	return map[string]string{
		"plain": realValue, "JSON": string(j), "JSON of .NET": replace("+", `\u002B`), "JSON, slashes": replace("/", `\/`, "=", `\u003d`, "+", `\u002b`),
		"mustache": replace("/", "&#x2F;", "=", "&#x3D;"), "HTML names": replace("/", "&sol;", "+", "&plus;", "=", "&equals;"), "HTML decimal": replace("/", "&#47;", "-", "&#045;"),
		"URL of .NET": replace("/", "%2f", "+", "%2b", "=", "%3d"), "URL, all but letters": replace("-", "%2D", "/", "%2F", "+", "%2B", "=", "%3D"), "escape()": replace("-", "%u002d", "=", "%u003D"),
		"quoted-printable": replace("=", "=3D"), "string": replace("/", `\x2f`, "+", `\x2B`), "first escaped": "%73" + realValue[1:], "last escaped": realValue[:len(realValue)-1] + "&#61;",
		"upper": strings.ToUpper(realValue), "lower": strings.ToLower(realValue), "all \\u": everyByte(realValue, `\u%04x`), "all %": everyByte(realValue, "%%%02X"),
		"UTF-16": everyByte(realValue, "%c\x00"), "JSON in JSON": replace("/", `\\\/`, "+", `\\u002b`), "URL in a URL": replace("/", "%252F", "+", "%252B", "=", "%253D"),
		"URL of .NET in JSON": replace("/", `\u00252f`, "=", `\u00253d`), "HTML in HTML": replace("/", "&amp;#x2F;", "=", "&amp;#61;"), "JSON in HTML": replace("+", "&#92;u002B"),
	}
}

// TestAttackMixturesOfEscapes: in each, whole and in pieces, nothing of the value passes.
func TestAttackMixturesOfEscapes(t *testing.T) {
	for name, text := range mixtures() {
		for size := 1; size <= len(text); size++ {
			s := newStream(testSwaps())
			var out []byte
			hits := 0
			whole := "before " + text + " after"
			for at := 0; at < len(whole); at += size {
				var n int
				out, n = s.feed(out, []byte(whole[at:min(len(whole), at+size)]), false)
				hits += n
			}
			out, n := s.feed(out, nil, true)
			if hits += n; hits != 1 || bytes.Contains(out, []byte("23456789")) || !bytes.HasPrefix(out, []byte("before ")) || !bytes.HasSuffix(out, []byte(" after")) {
				t.Fatalf("%s, %d at once: %d, %q", name, size, hits, out)
			}
		}
	}
}

// TestAttackPausesInTheValue: where the server pauses, only what may be a chance passes.
func TestAttackPausesInTheValue(t *testing.T) {
	for cut := 1; cut < len(realValue); cut++ {
		s := newStream(testSwaps())
		s.swaps.pause = time.Nanosecond
		out, _ := s.feed(nil, []byte("before "+realValue[:cut]), false)
		if s.patience() > 0 {
			out = s.release(out)
		}
		if got := strings.TrimPrefix(string(out), "before "); len(got) > free() {
			t.Errorf("cut at %d: %q", cut, got)
		}
		out, _ = s.feed(out, []byte(realValue[cut:]+" after"), true)
		if got := strings.TrimPrefix(string(out), "before "); got[min(cut, free()):] != standIn[min(cut, free()):]+" after" {
			t.Errorf("cut at %d: %q", cut, got)
		}
	}
}

// TestConversationsGoOn when a message ends as the value begins: over a stream and over WebSocket.
func TestConversationsGoOn(t *testing.T) {
	messages := []string{"yes", realValue[:1], realValue[:free()], "\\", "50%", "a=", "s"}
	everyProtocol(t, func(t *testing.T, proto string) {
		p := newPlace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).EnableFullDuplex()
			_ = http.NewResponseController(w).Flush()
			for s := bufio.NewScanner(r.Body); s.Scan(); {
				_, _ = io.WriteString(w, s.Text())
				_ = http.NewResponseController(w).Flush()
			}
		}), bothProtocols, bound(secret.Place{}))
		p.i.sent.pause = time.Millisecond
		in, out := io.Pipe()
		res, err := p.client(proto).Do(request(t, "POST", "/", in, "X-Api-Key", standIn))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		for _, m := range messages {
			fmt.Fprintln(out, m)
			got := make([]byte, len(m))
			if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != m {
				t.Fatalf("%q: %q, %v", m, got, err)
			}
		}
		out.Close()
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Error(err)
		}
	})
	p := newPlace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, b) != nil {
				return
			}
		}
	}), bothProtocols, bound(secret.Place{}))
	p.i.sent.pause = time.Millisecond
	c, _, err := websocket.Dial(t.Context(), "wss://"+hostName+"/", &websocket.DialOptions{HTTPClient: p.client("http/1.1"), HTTPHeader: http.Header{"X-Api-Key": {standIn}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	for _, m := range messages {
		if err := c.Write(t.Context(), websocket.MessageText, []byte(m)); err != nil {
			t.Fatal(err)
		}
		if _, b, err := c.Read(t.Context()); string(b) != m || err != nil {
			t.Fatalf("%q: %q, %v", m, b, err)
		}
	}
}

// TestAttackValueInPiecesAfterAnUpgrade: the guest gets nothing of it but the end of the connection.
func TestAttackValueInPiecesAfterAnUpgrade(t *testing.T) {
	p := newPlace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := r.Header.Get("X-Api-Key")
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		if r.URL.Path == "/compressed" {
			w.Header().Set("Sec-Websocket-Extensions", "permessage-deflate")
		}
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		for i := range len(v) {
			_, _ = io.WriteString(conn, v[i:i+1])
		}
		_, _ = io.Copy(io.Discard, conn) // until the gateway ends it
	}), []string{"http/1.1"}, bound(secret.Place{}))
	for _, path := range []string{"/", "/compressed"} {
		raw := p.dial(t, "http/1.1")
		defer raw.Close()
		fmt.Fprintf(raw, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Api-Key: %s\r\n\r\n", path, hostName, standIn)
		if path == "/compressed" {
			if res, err := http.ReadResponse(bufio.NewReader(raw), nil); err != nil || res.StatusCode != 502 {
				t.Errorf("%v, %v", res, err)
			}
			continue
		}
		got, _ := io.ReadAll(raw)
		if _, frames, ok := bytes.Cut(got, []byte("\r\n\r\n")); !ok || len(frames) > free() || !bytes.HasPrefix(got, []byte("HTTP/1.1 101")) {
			t.Errorf("%.400q", got)
		}
	}
}

// TestAttackPartsOfAnAnswer: ranges of single bytes, parts that nobody asked for, the length of what is
// compressed beside a guess, and messages that are compressed by themselves.
func TestAttackPartsOfAnAnswer(t *testing.T) {
	everyProtocol(t, func(t *testing.T, proto string) {
		p := newPlace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			v := r.Header.Get("X-Api-Key")
			switch r.URL.Path {
			case "/ranges":
				http.ServeContent(w, r, "x.txt", time.Time{}, strings.NewReader("got "+v))
			case "/unasked":
				again := r.Clone(r.Context())
				again.Header.Set("Range", "bytes=4-6")
				http.ServeContent(w, again, "x.txt", time.Time{}, strings.NewReader("got "+v))
			case "/compressed":
				body := gzipped("got " + v + r.URL.RawQuery)
				w.Header().Set("Content-Encoding", "gzip")
				w.Header().Set("Content-Length", fmt.Sprint(len(body)))
				_, _ = io.WriteString(w, body)
			case "/grpc":
				w.Header().Set("Grpc-Encoding", "gzip")
				_, _ = io.WriteString(w, gzipped(v))
			}
		}), bothProtocols, bound(secret.Place{}))
		c := p.client(proto)
		for i := range len(realValue) {
			res, body := p.do(c, request(t, "GET", "/ranges", nil, "X-Api-Key", standIn, "Range", fmt.Sprintf("bytes=%d-%d", 4+i, 4+i), "If-Range", `"x"`))
			if res.StatusCode != 200 || body != "got "+standIn || res.Header.Get("Accept-Ranges") != "none" || res.ContentLength != int64(len(body)) {
				t.Fatalf("%d %q %v", res.StatusCode, body, res.Header)
			}
		}
		for _, path := range []string{"/unasked", "/grpc"} {
			if res, body := p.do(c, request(t, "GET", path, nil, "X-Api-Key", standIn)); res.StatusCode != 502 || p.log() == "" {
				t.Errorf("%s: %d %q", path, res.StatusCode, body)
			}
		}
		for _, method := range []string{"HEAD", "GET"} {
			res, _ := p.do(c, request(t, method, "/compressed?"+realValue[:20], nil, "X-Api-Key", standIn, "Accept-Encoding", "gzip"))
			if res.StatusCode != 200 || res.Header.Get("Content-Encoding") != "" || method == "HEAD" && res.ContentLength >= 0 {
				t.Errorf("%s: %d %v", method, res.StatusCode, res.Header)
			}
		}
	})
	// Without a secret for the host, ranges are the guest's own business.
	p := newPlace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "x.txt", time.Time{}, strings.NewReader("0123456789"))
	}), bothProtocols, boundElsewhere())
	if res, body := p.do(p.client("h2"), request(t, "GET", "/", nil, "Range", "bytes=2-3")); res.StatusCode != 206 || body != "23" {
		t.Errorf("%d %q", res.StatusCode, body)
	}
}

// TestServeEndsWhileABeginningWaits: the read that was not waited for ends with the answer.
func TestServeEndsWhileABeginningWaits(t *testing.T) {
	everyProtocol(t, func(t *testing.T, proto string) {
		p := newPlace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, realValue[:1])
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}), bothProtocols, bound(secret.Place{}))
		p.i.sent.pause = time.Millisecond
		res, err := p.client(proto).Do(request(t, "GET", "/", nil, "X-Api-Key", standIn))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if _, err := io.ReadFull(res.Body, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		p.stop() // returns when Serve has
		if _, err := io.ReadAll(res.Body); err == nil {
			t.Error("the answer was not cut")
		}
	})
}

// TestChangedValues: a command's output that is another one each time does not fill the list of values that
// are looked for; the last ones, and those of other secrets, stay.
func TestChangedValues(t *testing.T) {
	var sent sentValues
	h := secret.Host{Name: hostName, Port: 443}
	sent.add(h, "the-value-of-another-secret", elsewhere)
	for i := range 100 {
		sent.add(h, fmt.Sprintf("value-%08d-of-the-command", i), standIn)
	}
	if n := len(sent.byHost[h]); n != maxChanged+1 {
		t.Errorf("%d values", n)
	}
	out, hits := sent.to(h).all([]byte("value-00000099-of-the-command value-00000096-of-the-command value-00000095-of-the-command the-value-of-another-secret"))
	if hits != 3 || string(out) != standIn+" "+standIn+" value-00000095-of-the-command "+elsewhere {
		t.Errorf("%d, %s", hits, out)
	}
}

// TestBeginningsThatAreNoChance: the value of a weak secret is a word that texts may end with the
// beginning of.
func TestBeginningsThatAreNoChance(t *testing.T) {
	for _, c := range []struct {
		value, placeholder string
		want               int
	}{
		{realValue, standIn, len("sk-") + 3}, {"password", "0123456789abcdefghij", 3}, {"sk-12345", "sk-0123456789abcdefghij", len("sk-") + 2},
		{"sk-01234", "sk-0123456789abcdefghij", len("sk-01234")},
	} {
		if got := countsFrom(c.value, c.placeholder); got != c.want {
			t.Errorf("%s: %d", c.value, got)
		}
	}
}
