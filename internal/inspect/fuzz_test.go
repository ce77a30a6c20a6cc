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
	swaps := newSwaps(swapsOf(realValue, standIn))
	f.Fuzz(func(t *testing.T, b []byte, size uint8) {
		want, _, _ := swaps.all(nil, b, true)
		r := &swapReader{src: &chunks{bytes.NewReader(b), int(size) + 1}, swaps: swaps}
		got, err := io.ReadAll(r)
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

// FuzzCodings: what is asked of a server is what bawn reads.
func FuzzCodings(f *testing.F) {
	f.Add("br, gzip;q=0.5, *")
	f.Fuzz(func(t *testing.T, v string) {
		for c := range strings.SplitSeq(acceptable([]string{v}), ",") {
			name, _, _ := strings.Cut(c, ";")
			if _, err := decoder(strings.ToLower(strings.TrimSpace(name)), strings.NewReader("")); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// FuzzFinder: it finds what a plain search finds.
func FuzzFinder(f *testing.F) {
	f.Add([]byte("abcabdabcd"), []byte("abcd"), []byte("bda"), []byte("abc"))
	f.Add(bytes.Repeat([]byte("a"), 600), bytes.Repeat([]byte("a"), 300), []byte("aab"), []byte("aa"))
	f.Fuzz(func(t *testing.T, text, a, b, c []byte) {
		if len(a) < block || len(b) < block || len(c) < block {
			return
		}
		texts := [][]byte{a, b, c}
		want, which := -1, -1
		for i, x := range texts {
			j := bytes.Index(text, x)
			if j >= 0 && (want < 0 || j < want || j == want && len(x) > len(texts[which])) {
				want, which = j, i
			}
		}
		at, got := newFinder(texts).find(text)
		if at != want || want >= 0 && !bytes.Equal(texts[got], texts[which]) {
			t.Fatalf("%q in %q: %d, not %d", texts, text, at, want)
		}
	})
}
