package tlshello

import (
	"bytes"
	"crypto/tls"
	"errors"
	"math/rand"
	"strings"
	"testing"
)

// TestWorkIsLinear counts the bytes that are looked at: a ClientHello in single bytes
// costs as much as in one piece.
func TestWorkIsLinear(t *testing.T) {
	hello := handmade(sni("good.example"), append([]byte{0xab, 0xcd, 0x3c, 0}, make([]byte, 0x3c00)...))
	for _, step := range []int{1, 2, 100, len(hello)} {
		var p Parser
		done := false
		for rest := hello; !done; {
			n := min(step, len(rest))
			m, d, err := p.Feed(rest[:n])
			if err != nil || m != n {
				t.Fatal(m, err)
			}
			done, rest = d, rest[n:]
		}
		if p.looked != len(hello) || p.Hello().ServerName != "good.example" {
			t.Errorf("steps of %d: %d bytes of %d looked at, %+v", step, p.looked, len(hello), p.Hello())
		}
	}
}

// TestParserTakesOneHello: what follows the first ClientHello in the same read is
// left for the next judge.
func TestParserTakesOneHello(t *testing.T) {
	first, second := handmade(sni("good.example")), handmade(sni("evil.example"))
	var p Parser
	if n, done, err := p.Feed(append(bytes.Clone(first), second...)); n != len(first) || !done || err != nil {
		t.Fatal(n, done, err)
	}
}

// lied changes the version that a ClientHello's record and message claim.
func lied(hello []byte, record, message byte) []byte {
	b := bytes.Clone(hello)
	b[1] = record
	b[9] = message
	return b
}

// inPieces splits a message over records of n bytes, with other records between them.
func inPieces(hello []byte, n int, between ...byte) (out []byte) {
	for msg := hello[recordHeader:]; len(msg) > 0; {
		part := msg[:min(n, len(msg))]
		out = append(out, record(part)...)
		if msg = msg[len(part):]; len(msg) > 0 {
			out = append(out, between...)
		}
	}
	return out
}

func TestSecondHelloOfAnyVersion(t *testing.T) {
	evil := handmade(sni("evil.example"))
	ccs, alert := []byte{20, 3, 3, 0, 1, 1}, []byte{21, 3, 3, 0, 2, 1, 90}
	for name, in := range map[string][]byte{
		"version 4":                     lied(evil, 3, 4),
		"version 0":                     lied(evil, 3, 0),
		"version 0xfe":                  lied(evil, 3, 0xfe),
		"record of version 9":           lied(evil, 9, 9),
		"after a ChangeCipherSpec":      append(bytes.Clone(ccs), lied(evil, 3, 2)...),
		"in pieces":                     inPieces(lied(evil, 3, 4), 30),
		"in pieces, warnings between":   inPieces(lied(evil, 3, 4), 30, alert...),
		"in pieces, CCS between":        inPieces(lied(evil, 3, 4), 40, ccs...),
		"after a false piece, in whole": append(record([]byte{1, 0, 0x7f, 0xff, 9, 9, 0}), lied(evil, 3, 7)...),
	} {
		for _, step := range []int{1, 13, 1 << 20} {
			g := &Guard{Check: func(h Hello) error {
				if h.ServerName != "good.example" {
					return errors.New("wrong name")
				}
				return nil
			}}
			var err error
			var out []byte
			for rest := in; len(rest) > 0 && err == nil; {
				n := min(step, len(rest))
				var b []byte
				b, err = g.Filter(rest[:n])
				out = append(out, b...)
				rest = rest[n:]
			}
			if err == nil || len(out) >= len(in) {
				t.Errorf("%s in steps of %d: %v, %d of %d bytes passed", name, step, err, len(out), len(in))
			}
		}
	}
}

func TestScanner(t *testing.T) {
	evil, good, none := handmade(sni("evil.example")), handmade(sni("good.example")), handmade()
	real := clientHello(t, &tls.Config{ServerName: "evil.example"})
	alert := []byte{21, 3, 3, 0, 2, 1, 90}
	fake := append([]byte{22, 3, 1, 0x10, 0, 1, 0, 0x0f, 0xfc, 3, 3}, make([]byte, 40)...)
	noise := make([]byte, 1<<20)
	r := rand.New(rand.NewSource(1))
	for i := range noise {
		noise[i] = byte(r.Intn(256))
	}
	starttls := []byte("EHLO x\r\nSTARTTLS\r\n")
	for name, tc := range map[string]struct {
		in  []byte
		bad bool
	}{
		"real":                     {real, true},
		"record of version 5":      {lied(evil, 5, 3), true},
		"record of version 0":      {lied(evil, 0, 0), true},
		"after text":               {append(bytes.Clone(starttls), evil...), true},
		"after a request for SSL":  {append([]byte{0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f}, evil...), true},
		"after noise":              {append(bytes.Clone(noise), evil...), true},
		"in records of one byte":   {append([]byte("x\n"), inPieces(evil, 1)...), true},
		"warnings between":         {append([]byte("x\n"), inPieces(lied(evil, 3, 9), 20, alert...)...), true},
		"within another":           {append(bytes.Clone(fake), evil...), true},
		"two names":                {append([]byte("x\n"), handmade(sni("good.example"), sni("evil.example"))...), true},
		"more in its record":       {record(append(bytes.Clone(evil[recordHeader:]), 14, 0, 0, 0)), true},
		"ECH":                      {append([]byte("x\n"), handmade(sni("good.example"), []byte{0xfe, 0x0d, 0, 1, 0})...), true},
		"many":                     {bytes.Repeat(fake, 2*maxOpen), true},
		"no name, at the start":    {none, true},
		"no name, after STARTTLS":  {append(bytes.Clone(starttls), none...), false},
		"right name":               {append(bytes.Clone(starttls), good...), false},
		"noise":                    {noise, false},
		"handshake bytes only":     {bytes.Repeat([]byte{22}, 10_000), false},
		"records that end nowhere": {append(bytes.Clone(fake), noise...), false},
	} {
		for _, step := range []int{1, 7, 4096, 1 << 22} {
			if step < 4096 && len(tc.in) > 1<<18 {
				continue
			}
			s := &Scanner{Check: func(h Hello, first bool) error {
				if h.ECH || h.ServerName != "good.example" && (first || h.ServerName != "") {
					return errors.New("wrong name")
				}
				return nil
			}}
			var err error
			var out []byte
			for rest := tc.in; len(rest) > 0 && err == nil; {
				n := min(step, len(rest))
				if err = s.Feed(rest[:n]); err == nil {
					out = append(out, rest[:n]...)
				}
				rest = rest[n:]
			}
			if (err != nil) != tc.bad {
				t.Errorf("%s in steps of %d: %v", name, step, err)
			}
			if tc.bad && strings.HasSuffix(string(tc.in), string(evil)) && strings.HasSuffix(string(out), string(evil)) {
				t.Errorf("%s in steps of %d: all of it passed", name, step)
			}
		}
	}
}

func BenchmarkScanner(b *testing.B) {
	buf := make([]byte, 64<<10)
	r := rand.New(rand.NewSource(1))
	for i := range buf {
		buf[i] = byte(r.Intn(256))
	}
	s := &Scanner{Check: func(Hello, bool) error { return nil }}
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Feed(buf); err != nil {
			b.Fatal(err)
		}
	}
}
