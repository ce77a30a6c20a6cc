package session

import (
	"bytes"
	"strings"
)

// IncludeLine returns the line of ssh_config(5) that includes the files of a pattern for
// glob(7), made of an absolute folder and the rest of the pattern. Characters of the folder
// that ssh could read as something else (some versions of it expand tokens and variables
// here) become "?", which stands for any one character.
func IncludeLine(folder, rest string) string {
	plain := strings.Map(func(r rune) rune {
		if r < ' ' || strings.ContainsRune(`"'\*?[]{}$%`, r) {
			return '?'
		}
		return r
	}, folder)
	return `Include "` + plain + "/" + rest + `"`
}

// WithInclude returns an ssh_config with the line as its first, and nowhere else. All other
// bytes stay as they are.
func WithInclude(config []byte, line string) []byte {
	return append([]byte(line+"\n"), WithoutInclude(config, line)...)
}

// WithoutInclude returns an ssh_config without the line. All other bytes stay as they are.
func WithoutInclude(config []byte, line string) []byte {
	var rest []byte
	for l := range bytes.Lines(config) {
		if string(bytes.TrimRight(l, "\r\n")) != line {
			rest = append(rest, l...)
		}
	}
	return rest
}
