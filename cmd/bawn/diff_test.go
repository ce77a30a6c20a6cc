package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestDiffLines(t *testing.T) {
	var old []string
	for i := range 20 {
		old = append(old, string(rune('a'+i)))
	}
	change := func(at int, line ...string) []string { return slices.Concat(old[:at], line, old[at+1:]) }
	text := func(lines []string) string { return strings.Join(lines, "\n") + "\n" }
	for _, c := range []struct{ name, old, now, want string }{
		{"nothing", text(old), text(old), ""},
		{"in the middle", text(old), text(change(10, "new")), "@...; h; i; j;-k;+new; l; m; n;@...;"},
		{"at the beginning", text(old), text(change(0, "new")), "-a;+new; b; c; d;@...;"},
		{"at the end", text(old), text(change(19, "new")), "@...; q; r; s;-t;+new;"},
		{"all new", "", "a\n", "+a;"},
		{"all gone", "a\n", "", "-a;"},
		{"the newline", "a", "a\n", "-a (no newline at the end);+a;"},
		{"a line like a hunk's", "x\n", "@@ -1,1 +1,1 @@\nx\n\\ No newline\n", "+@@ -1,1 +1,1 @@; x;+\\ No newline;"},
	} {
		var got strings.Builder
		for _, l := range diffLines([]byte(c.old), []byte(c.now)) {
			got.WriteString(string(l.sign) + l.text + ";")
		}
		if got.String() != c.want {
			t.Errorf("%s: %s, want %s", c.name, &got, c.want)
		}
	}
}

// TestDiffOfLongTexts: every line is shown, whatever the sizes.
func TestDiffOfLongTexts(t *testing.T) {
	var old, now strings.Builder
	for i := range 5000 {
		fmt.Fprintln(&old, "-", i%7)
		fmt.Fprintln(&now, "+", i%5)
	}
	if got := diffLines([]byte(old.String()), []byte(now.String())); len(got) != 10000 {
		t.Errorf("%d lines", len(got))
	}
}
