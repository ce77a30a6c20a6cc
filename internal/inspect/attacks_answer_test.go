package inspect

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/base64"
	"encoding/json"
	"hash/adler32"
	"html"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/secret"
)

// TestAttackEscapedBase64: an answer has the credential of Basic authentication, in base64 as it came, in a text that escapes
// the characters + and / of it. The guest chooses the user, and by that how the value stands in the base64.
func TestAttackEscapedBase64(t *testing.T) {
	const value = "Qb8Q~nlcR~9kj?ot~Kz>o?7-xX4~yyP?oo?Aq~Ba" // such as client secrets of Azure
	escapes := map[string]func(string) string{
		"as it is": func(s string) string { return s },
		"PHP":      func(s string) string { return strings.ReplaceAll(s, "/", `\/`) },
		".NET":     func(s string) string { return strings.NewReplacer("+", `\u002B`, "/", `\u002F`).Replace(s) },
		"URL":      url.QueryEscape,
		"HTML":     func(s string) string { return strings.NewReplacer("+", "&#43;", "/", "&#x2F;").Replace(s) },
	}
	p := newPlace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, v, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		_, _ = io.WriteString(w, `{"authorization":"`+escapes[r.URL.Query().Get("by")](v)+`"}`)
	}), bothProtocols, func() secret.Bound {
		b := bound(secret.Place{})
		b.Value = func(context.Context) (string, error) { return value, nil }
		return b
	}())
	decoded := func(body string) string {
		var answer map[string]string
		s := body
		if json.Unmarshal([]byte(body), &answer) == nil {
			s = answer["authorization"]
		}
		s = html.UnescapeString(s)
		if u, err := url.PathUnescape(s); err == nil {
			s = u
		}
		plain, _ := base64.StdEncoding.DecodeString(s)
		return string(plain)
	}
	for by := range escapes {
		for _, user := range []string{"a", "ab", "abc"} {
			_, body := p.do(p.client("h2"), request(t, "GET", "/?by="+url.QueryEscape(by), nil, "Authorization", "Basic "+b64(user+":"+standIn)))
			if got := decoded(body); strings.Contains(got, value[8:len(value)-8]) || got == "" && !strings.Contains(body, "AAAA") {
				t.Errorf("%s, user %s: the guest reads %q in %s", by, user, got, body)
			}
		}
	}
}

// twoWays returns bytes that are two texts, one in zlib and one in deflate without its head.
func twoWays(t *testing.T, inZlib, inDeflate string) string {
	t.Helper()
	var hidden bytes.Buffer
	w, err := flate.NewWriter(&hidden, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(w, inDeflate)
	_ = w.Close()
	const stored = 0xfffe
	all := []byte{0x78, 0x01, 0x00, 0xfe, 0xff, 0x01, 0x00} // zlib: its head, a block of stored bytes. deflate: one of one byte, another one
	text := append([]byte{0x00, 0x00, 0xff, 0xff}, hidden.Bytes()...)
	text = append(text, make([]byte, stored-len(text))...)
	all = append(all, text...)
	// The second block of zlib is the last one.
	n := len(inZlib)
	all = append(all, 0x01, byte(n), byte(n>>8), ^byte(n), ^byte(n>>8))
	all = append(all, inZlib...)
	sum := adler32.Checksum(append(text, inZlib...))
	return string(append(all, byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum)))
}

// TestAttackDeflateThatIsReadInTwoWays: some servers take deflate with the head of zlib, some without, and some both.
func TestAttackDeflateThatIsReadInTwoWays(t *testing.T) {
	const form = "application/x-www-form-urlencoded"
	body := twoWays(t, "&a=1", "&access_token=of-the-attacker")
	if plain, err := io.ReadAll(flate.NewReader(strings.NewReader(body))); !strings.Contains(string(plain), "&access_token=of-the-attacker") {
		t.Fatalf("the attack is none: %q, %v", plain, err)
	}
	s := &seen{}
	p := newPlace(t, s, bothProtocols, bound(secret.Place{}))
	for range 2 {
		res, page := p.do(p.client("h2"), request(t, "POST", "/", strings.NewReader(body), "Content-Type", form, "Content-Encoding", "deflate"))
		if res.StatusCode != http.StatusForbidden {
			t.Errorf("%d %s", res.StatusCode, page)
		}
		body = twoWays(t, "&a=1", "&b=2")
	}
	if res, page := p.do(p.client("h2"), request(t, "POST", "/", strings.NewReader(zlibbed("a=1")), "Content-Type", form, "Content-Encoding", "deflate")); res.StatusCode != http.StatusOK {
		t.Errorf("one way: %d %s", res.StatusCode, page)
	}
}
