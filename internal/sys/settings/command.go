package settings

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"bawn.dev/bawn/internal/sys/proc"
)

// CheckCommand returns an error if a shell command of the user's settings names a file or folder, by a path from the
// root or from the home directory, that a guest or another user could have written: it may be the program, a script
// for it or its settings. Paths that the shell puts together of parts are not found. Programs without a path are found
// by the PATH that package proc gives the shell.
func CheckCommand(command string) error {
	for _, word := range append(shellWords(command), strings.FieldsFunc(command, endsWord)...) {
		path := inHome(word)
		if !filepath.IsAbs(path) {
			continue
		}
		fi, err := os.Stat(path)
		if err != nil || !fi.Mode().IsRegular() && !fi.IsDir() { // nothing, or a device such as /dev/null
			continue
		}
		if err := proc.Trusted(path); err != nil {
			return fmt.Errorf("it names %s, which is not used: %w", word, err)
		}
	}
	return nil
}

// endsWord reports whether a character ends a word of the shell or a part of one that may be a path.
func endsWord(c rune) bool { return strings.ContainsRune(" \t\r\n;|&()<>`\"'=", c) }

// shellWords splits a command at the characters of endsWord outside of quotes, and takes the quotes away.
func shellWords(command string) (words []string) {
	var word strings.Builder
	quote, escaped := rune(0), false
	for _, c := range command {
		switch {
		case escaped:
			word.WriteRune(c)
			escaped = false
		case c == '\\' && quote != '\'':
			escaped = true
		case c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case quote == 0 && endsWord(c):
			words = append(words, word.String())
			word.Reset()
		default:
			word.WriteRune(c)
		}
	}
	return append(words, word.String())
}

// inHome returns a word with the home directory in place of its name at the beginning.
func inHome(word string) string {
	for _, name := range []string{"~/", "$HOME/", "${HOME}/"} {
		if rest, ok := strings.CutPrefix(word, name); ok {
			if home, err := os.UserHomeDir(); err == nil {
				return filepath.Join(home, rest)
			}
		}
	}
	return word
}
