package guard

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-git/go-git/v5/plumbing/format/gitignore"
)

// Bounds on the user's patterns.
const (
	maxPatterns = 256  // of one kind
	maxPattern  = 1024 // bytes of one
)

// PatternError is a pattern that makes no sense.
type PatternError struct {
	Pattern string
	Column  int // in the pattern, from 1
	Problem string
}

func (e *PatternError) Error() string {
	return fmt.Sprintf("pattern %q, column %d: %s", e.Pattern, e.Column, e.Problem)
}

// CheckPattern returns a *PatternError for a pattern that makes no sense. The syntax is that
// of gitignore(5) without "!", for which there is a flag of its own.
func CheckPattern(s string) error {
	fail := func(column int, problem string) error { return &PatternError{s, column, problem} }
	switch {
	case s == "":
		return fail(1, "it is empty")
	case len(s) > maxPattern:
		return fail(maxPattern, fmt.Sprintf("it is longer than %d bytes", maxPattern))
	case !utf8.ValidString(s):
		return fail(1, "it is not valid UTF-8")
	case s[0] == '!':
		return fail(1, "it begins with !: use --no-guard or --show")
	case s[0] == '#':
		return fail(1, `it begins with #, a comment: write \#`)
	case strings.TrimRight(s, " ") != s && !strings.HasSuffix(s, `\ `):
		return fail(len(s), `it ends with a space, which is left out: write "\ "`)
	case strings.Trim(s, "/*") == "" && s != "*" && s != "**":
		return fail(1, "it names nothing in particular")
	}
	column := 1
	for part := range strings.SplitSeq(s, "/") {
		i := strings.IndexFunc(part, func(r rune) bool { return !unicode.IsPrint(r) })
		switch {
		case i >= 0:
			return fail(column+i, "it has a character that cannot be printed")
		case part == "." || part == "..":
			return fail(column, "paths begin at the root of the share: leave . and .. out")
		case part != "**" && strings.Contains(part, "**"):
			return fail(column+strings.Index(part, "**"), "** must be a whole component")
		}
		if _, err := filepath.Match(part, ""); err != nil {
			return fail(column, "a bracket is not closed, or a backslash has nothing after it")
		}
		column += len(part) + 1
	}
	return nil
}

// patterns are the user's patterns of one kind. A nil one matches nothing.
type patterns struct {
	list  []gitignore.Pattern
	parts [][]string // their components
}

func compile(text []string) (*patterns, error) {
	if len(text) == 0 {
		return nil, nil
	}
	if len(text) > maxPatterns {
		return nil, &PatternError{text[maxPatterns], 1, fmt.Sprintf("there are more than %d", maxPatterns)}
	}
	p := &patterns{}
	for _, s := range text {
		if err := CheckPattern(s); err != nil {
			return nil, err
		}
		for _, form := range slices.Compact([]string{s, fold(s)}) {
			p.list = append(p.list, gitignore.ParsePattern(form, nil))
			p.parts = append(p.parts, partsOf(form))
		}
	}
	return p, nil
}

// match reports whether a pattern matches the place or a directory above it.
func (p *patterns) match(at Place) bool {
	if p == nil {
		return false
	}
	path := append(slices.Clip(at.Dir), at.Name)
	folded := make([]string, len(path))
	for i, c := range path {
		folded[i] = fold(c)
	}
	for _, list := range [][]string{path, folded} {
		for i := 1; i <= len(list); i++ {
			for _, one := range p.list {
				matches := func(isDir bool) bool { return one.Match(list[:i], isDir) == gitignore.Exclude }
				if matches(true) && (i < len(list) || matches(false) || at.IsDir()) {
					return true
				}
			}
		}
	}
	return false
}
