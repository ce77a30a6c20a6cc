package engine

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"bawn.dev/bawn/internal/sys/regular"
)

// maxTerminfo bounds a compiled terminfo entry, in bytes (term(5)).
const maxTerminfo = 32 << 10

// InlineTerminfo returns this host's terminfo entry of a type of terminal as a value of the
// variable TERMINFO (ncurses(3): "b64:" and the compiled entry in base64), for a guest that
// does not know the type. It is empty where this host has none either.
func InlineTerminfo(name string) string {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return ""
	}
	for _, dir := range terminfoDirs() {
		for _, sub := range []string{name[:1], fmt.Sprintf("%x", name[0])} {
			if b := terminfoEntry(filepath.Join(dir, sub, name)); b != nil {
				return "b64:" + base64.StdEncoding.EncodeToString(b)
			}
		}
	}
	return ""
}

// terminfoDirs returns the folders in which ncurses looks for entries, in its order
// (terminfo(5)).
func terminfoDirs() []string {
	list := []string{os.Getenv("TERMINFO")}
	if home, err := os.UserHomeDir(); err == nil {
		list = append(list, filepath.Join(home, ".terminfo"))
	}
	list = append(list, strings.Split(os.Getenv("TERMINFO_DIRS"), ":")...)
	list = append(list, "/etc/terminfo", "/lib/terminfo", "/usr/share/terminfo", "/usr/lib/terminfo", "/usr/local/share/terminfo")
	var dirs []string
	for _, d := range list {
		if filepath.IsAbs(d) {
			dirs = append(dirs, d)
		}
	}
	return dirs
}

// terminfoEntry returns a compiled entry; nil unless the file is one: it begins with octal
// 0432, or 01036 for 32-bit numbers, low byte first (term(5)).
func terminfoEntry(path string) []byte {
	b, err := regular.Read(path, maxTerminfo, 0)
	if err != nil || len(b) < 12 {
		return nil
	}
	switch [2]byte(b) {
	case [2]byte{0x1a, 0x01}, [2]byte{0x1e, 0x02}:
		return b
	}
	return nil
}
