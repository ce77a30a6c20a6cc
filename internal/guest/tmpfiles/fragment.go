package tmpfiles

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// line is one line of a fragment (tmpfiles.d(5)).
type line struct {
	kind        byte // d, D, f, F, L or p
	replace     bool // with + after the type
	optional    bool // with ? after the type
	path        string
	mode        uint32
	user, group string // names or numbers; empty is root
	argument    string
}

// Modes of what a line gives none for (tmpfiles.d(5)).
const (
	dirMode  = 0o755
	fileMode = 0o644
)

// parse returns the line. ok is false for comments, for types that make nothing, and for what
// is malformed.
func parse(text string) (l line, ok bool) {
	f := fields(strings.TrimSpace(text))
	if len(f) < 2 || strings.HasPrefix(f[0], "#") {
		return line{}, false
	}
	for len(f) < 7 {
		f = append(f, "")
	}
	for i := range f {
		if f[i] == "-" {
			f[i] = ""
		}
	}
	l = line{replace: strings.Contains(f[0], "+"), optional: strings.Contains(f[0], "?"), user: f[3], group: f[4]}
	switch l.kind = f[0][0]; l.kind {
	case 'd', 'D', 'f', 'F', 'L', 'p':
	case 'v', 'q', 'Q': // subvolumes, or folders where there are none
		l.kind = 'd'
	default:
		return line{}, false
	}
	if l.kind == 'f' && l.replace {
		l.kind = 'F'
	}
	path, ok1 := expand(f[1])
	argument, ok2 := expand(f[6])
	if !ok1 || !ok2 || !filepath.IsAbs(path) {
		return line{}, false
	}
	l.path, l.argument = runPath(filepath.Clean(path)), argument
	if l.kind == 'f' || l.kind == 'F' {
		l.argument = unescape(argument)
	}
	l.mode, ok = parseMode(f[2], l.kind)
	return l, ok
}

// runPath returns the path without the old name of /run.
func runPath(path string) string {
	if rest, ok := strings.CutPrefix(path, "/var/run/"); ok {
		return "/run/" + rest
	}
	return path
}

// parseMode returns the mode of a line of that type. What stands before the number only
// changes how it applies to existing files.
func parseMode(s string, kind byte) (mode uint32, ok bool) {
	s = strings.TrimLeft(s, "~:")
	switch {
	case s != "":
	case kind == 'd' || kind == 'D':
		return dirMode, true
	default:
		return fileMode, true
	}
	n, err := strconv.ParseUint(s, 8, 32)
	return uint32(n), err == nil && n <= 0o7777
}

// fields splits a line at blanks. A field may stand in quotes; the seventh is the rest of the
// line.
func fields(text string) []string {
	var list []string
	for len(list) < 6 && text != "" {
		var f string
		if quote := text[0]; quote == '"' || quote == '\'' {
			end := strings.IndexByte(text[1:], quote)
			if end < 0 {
				return nil
			}
			f, text = text[1:1+end], text[2+end:]
		} else {
			end := strings.IndexAny(text, " \t")
			if end < 0 {
				end = len(text)
			}
			f, text = text[:end], text[end:]
		}
		list = append(list, f)
		text = strings.TrimLeft(text, " \t")
	}
	if text != "" {
		list = append(list, text)
	}
	return list
}

// specifiers are those of tmpfiles.d(5) whose values are the same in every guest. A line
// with another one is left out.
var specifiers = map[byte]string{
	'%': "%", 't': "/run", 'S': "/var/lib", 'C': "/var/cache", 'L': "/var/log", 'T': "/tmp", 'V': "/var/tmp",
	'u': "root", 'U': "0", 'g': "root", 'G': "0", 'h': "/root",
}

// expand replaces the specifiers.
func expand(s string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i++; i == len(s) {
			return "", false
		}
		v, ok := specifiers[s[i]]
		if !ok {
			return "", false
		}
		b.WriteString(v)
	}
	return b.String(), true
}

// unescape replaces the escapes of C in the contents of a file.
func unescape(s string) string {
	return strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\t`, "\t").Replace(s)
}

// number returns the number of a user or group, which is given by number or by name; look
// finds a name in the file.
func number(file, name string, look func(file, name string) (uint32, bool)) (int, error) {
	name = strings.TrimPrefix(name, ":")
	if name == "" || name == "root" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(name, 10, 32); err == nil {
		return int(n), nil
	}
	if n, ok := look(file, name); ok {
		return int(n), nil
	}
	return 0, fmt.Errorf("%s is not in %s", name, filepath.Base(file))
}
