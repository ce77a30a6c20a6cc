package toml

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	const text = "# settings\r\n" + `
title = "a \"b\" \u00e9 \x41 \t" # comment
'single' = 'C:\n'
a.b."c.d" = 1_000
when = 1979-05-27 07:32:00Z
yes = true
no=false
empty = ""
many = [ "x", # comment
  'y', [1.5, -2], ]
inline = { x = "1", y.z = [ ], }
inline2 = {
  x = 1, # a comment
}
multi = """
first \
    second ""quoted"""""
raw = '''
\n'''
[source.crates-io]
replace-with = "mirror"
[ source . "mirror" ]
registry = "sparse+https://mirror.example/"
[[package]]
name = "one"
[package.sub]
v = 1
[[package]]
name = "two"
`
	want := Table{
		"title": "a \"b\" é A \t", "single": `C:\n`, "a": Table{"b": Table{"c.d": Raw("1_000")}}, "when": Raw("1979-05-27 07:32:00Z"),
		"yes": true, "no": false, "empty": "", "many": []any{"x", "y", []any{Raw("1.5"), Raw("-2")}},
		"inline": Table{"x": "1", "y": Table{"z": []any{}}}, "inline2": Table{"x": Raw("1")}, "multi": `first second ""quoted""`, "raw": `\n`,
		"source":  Table{"crates-io": Table{"replace-with": "mirror"}, "mirror": Table{"registry": "sparse+https://mirror.example/"}},
		"package": []any{Table{"name": "one", "sub": Table{"v": Raw("1")}}, Table{"name": "two"}},
	}
	got, err := Parse([]byte(text))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%v\n%#v\nwant\n%#v", err, got, want)
	}
	if s := got.Table("source").Table("mirror").Text("registry"); s != "sparse+https://mirror.example/" {
		t.Errorf("registry: %q", s)
	}
	if l := got.Tables("package"); len(l) != 2 || l[1].Text("name") != "two" || got.Tables("many") != nil || got.Text("source") != "" || got.Table("title") != nil {
		t.Errorf("packages: %v", l)
	}
}

func TestWhatIsRefused(t *testing.T) {
	for text, want := range map[string]error{
		"a":                  errKey,
		"= 1":                errKey,
		"a = ":               errValue,
		"a = 1 2 ; 3":        errValue,
		"a = \"x":            errString,
		"a = \"x\ny\"":       errString,
		`a = "\q"`:           errString,
		`a = "\u12"`:         errString,
		`a = "\ud800"`:       errString,
		`a = """x`:           errString,
		"a = 'x' y":          errLineEnd,
		"[a] b = 1":          errLineEnd,
		"a = [1 2":           errValue,
		"a = [1":             errValue,
		"a = {x = 1":         errValue,
		"a = {x 1}":          errKey,
		"[a":                 errKey,
		"[[a]":               errKey,
		"a = 1\na = 2":       errTwice,
		"a = 1\n[a]":         errTwice,
		"a = 1\n[[a]]":       errTwice,
		"a = 1\n[a.b]":       errTwice,
		"a = []\n[a.b]\nx=1": errTwice,
	} {
		if _, err := Parse([]byte(text)); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", text, err, want)
		}
	}
	if _, err := Parse([]byte("a = 1\nb = \"\xff\"")); err == nil {
		t.Error("invalid UTF-8 is accepted")
	}
	if _, err := Parse([]byte("a = 1\n\nb = ?\n")); err == nil || !strings.HasPrefix(err.Error(), "line 3: ") {
		t.Errorf("the line: %v", err)
	}
}

// TestAttackWorkOfTheReader: texts as large as a lock file may be, each of which costs some reader of
// TOML its stack, its memory or hours, are refused or read at once.
func TestAttackWorkOfTheReader(t *testing.T) {
	const size = 8 << 20
	fill := func(begin, s string) string { return begin + strings.Repeat(s, (size-len(begin))/len(s)) }
	var keys strings.Builder
	for i := 0; keys.Len() < size; i++ {
		fmt.Fprintf(&keys, "k%d=1\n", i)
	}
	for name, text := range map[string]string{
		"arrays": fill("a=", "["), "inline tables": fill("a=", "{a="), "a key of many parts": fill("a", ".a"), "headers": fill("", "[[a]]\n"),
		"headers of many parts": "[" + fill("a", ".a"), "values": fill("a=[", "1,"), "strings in one line": fill("a=[", `"",`), "open strings": fill("a=[", `"\"`),
		"quotes": fill(`a="""`, `" `), "keys": keys.String(), "comments": fill("", "#"), "escapes": fill(`a="`, `\n`), "blanks": fill("a", " "),
		"tables again": fill("", "[a]\n[b]\n"),
	} {
		begin := time.Now()
		_, err := Parse([]byte(text))
		if took := time.Since(begin); took > 20*time.Second { // it takes less than one, but hosts are busy
			t.Errorf("%s: %s, %v", name, took, err)
		}
		if err == nil && name != "comments" && name != "tables again" {
			t.Errorf("%s: it is accepted", name)
		}
	}
}

// FuzzParse: no text ends the reader, and what it reads is within the bounds.
func FuzzParse(f *testing.F) {
	f.Add([]byte("[[package]]\nname = \"a\"\nfiles = [{file = 'x', hash = \"sha256:1\"}]\n"))
	f.Add([]byte("a.b = \"\"\"\nx\\\n y\"\"\"\n[c]\n'd' = {e = [1, true]}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		root, err := Parse(text)
		if err == nil && depth(root) > 2*maxDepth*(maxDepth+1) {
			t.Errorf("depth %d", depth(root))
		}
	})
}

func depth(v any) (n int) {
	switch v := v.(type) {
	case Table:
		for _, e := range v {
			n = max(n, 1+depth(e))
		}
	case []any:
		for _, e := range v {
			n = max(n, 1+depth(e))
		}
	}
	return n
}
