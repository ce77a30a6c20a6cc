package text

import "strings"

// plainInShell are the characters that no shell gives a meaning, wherever they stand.
const plainInShell = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-:,"

// ShellWord returns s quoted as one word of a POSIX shell (XCU 2.2.2), as it is where no
// quotes are needed. It escapes nothing for a terminal: Line does.
func ShellWord(s string) string {
	if s != "" && strings.Trim(s, plainInShell) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
