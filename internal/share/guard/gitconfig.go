package guard

import "strings"

// variable is one of git's configuration. Section and name are in lower case; the subsection is left out.
type variable struct {
	section, name, value string
}

// variables reads a file of git's configuration (git-config(1), CONFIGURATION FILE). It is for finding what a
// file names, so it takes all that any version of git takes, and goes on behind what none does: a file that
// git reads and this does not would leave unguarded what it names.
func variables(text string) (list []variable) {
	p := configParser{rest: strings.ReplaceAll(strings.TrimPrefix(text, "\ufeff"), "\r\n", "\n")}
	section := ""
	for {
		p.rest = strings.TrimLeft(p.rest, " \t\r\n\v\f")
		switch {
		case p.rest == "":
			return list
		case p.rest[0] == '#' || p.rest[0] == ';':
			p.line()
		case p.rest[0] == '[':
			section = p.header()
		default:
			if name := p.name(); name != "" {
				list = append(list, variable{section, name, p.value()})
			} else {
				p.line()
			}
		}
	}
}

type configParser struct{ rest string }

// line takes the rest of the line.
func (p *configParser) line() {
	_, p.rest, _ = strings.Cut(p.rest, "\n")
}

// header takes the head of a section, and returns the section's name.
func (p *configParser) header() string {
	end := strings.IndexAny(p.rest, " \t\".]\n")
	if end < 0 {
		p.rest = ""
		return ""
	}
	name := p.rest[1:end]
	quoted := false
	for i := end; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == '\n':
			p.rest = p.rest[i:]
			return strings.ToLower(name)
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case c == ']' && !quoted:
			p.rest = p.rest[i+1:]
			return strings.ToLower(name)
		}
	}
	p.rest = ""
	return strings.ToLower(name)
}

// name takes the name of a variable, and what stands before its value.
func (p *configParser) name() string {
	end := strings.IndexFunc(p.rest, func(c rune) bool {
		return c != '-' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z')
	})
	if end < 0 {
		end = len(p.rest)
	}
	name := strings.ToLower(p.rest[:end])
	p.rest = strings.TrimLeft(p.rest[end:], " \t\r\v\f")
	return name
}

// value takes a value with its sign "=", to the end of the line. Without the sign there is none.
func (p *configParser) value() string {
	if !strings.HasPrefix(p.rest, "=") {
		p.line()
		return ""
	}
	var b strings.Builder
	quoted, kept := false, 0 // kept: up to here, blanks at the end count
	i := 1
	for ; i < len(p.rest); i++ {
		c := p.rest[i]
		switch {
		case c == '\n':
			p.rest = p.rest[i:]
			return b.String()[:kept]
		case c == '"':
			quoted = !quoted
			kept = b.Len()
			continue
		case (c == '#' || c == ';') && !quoted:
			p.rest = p.rest[i:]
			p.line()
			return b.String()[:kept]
		case c == '\\' && i+1 < len(p.rest):
			i++
			c = p.rest[i]
			if c == '\n' {
				continue
			}
			if at := strings.IndexByte("ntb", c); at >= 0 {
				c = "\n\t\b"[at]
			}
			b.WriteByte(c)
			kept = b.Len()
			continue
		case !quoted && strings.IndexByte(" \t\r\v\f", c) >= 0:
			if kept > 0 {
				b.WriteByte(c)
			}
			continue
		}
		b.WriteByte(c)
		kept = b.Len()
	}
	p.rest = ""
	return b.String()[:kept]
}
