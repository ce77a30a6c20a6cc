package bawn

import (
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestThreatModelNamesTheCode holds the rows of docs/threat-model.md to the code: the
// packages that judge a channel exist, each constant is declared in the package that
// stands behind it, and each test exists in internal/vmtest or in the package that stands
// before it. Each row has a test.
func TestThreatModelNamesTheCode(t *testing.T) {
	inside, code := map[string][]string{}, map[string]string{}
	for f, text := range sources(t, "", true) {
		for _, m := range testFunc.FindAllStringSubmatch(text, -1) {
			inside[path.Dir(f)] = append(inside[path.Dir(f)], m[1])
		}
	}
	for f, text := range sources(t, "", false) {
		code[path.Dir(f)] += text
	}
	// Several constants, separated by commas, may share the package behind the last one.
	bounds := regexp.MustCompile("((?:`[A-Za-z]\\w*`(?:, )?)+) in `(internal/[a-z0-9/]+)`")
	rows := 0
	for line := range strings.Lines(read(t, "docs/threat-model.md")) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if !strings.HasPrefix(line, "| ") || len(cells) != 5 || cells[4] == "test " || strings.HasPrefix(line, "| ---") {
			continue
		}
		rows++
		channel := strings.TrimSpace(cells[0])
		if !strings.Contains(cells[2], "QEMU") && !strings.Contains(cells[2], "`internal/") {
			t.Errorf("%s: nobody judges it", channel)
		}
		for _, m := range ourPath.FindAllStringSubmatch(cells[2], -1) {
			if _, err := os.Stat(m[1]); err != nil {
				t.Errorf("%s: judged by %s, which does not exist", channel, m[1])
			}
		}
		named := bounds.FindAllStringSubmatch(cells[3], -1)
		if len(named) == 0 && !strings.HasPrefix(cells[3], "-") {
			t.Errorf("%s: no constant in %q", channel, cells[3])
		}
		for _, m := range named {
			for _, c := range codeName.FindAllStringSubmatch(m[1], -1) {
				if !declaresBound(code[m[2]], c[1]) {
					t.Errorf("%s: %s is not declared in %s", channel, c[1], m[2])
				}
			}
		}
		checkTests(t, channel, cells[4], inside)
	}
	if rows < 35 {
		t.Errorf("docs/threat-model.md has %d rows of channels", rows)
	}
}

// declaresBound reports whether the Go code declares the name alone or among several.
func declaresBound(code, name string) bool {
	return declares(code, name) || regexp.MustCompile(`(?m)^\t(?:\w+, )*`+name+`(?:, \w+)* += `).MatchString(code)
}

// checkTests wants a cell to name tests, each in its package.
func checkTests(t *testing.T, channel, cell string, inside map[string][]string) {
	t.Helper()
	named := 0
	for part := range strings.SplitSeq(strings.TrimSpace(cell), "; ") {
		dir := "internal/vmtest"
		if m := ofPackage.FindStringSubmatch(part); m != nil {
			dir = m[1]
		}
		for _, name := range testName.FindAllString(part, -1) {
			named++
			if !slices.Contains(inside[dir], name) {
				t.Errorf("%s: %s has no test %s", channel, dir, name)
			}
		}
	}
	if named == 0 {
		t.Errorf("%s: it has no test", channel)
	}
}
