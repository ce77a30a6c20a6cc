package inspect

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestFinderFindsWhatAPlainSearchFinds in random texts of few letters, so that much of them
// matches in part, and of texts that are longer than a shift can be.
func TestFinderFindsWhatAPlainSearchFinds(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = "abc%"[r.IntN(4)]
		}
		return b
	}
	found := 0
	for i := range 20_000 {
		scale := 1 + i%2*60 // every other time long texts
		texts := [][]byte{random(scale*(2+r.IntN(6)) + 1), random(scale*(2+r.IntN(6)) + 1), random(scale * (2 + r.IntN(4)))}
		text := random(r.IntN(200))
		text = append(append(text, texts[r.IntN(3)][:1+r.IntN(2*scale)]...), texts[r.IntN(3)]...)
		want, which := -1, -1
		for i, x := range texts {
			if j := bytes.Index(text, x); j >= 0 && (want < 0 || j < want || j == want && len(x) > len(texts[which])) {
				want, which = j, i
			}
		}
		at, got := newFinder(texts).find(text)
		if at != want || want >= 0 && !bytes.Equal(texts[got], texts[which]) {
			t.Fatalf("%q in %q: %d, not %d", texts, text, at, want)
		}
		if at >= 0 {
			found++
		}
	}
	if found < 1000 {
		t.Errorf("only %d were found", found)
	}
}

// TestAcceptableCodings: what is asked of a server is what bawn reads.
func TestAcceptableCodings(t *testing.T) {
	for in, want := range map[string]string{
		"br, gzip;q=0.5, *": "gzip;q=0.5", "": "identity", "br": "identity", "GZIP , zstd": "GZIP, zstd", "identity;q=0": "identity;q=0", "gzip,deflate": "gzip, deflate",
	} {
		got := acceptable([]string{in}, codings)
		if got != want {
			t.Errorf("%q: %q", in, got)
		}
		for c := range strings.SplitSeq(got, ",") {
			name, _, _ := strings.Cut(c, ";")
			if _, err := decoder(strings.ToLower(strings.TrimSpace(name)), strings.NewReader(""), make(windows, 1).take); err != nil {
				t.Error(err)
			}
		}
	}
}
