package inspect

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/secret"
)

// FuzzUnescape: however a text is cut, it decodes to the same, and no escape is left behind.
func FuzzUnescape(f *testing.F) {
	f.Add([]byte(`a%41\u0041\/\\%%4`), 3)
	f.Add([]byte(`\u00e4%C3%A4\`), 1)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		want, rest := unescape(nil, b, true)
		if len(rest) != 0 {
			t.Fatalf("%q is left", rest)
		}
		if cut < 0 || cut > len(b) {
			return
		}
		got, rest := unescape(nil, b[:cut], false)
		if len(rest) >= maxEscape {
			t.Fatalf("%q is held", rest)
		}
		if got, _ = unescape(got, append(bytes.Clone(rest), b[cut:]...), true); !bytes.Equal(got, want) {
			t.Fatalf("%q cut at %d: %q, not %q", b, cut, got, want)
		}
	})
}

// FuzzScanner: a placeholder is found wherever the stream is cut.
func FuzzScanner(f *testing.F) {
	f.Add([]byte("before "), []byte(" after"), 10, false)
	f.Add([]byte(`{"a":"%`), []byte(`\u`), 3, true)
	all := needlesOf([]secret.Bound{bound(secret.Place{})})
	f.Fuzz(func(t *testing.T, before, after []byte, cut int, escaped bool) {
		ph := standIn
		if escaped {
			ph = inJSON(ph)
			if bytes.HasSuffix(before, []byte(`\`)) {
				return // it escapes the escape
			}
		}
		whole := append(append(bytes.Clone(before), ph...), after...)
		if cut < 0 || cut > len(whole) {
			return
		}
		s := newScanner(all)
		if first := s.feed(bytes.Clone(whole[:cut]), false); first == "" && s.feed(bytes.Clone(whole[cut:]), true) == "" && !lost(before) {
			t.Fatalf("%q cut at %d", whole, cut)
		}
	})
}

// lost reports whether the end of a text swallows the first character of the next one, as the
// beginning of an escape.
func lost(before []byte) bool {
	end := before[max(0, len(before)-maxEscape):]
	return bytes.ContainsAny(end, `%\`)
}

// FuzzSwap: however the stream is cut, the same is replaced, and no value is left.
func FuzzSwap(f *testing.F) {
	f.Add([]byte("a "+realValue+" b"), uint8(5))
	f.Add([]byte(realValue[:10]+realValue+realValue), uint8(1))
	swaps := testSwaps()
	f.Fuzz(func(t *testing.T, b []byte, size uint8) {
		want, _ := swaps.all(b)
		r := newSwapReader(&chunks{bytes.NewReader(b), int(size) + 1}, swaps, nil)
		got, err := io.ReadAll(&r)
		if err != nil || bytes.Contains(got, []byte(realValue)) {
			t.Fatal(err)
		}
		if strings.Count(string(got), standIn) != strings.Count(string(want), standIn) {
			t.Fatalf("%q: %q, not %q", b, got, want)
		}
	})
}

// chunks reads at most n bytes at once.
type chunks struct {
	r io.Reader
	n int
}

func (c *chunks) Read(p []byte) (int, error) { return c.r.Read(p[:min(c.n, len(p))]) }

// FuzzPlaced: the value is put in only where the placeholder was, and only in the place.
func FuzzPlaced(f *testing.F) {
	f.Add("Authorization", "Bearer "+standIn, uint8(0))
	f.Add("Authorization", "Basic "+b64("me:"+standIn), uint8(3))
	f.Add("Cookie", standIn, uint8(1))
	places := []secret.Place{{}, {Where: secret.InHeader, Arg: "X-Key"}, {Where: secret.InBearer}, {Where: secret.InBasic, Arg: "me"}, {Where: secret.InBody}}
	f.Fuzz(func(t *testing.T, name, v string, place uint8) {
		b := bound(places[int(place)%len(places)])
		with, ok := placed(&b, name, v)
		if !ok {
			return
		}
		if carries(needlesOf([]secret.Bound{b}), v) == "" {
			t.Fatalf("%q has no placeholder", v)
		}
		if out := with(realValue); carries(needlesOf([]secret.Bound{b}), out) != "" {
			t.Fatalf("%q still has it: %q", v, out)
		}
		if b.Place.Where == secret.InBody || name == "Cookie" {
			t.Fatalf("%q in %v", name, b.Place)
		}
	})
}
