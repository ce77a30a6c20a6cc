package httpwire

import (
	"math/rand"
	"strings"
	"testing"
)

func newWatch() *Watch {
	return &Watch{Host: func(v string) error {
		if host, _, err := SplitAuthority(v); err != nil || host != "good.example" {
			return Malformed("wrong host")
		}
		return nil
	}}
}

func TestWatch(t *testing.T) {
	const get = "GET / HTTP/1.1\r\nHost: good.example\r\n\r\n"
	long := strings.Repeat("a", 2*MaxHead)
	for name, tc := range map[string]struct {
		in  string
		bad bool
	}{
		"RTSP version":                   {"POST / RTSP/1.1\r\nhost: other.example\r\n\r\n", true},
		"RTSP version, other case":       {"POST / RTSP/1.1\r\nAccept: x\r\nHOST : other.example\r\n\r\n", true},
		"RTSP version, malformed host":   {"POST / RTSP/1.1\r\nHost: good.example@other.example\r\n\r\n", true},
		"RTSP version, right host":       {"POST / RTSP/1.1\r\nHost: good.example\r\n\r\n", false},
		"pipelined":                      {"POST / RTSP/1.1\r\nHost: good.example\r\n\r\nPOST / RTSP/1.1\r\nHost: other.example\r\n\r\n", true},
		"pipelined, HTTP":                {"POST / ICE/1.0\r\nHost: good.example\r\n\r\n" + get, true},
		"behind a body":                  {"POST / RTSP/1.1\r\nHost: good.example\r\nContent-Length: 7\r\n\r\n{\"a\":1}GET / HTTP/1.1\r\nX: y\r\n\r\n", true},
		"behind a body, RTSP":            {"POST / RTSP/1.1\r\nHost: good.example\r\nContent-Length: 7\r\n\r\n{\"a\":1}GET / RTSP/1.1\r\nHost: other.example\r\n\r\n", true},
		"behind a long body":             {"POST / RTSP/1.1\r\nHost: good.example\r\n\r\n" + long + "{}GET / HTTP/1.1\r\n\r\n", true},
		"behind a line":                  {"HELO x\r\n" + get, true},
		"behind empty lines and bytes":   {"\x00\xff\xfd\x18\r\n\r\n\x00\x01GET / HTTP/1.1\r\n", true},
		"no version at all":              {"FOO /a BAR\r\nHost: other.example\r\n\r\n", true},
		"lines end in CR":                {"POST / RTSP/1.1\rHost: other.example\r\r\n", true},
		"lines end in LF":                {"POST / RTSP/1.1\nHost: other.example\n\n", true},
		"HTTP/0.9 with fields":           {"GET index\r\nHost: other.example\r\n\r\n", true},
		"HTTP/0.9 later":                 {"x\r\nGET /\r\n", true},
		"address in the line":            {"x\r\nGET http://other.example/ FOO/1.0\r\n", true},
		"unknown method":                 {"x\r\nBREW http://other.example/ HTTP/1.1\r\n", true},
		"HTTP/2":                         {"x\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", true},
		"blanks of all kinds":            {"x\r\n\t GET\v/\fHTTP/1.1\r\n", true},
		"CONNECT":                        {"x\r\nCONNECT other.example:443 HTTP/1.1\r\n\r\n", true},
		"a long path":                    {"x\r\nGET /" + long + " HTTP/1.1\r\n", true},
		"a length as of Redis":           {"POST / RTSP/1.1\r\n$5\r\nHost: other.example\r\n\r\n", true},
		"a method with a NUL":            {"GET\x00 / FOO/1.0\r\nhost:other.example\r\n\r\n", true},
		"a method with a NUL, HTTP":      {"\x01GET\x00 http:/x HTTP/01.1\r\n\r\n", true},
		"an address without slashes":     {"FOO http:/x HTTP /1.1\r\nX: y\r\nhost:other.example\r\n\r\n", true},
		"a method of any characters":     {"<{(\xff)}> a/b c\r\nHost: other.example\r\n\r\n", true},
		"behind a body of a weak one":    {"(a) /b c\r\nContent-Length: 3\r\n\r\nx yGET a/b c\r\nHost: other.example\r\n\r\n", true},
		"a folded host":                  {"(a) /b c\r\nHost:\r\n other.example\r\n\r\n", true},
		"a folded host of RTSP":          {"GET / RTSP/1.0\r\nHost: \r\n\tother.example\r\n\r\n", true},
		"a rare method":                  {"M-SEARCH http://other.example/\nHost: good.example\r\n\r\n", true},
		"a rare method with a version":   {"SOURCE http://other.example/ ICE/1.0\r\n\r\n", true},
		"a mail":                         {"MAIL FROM:<a@a.example>\r\nDATA\r\nContent-Type: text/plain; charset=utf-8\r\nSubject: down\r\n\r\nHost: other.example\r\nsee http://other.example/ now\r\n.\r\n", false},
		"the right host behind odd text": {"(a) /b c\r\nHost: good.example\r\n\r\n", false},
		"memcached, addresses":           {"set http://other.example/ 0 0 2\r\nok\r\nmg http://other.example/ v\r\n", false},
		"without its end":                {"x\r\nGET / HTTP/1.1", true},
		"SMTP":                           {"EHLO a.example\r\nMAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\nSubject: x\r\n\r\nWe use HTTP/2.\r\nhost: other.example\r\n.\r\nQUIT\r\n", false},
		"Redis":                          {"*2\r\n$3\r\nGET\r\n$8\r\nhost:web\r\n*3\r\n$3\r\nSET\r\n$4\r\nhost\r\n$3\r\n1:2\r\n", false},
		"Redis, after a path":            {"*2\r\n$3\r\nSET\r\n$5\r\na /bc\r\n$8\r\nhost:web\r\n", false},
		"memcached":                      {"get /x\r\nset /x 0 0 2\r\nok\r\nget key\r\n", false},
		"STOMP":                          {"CONNECT\naccept-version:1.2\nhost:/\n\n\x00", false},
		"SSH":                            {"SSH-2.0-OpenSSH_9.2p1 Debian\r\n\x00\x00\x05\xdc", false},
		"RTSP":                           {"DESCRIBE rtsp://other.example/a RTSP/1.0\r\nCSeq: 1\r\n\r\nSETUP rtsp://other.example/a/t RTSP/1.0\r\nTransport: RTP/AVP\r\n\r\n", false},
		"an access log":                  {"<13>Oct 11 web nginx: 192.0.2.1 - - [x] \"GET / HTTP/1.1\" 200\n192.0.2.1 - - [x] \"GET / HTTP/1.1\" 200\n", false},
		"JSON":                           {"{\"query\": {\"message\": \"GET / HTTP/1.1\"}}\n", false},
		"words without an end":           {strings.Repeat("abc ", MaxHead), false},
		"a word without an end":          {long + long, false},
		"git":                            {"0033git-upload-pack /project.git\x00host=myserver.com\x00", false},
		"Gopher":                         {"/docs\r\n", false},
		"a long line that passes by far": {"see /" + long + long + "\r\nok\r\n", false},
	} {
		for _, step := range []int{1, 5, 4096, 1 << 20} {
			w := newWatch()
			var err error
			passed := 0
			for rest := tc.in; len(rest) > 0 && err == nil; {
				n := min(step, len(rest))
				if err = w.Feed([]byte(rest[:n])); err == nil {
					passed += n
				}
				rest = rest[n:]
			}
			if err == nil {
				err = w.End()
			}
			if (err != nil) != tc.bad {
				t.Errorf("%s in steps of %d: %v after %d bytes", name, step, err, passed)
			}
			if cap(w.line) > 4*MaxHead {
				t.Errorf("%s: %d bytes are kept", name, cap(w.line))
			}
		}
	}
}

// TestWatchedWorkIsLinear: each byte is looked at once, in pieces of any size.
func TestWatchedWorkIsLinear(t *testing.T) {
	for _, in := range []string{strings.Repeat("a", MaxHead), "get x" + strings.Repeat("b", MaxHead), strings.Repeat("\x00", MaxHead)} {
		w := newWatch()
		var l FirstLine
		b := []byte(in)
		for i := range b {
			if err := w.Feed(b[i : i+1]); err != nil {
				t.Fatal(err)
			}
			l.Look(b[:i+1])
		}
		if w.looked > len(in) || l.looked > 2*len(in) {
			t.Errorf("%.10q: %d and %d bytes of %d are looked at", in, w.looked, l.looked, len(in))
		}
	}
}

// TestRandomBytesPass: what is encrypted or compressed has no requests in it.
func TestRandomBytesPass(t *testing.T) {
	b := make([]byte, 8<<20)
	r := rand.New(rand.NewSource(1))
	for i := range b {
		b[i] = byte(r.Intn(256))
	}
	w := newWatch()
	for len(b) > 0 {
		n := min(len(b), 64<<10)
		if err := w.Feed(b[:n]); err != nil {
			t.Fatal(err)
		}
		b = b[n:]
	}
}

func FuzzWatch(f *testing.F) {
	f.Add([]byte("POST / RTSP/1.1\r\nHost: other.example\r\n\r\n"), 3)
	f.Add([]byte("x\r\n\x00GET http://other.example/ FOO\r\n"), 1)
	f.Fuzz(func(t *testing.T, b []byte, step int) {
		whole, parts := newWatch(), newWatch()
		err := whole.Feed(b)
		step = max(1, step%64)
		var perr error
		for rest := b; len(rest) > 0 && perr == nil; {
			n := min(step, len(rest))
			perr = parts.Feed(rest[:n])
			rest = rest[n:]
		}
		if (err == nil) != (perr == nil) {
			t.Fatalf("%v at once, %v in steps of %d", err, perr, step)
		}
	})
}

func BenchmarkWatch(b *testing.B) {
	random := make([]byte, 64<<10)
	r := rand.New(rand.NewSource(1))
	for i := range random {
		random[i] = byte(r.Intn(256))
	}
	for name, in := range map[string][]byte{
		"random": random,
		"text":   []byte(strings.Repeat("The quick brown fox jumps over the lazy dog, and so on.\r\n", 1000)),
	} {
		b.Run(name, func(b *testing.B) {
			w := newWatch()
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				if err := w.Feed(in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
