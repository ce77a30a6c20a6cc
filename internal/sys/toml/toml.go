// Package toml reads TOML within bounds, for files that guests write to: depth, number of values and
// length of keys are limited, and the work grows with the length of the text. It reads; it does not
// validate: tables may be opened again, and numbers and dates stay as they are written.
package toml

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Bounds of a text. The caller bounds its bytes.
const (
	maxDepth  = 32      // values within values, and parts of a key
	maxValues = 500_000 // values and tables
)

// Table is a table: its values are string, bool, Raw, Table and []any of these.
type Table map[string]any

// Raw is a number or a date, as it is written.
type Raw string

// Text returns a string of the table; "" if it has none of that name.
func (t Table) Text(key string) string {
	s, _ := t[key].(string)
	return s
}

// Table returns a table of the table; nil if it has none of that name.
func (t Table) Table(key string) Table {
	s, _ := t[key].(Table)
	return s
}

// Tables returns the tables of an array.
func (t Table) Tables(key string) (list []Table) {
	all, _ := t[key].([]any)
	for _, v := range all {
		if s, ok := v.(Table); ok {
			list = append(list, s)
		}
	}
	return list
}

// Parse reads a text. An error names the line.
func Parse(text []byte) (Table, error) {
	p := parser{text: string(text)}
	root := Table{}
	if err := p.document(root); err != nil {
		line := 1 + strings.Count(p.text[:min(p.pos, len(p.text))], "\n")
		return nil, fmt.Errorf("line %d: %w", line, err)
	}
	return root, nil
}

type parser struct {
	text   string
	pos    int // of the next byte
	values int
}

// peek returns the next byte, 0 at the end.
func (p *parser) peek() byte {
	if p.pos < len(p.text) {
		return p.text[p.pos]
	}
	return 0
}

// take skips a word if it is next.
func (p *parser) take(word string) bool {
	ok := strings.HasPrefix(p.text[p.pos:], word)
	if ok {
		p.pos += len(word)
	}
	return ok
}

// space skips blanks; with lines, line ends and comments, too.
func (p *parser) space(lines bool) {
	for p.pos < len(p.text) {
		switch c := p.text[p.pos]; {
		case c == ' ', c == '\t', lines && (c == '\n' || c == '\r'):
			p.pos++
		case lines && c == '#':
			p.comment()
		default:
			return
		}
	}
}

// comment skips what is left of a line.
func (p *parser) comment() {
	if n := strings.IndexByte(p.text[p.pos:], '\n'); n >= 0 {
		p.pos += n
	} else {
		p.pos = len(p.text)
	}
}

var (
	errDeep    = fmt.Errorf("values are nested more than %d deep", maxDepth)
	errMany    = fmt.Errorf("there are more than %d values", maxValues)
	errKey     = errors.New("there is no key where one is expected")
	errLineEnd = errors.New("more stands in the line than one value")
	errTwice   = errors.New("a key is given twice")
	errString  = errors.New("a string has no end, or an escape that is unknown")
	errValue   = errors.New("there is no value where one is expected")
)

// count counts a value.
func (p *parser) count() error {
	if p.values++; p.values > maxValues {
		return errMany
	}
	return nil
}

func (p *parser) document(root Table) error {
	if !utf8.ValidString(p.text) {
		return errors.New("it is not UTF-8")
	}
	for at := root; ; {
		p.space(true)
		if p.pos == len(p.text) {
			return nil
		}
		var err error
		if p.peek() == '[' {
			at, err = p.header(root)
		} else {
			err = p.pair(at, 0)
		}
		if err != nil {
			return err
		}
		p.space(false)
		if c := p.peek(); c == '#' {
			p.comment()
		} else if c != '\n' && c != '\r' && p.pos < len(p.text) {
			return errLineEnd
		}
	}
}

// header reads [KEY] or [[KEY]], and returns the table whose values follow.
func (p *parser) header(root Table) (Table, error) {
	end := "]"
	if p.pos++; p.take("[") {
		end = "]]"
	}
	keys, err := p.key()
	if err != nil {
		return nil, err
	}
	if !p.take(end) {
		return nil, errKey
	}
	last := len(keys) - 1
	t, err := p.descend(root, keys[:last])
	if err != nil || end == "]" {
		if err == nil {
			t, err = p.descend(t, keys[last:])
		}
		return t, err
	}
	list, ok := t[keys[last]].([]any)
	if t[keys[last]] != nil && !ok {
		return nil, errTwice
	}
	added := Table{}
	t[keys[last]] = append(list, added)
	return added, p.count()
}

// descend returns the table at keys below t, and makes what is missing. Of an array it is the last one.
func (p *parser) descend(t Table, keys []string) (Table, error) {
	for _, k := range keys {
		switch v := t[k].(type) {
		case nil:
			next := Table{}
			t[k] = next
			if err := p.count(); err != nil {
				return nil, err
			}
			t = next
		case Table:
			t = v
		case []any:
			last, ok := Table(nil), false
			if len(v) > 0 {
				last, ok = v[len(v)-1].(Table)
			}
			if !ok {
				return nil, errTwice
			}
			t = last
		default:
			return nil, errTwice
		}
	}
	return t, nil
}

// pair reads KEY = VALUE into a table.
func (p *parser) pair(t Table, depth int) error {
	keys, err := p.key()
	if err != nil {
		return err
	}
	if !p.take("=") {
		return errKey
	}
	p.space(false)
	v, err := p.value(depth + 1)
	if err != nil {
		return err
	}
	last := len(keys) - 1
	if t, err = p.descend(t, keys[:last]); err != nil {
		return err
	}
	if _, is := t[keys[last]]; is {
		return errTwice
	}
	t[keys[last]] = v
	return nil
}

const bare = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"

// key reads a key of one part or more, and the blanks around it.
func (p *parser) key() (parts []string, err error) {
	for {
		p.space(false)
		var part string
		if c := p.peek(); c == '"' || c == '\'' {
			part, err = p.line(c)
		} else {
			part, err = p.bare()
		}
		switch parts = append(parts, part); {
		case err != nil:
			return nil, err
		case len(parts) > maxDepth:
			return nil, errDeep
		}
		p.space(false)
		if !p.take(".") {
			return parts, nil
		}
	}
}

// bare reads a part of a key without quotes.
func (p *parser) bare() (string, error) {
	n := len(p.text[p.pos:]) - len(strings.TrimLeft(p.text[p.pos:], bare))
	p.pos += n
	if n == 0 {
		return "", errKey
	}
	return p.text[p.pos-n : p.pos], nil
}

func (p *parser) value(depth int) (any, error) {
	if depth > maxDepth {
		return nil, errDeep
	}
	if err := p.count(); err != nil {
		return nil, err
	}
	switch c := p.peek(); c {
	case '"', '\'':
		if three := strings.Repeat(string(c), 3); p.take(three) {
			return p.lines(three)
		}
		return p.line(c)
	case '[':
		return p.array(depth)
	case '{':
		return p.inline(depth)
	}
	n := strings.IndexAny(p.text[p.pos:], ",]}#\n\r")
	if n < 0 {
		n = len(p.text) - p.pos
	}
	raw := strings.TrimRight(p.text[p.pos:p.pos+n], " \t")
	p.pos += n
	switch {
	case raw == "true", raw == "false":
		return raw == "true", nil
	case raw == "" || strings.Trim(raw, bare+"+.: ") != "":
		return nil, errValue
	}
	return Raw(raw), nil
}

func (p *parser) array(depth int) (any, error) {
	p.pos++
	list := []any{}
	for {
		if p.space(true); p.take("]") {
			return list, nil
		}
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
		if p.space(true); !p.take(",") && p.peek() != ']' {
			return nil, errValue
		}
	}
}

func (p *parser) inline(depth int) (any, error) {
	p.pos++
	t := Table{}
	for {
		if p.space(true); p.take("}") {
			return t, nil
		}
		if err := p.pair(t, depth); err != nil {
			return nil, err
		}
		if p.space(true); !p.take(",") && p.peek() != '}' {
			return nil, errValue
		}
	}
}

// line reads a string in quotes of one kind, which ends in its line.
func (p *parser) line(quote byte) (string, error) {
	p.pos++
	rest := p.text[p.pos:]
	n := closing(rest, string(quote)) // of what is looked at, all is read or the whole text is refused
	if n < 0 || strings.IndexByte(rest[:n], '\n') >= 0 {
		return "", errString
	}
	p.pos += n + 1
	if quote == '\'' {
		return rest[:n], nil
	}
	return unescape(rest[:n])
}

// lines reads a string in three quotes.
func (p *parser) lines(quotes string) (string, error) {
	if !p.take("\n") {
		p.take("\r\n") // the first line end is not part of it
	}
	rest := p.text[p.pos:]
	n := closing(rest, quotes)
	if n < 0 {
		return "", errString
	}
	for range 2 { // up to two quotes may stand before those at the end
		if strings.HasPrefix(rest[n+len(quotes):], quotes[:1]) {
			n++
		}
	}
	p.pos += n + len(quotes)
	if quotes[0] == '\'' {
		return rest[:n], nil
	}
	return unescape(rest[:n])
}

// closing returns where the quotes at the end of a string are, -1 if there are none.
func closing(s, quotes string) int {
	if quotes[0] == '\'' {
		return strings.Index(s, quotes)
	}
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\':
			i++
		case strings.HasPrefix(s[i:], quotes):
			return i
		}
	}
	return -1
}

// escapes are the characters that a backslash and a letter stand for.
var escapes = map[byte]string{'b': "\b", 't': "\t", 'n': "\n", 'f': "\f", 'r': "\r", 'e': "\x1b", '"': `"`, '\\': `\`}

// digits are how many hexadecimal digits follow the letter of an escape.
var digits = map[byte]int{'x': 2, 'u': 4, 'U': 8}

func unescape(s string) (string, error) {
	if strings.IndexByte(s, '\\') < 0 {
		return s, nil
	}
	var b strings.Builder
	for {
		n := strings.IndexByte(s, '\\')
		if n < 0 || n+1 == len(s) {
			b.WriteString(s)
			return b.String(), nil
		}
		b.WriteString(s[:n])
		letter := s[n+1]
		s = s[n+2:]
		count, hex := digits[letter]
		text, known := escapes[letter]
		switch {
		case hex:
			r, err := strconv.ParseUint(s[:min(count, len(s))], 16, 32)
			if err != nil || len(s) < count || !utf8.ValidRune(rune(r)) {
				return "", errString
			}
			b.WriteRune(rune(r))
			s = s[count:]
		case known:
			b.WriteString(text)
		case strings.IndexByte(" \t\r\n", letter) >= 0: // a line that goes on in the next one
			s = strings.TrimLeft(s, " \t\r\n")
		default:
			return "", errString
		}
	}
}
