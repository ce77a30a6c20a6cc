package tlshello

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
)

// clientHello returns what crypto/tls sends first.
func clientHello(t testing.TB, cfg *tls.Config) []byte {
	t.Helper()
	a, b := net.Pipe()
	defer b.Close()
	go func() {
		_ = tls.Client(a, cfg).Handshake()
		a.Close()
	}()
	var out []byte
	buf := make([]byte, 4096)
	for {
		n, err := b.Read(buf)
		out = append(out, buf[:n]...)
		if _, perr := Parse(out); !errors.Is(perr, ErrShort) {
			return out
		}
		if err != nil {
			t.Fatalf("the client sent no whole ClientHello: %v", err)
		}
	}
}

// extension builds a ClientHello with the given extensions only.
func handmade(exts ...[]byte) []byte {
	body := append([]byte{3, 3}, make([]byte, 32)...)
	body = append(body, 0, 0, 2, 0x13, 0x01, 1, 0)
	all := bytes.Join(exts, nil)
	body = append(body, byte(len(all)>>8), byte(len(all)))
	body = append(body, all...)
	return record(append([]byte{1, 0, byte(len(body) >> 8), byte(len(body))}, body...))
}

func record(b []byte) []byte {
	return append([]byte{22, 3, 1, byte(len(b) >> 8), byte(len(b))}, b...)
}

func sni(name string) []byte {
	n := len(name)
	return append([]byte{0, 0, 0, byte(n + 5), 0, byte(n + 3), 0, 0, byte(n)}, name...)
}

func TestParse(t *testing.T) {
	raw := clientHello(t, &tls.Config{ServerName: "API.Example.org"})
	h, err := Parse(raw)
	if err != nil || h.ServerName != "api.example.org" || h.ECH {
		t.Fatalf("got %+v, %v", h, err)
	}
	for n := range len(raw) {
		if _, err := Parse(raw[:n]); !errors.Is(err, ErrShort) {
			t.Fatalf("%d of %d bytes: %v", n, len(raw), err)
		}
	}
	// Split over records of one byte each.
	var split []byte
	for _, c := range raw[recordHeader:] {
		split = append(split, record([]byte{c})...)
	}
	if h, err := Parse(split); err != nil || h.ServerName != "api.example.org" {
		t.Fatalf("split over records: %+v, %v", h, err)
	}
	if h, err := Parse(clientHello(t, &tls.Config{InsecureSkipVerify: true})); err != nil || h.ServerName != "" {
		t.Fatalf("without a name: %+v, %v", h, err)
	}
	if h, err := Parse(handmade(sni("a.example"), []byte{0xfe, 0x0d, 0, 1, 0})); err != nil || !h.ECH || h.ServerName != "a.example" {
		t.Fatalf("with ECH: %+v, %v", h, err)
	}
}

func TestParseRefuses(t *testing.T) {
	two := append([]byte{0, 0, 0, 12, 0, 10}, []byte{0, 0, 2, 'a', 'b', 0, 0, 2, 'c', 'd'}...)
	for name, b := range map[string][]byte{
		"plain text":      []byte("GET / HTTP/1.1\r\n\r\n"),
		"two extensions":  handmade(sni("a.example"), sni("b.example")),
		"two names":       handmade(two),
		"empty name":      handmade(sni("")),
		"name with NUL":   handmade(sni("a\x00.example")),
		"name with UTF-8": handmade(sni("é.example")),
		"ServerHello":     record([]byte{2, 0, 0, 1, 0}),
		"empty record":    {22, 3, 1, 0, 0, 0},
		"huge":            record([]byte{1, 0xff, 0xff, 0xff}),
		"SSLv2":           {0x80, 0x2e, 1, 0, 2},
	} {
		if _, err := Parse(b); err == nil || errors.Is(err, ErrShort) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGuard(t *testing.T) {
	check := func(h Hello) error {
		if h.ServerName != "good.example" {
			return errors.New("wrong name")
		}
		return nil
	}
	ccs := []byte{20, 3, 3, 0, 1, 1}
	data := append([]byte{23, 3, 3, 0, 3}, "abc"...)
	random := record(append([]byte{1, 0xaa, 0xbb, 0xcc, 0xdd, 0xee}, make([]byte, 34)...))
	random2 := record(append([]byte{1, 0, 0, 36, 7, 7}, make([]byte, 34)...))
	for name, tc := range map[string]struct {
		in  []byte
		bad bool
	}{
		"1.3":                          {append(bytes.Clone(ccs), data...), false},
		"retry, same name":             {bytes.Join([][]byte{ccs, handmade(sni("good.example")), ccs, data}, nil), false},
		"retry, other name":            {bytes.Join([][]byte{ccs, handmade(sni("evil.example")), data}, nil), true},
		"alert, other name":            {bytes.Join([][]byte{{21, 3, 3, 0, 2, 1, 90}, handmade(sni("evil.example"))}, nil), true},
		"early data, other name":       {bytes.Join([][]byte{data, data, ccs, handmade(sni("evil.example"))}, nil), true},
		"empty record, other name":     {bytes.Join([][]byte{{22, 3, 3, 0, 0}, handmade(sni("evil.example"))}, nil), true},
		"unknown record, other name":   {bytes.Join([][]byte{{24, 3, 3, 0, 1, 1}, handmade(sni("evil.example"))}, nil), true},
		"early data, same name":        {bytes.Join([][]byte{data, ccs, handmade(sni("good.example")), data, data}, nil), false},
		"retry without name":           {handmade(), true},
		"retry in pieces":              {bytes.Join([][]byte{record([]byte{1}), record([]byte{0})}, nil), true},
		"retry in halves":              {record(handmade(sni("good.example"))[recordHeader : recordHeader+20]), true},
		"1.2 key exchange":             {bytes.Join([][]byte{record([]byte{16, 0, 0, 1, 9}), ccs, record([]byte("encrypted")), data}, nil), false},
		"1.2 resumed, random":          {bytes.Join([][]byte{ccs, random, data}, nil), false},
		"1.2 resumed, random, unlucky": {bytes.Join([][]byte{ccs, random2, data}, nil), false},
		"record too long":              {[]byte{22, 3, 3, 0xff, 0xff, 1}, true},
	} {
		for _, step := range []int{1, 7, 1 << 20} {
			g := &Guard{Check: check}
			var out []byte
			var err error
			for rest := tc.in; len(rest) > 0 && err == nil; {
				n := min(step, len(rest))
				var pass []byte
				pass, err = g.Filter(rest[:n])
				out = append(out, pass...)
				rest = rest[n:]
			}
			if (err != nil) != tc.bad {
				t.Errorf("%s in steps of %d: %v", name, step, err)
			}
			if !tc.bad && !bytes.Equal(out, tc.in) {
				t.Errorf("%s in steps of %d: bytes were lost or changed", name, step)
			}
			if tc.bad && strings.Contains(string(out), "evil") {
				t.Errorf("%s in steps of %d: the forbidden name passed", name, step)
			}
		}
	}
}

func FuzzClientHello(f *testing.F) {
	f.Add(clientHello(f, &tls.Config{ServerName: "example.org"}))
	f.Add(handmade(sni("a.example"), []byte{0xfe, 0x0d, 0, 1, 0}))
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := Parse(b)
		if err == nil && h.ServerName != strings.ToLower(h.ServerName) {
			t.Fatalf("name %q is not in lower case", h.ServerName)
		}
		g := &Guard{Check: func(Hello) error { return nil }}
		for rest := b; len(rest) > 0; {
			n := min(11, len(rest))
			if _, err := g.Filter(rest[:n]); err != nil {
				break
			}
			if len(g.held) > maxRecord+512+recordHeader {
				t.Fatalf("%d bytes are held", len(g.held))
			}
			if len(g.part) > MaxHello+maxRecord+512 {
				t.Fatalf("%d bytes of a ClientHello in pieces", len(g.part))
			}
			rest = rest[n:]
		}
	})
}
