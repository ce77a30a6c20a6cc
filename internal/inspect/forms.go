package inspect

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"strings"
)

// encoded returns the forms of a text in base64 (RFC 4648, both alphabets) and in hexadecimal,
// as they are found inside an encoding of something longer: in base64, for each of the
// three places that the text can begin at, the characters that depend on nothing else.
func encoded(text []byte) (list [][]byte) {
	for before := range 3 {
		whole := append(make([]byte, before), text...)
		first, end := (before*8+5)/6, (before+len(text))*8/6
		for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			list = append(list, []byte(e.EncodeToString(whole)[first:end]))
		}
	}
	low := hex.EncodeToString(text)
	return append(list, []byte(low), []byte(strings.ToUpper(low)))
}

// escaped returns a text as it is, and as it stands in JSON, URLs, forms and HTML.
func escaped(text string) (list [][]byte) {
	add := func(s string) {
		b := []byte(s)
		for _, o := range list {
			if bytes.Equal(o, b) {
				return
			}
		}
		list = append(list, b)
	}
	add(text)
	if j, err := json.Marshal(text); err == nil {
		add(string(j[1 : len(j)-1]))
		add(strings.ReplaceAll(string(j[1:len(j)-1]), "/", `\/`))
	}
	var plain bytes.Buffer
	e := json.NewEncoder(&plain)
	e.SetEscapeHTML(false)
	if e.Encode(text) == nil {
		j := strings.TrimSuffix(plain.String(), "\n")
		add(j[1 : len(j)-1])
		add(strings.ReplaceAll(j[1:len(j)-1], "/", `\/`))
	}
	add(url.QueryEscape(text))
	add(url.PathEscape(text))
	add(html.EscapeString(text))
	return list
}

// byteForms are formats of the bytes of a text: each of them escaped, and UTF-16.
var byteForms = []string{"%%%02X", "%%%02x", `\u%04X`, `\u%04x`, `\x%02X`, `\x%02x`, "&#%d;", "&#x%x;", "&#x%X;", "%c\x00", "\x00%c"}

// everyByte formats each byte of a text.
func everyByte(text, format string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		fmt.Fprintf(&b, format, c)
	}
	return b.String()
}
