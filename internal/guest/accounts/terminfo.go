package accounts

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"bawn.dev/bawn/internal/guest/etc"
)

// A terminal's type is known if the guest has a terminfo entry for it (terminfo(5)). The
// host sends its own entry along in the variable TERMINFO, in the form that ncurses defines
// for a description in the environment: "b64:" and the compiled entry (ncurses(3)). Many
// programs read entries from files only, so the entry becomes a file of the guest, and the
// variable is removed.

// inlineTerminfo begins a value of TERMINFO that holds a compiled entry.
const inlineTerminfo = "b64:"

// maxTerminfo bounds a compiled entry, in bytes (term(5): 32768).
const maxTerminfo = 32 << 10

// sentTerminfo is where entries that the host sends are kept. It is in the search path of
// every distribution's ncurses.
const sentTerminfo = "/etc/terminfo"

// terminfoDirs are the folders of entries that distributions have.
var terminfoDirs = []string{sentTerminfo, "/lib/terminfo", "/usr/share/terminfo", "/usr/lib/terminfo", "/usr/local/share/terminfo"}

// terminalName matches the types that may name a file.
var terminalName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$`)

// knownTerminal replaces a type of terminal that the guest does not know, and of which the
// host sent no entry, by one that nearly every terminal understands. In a guest without any
// entries the type stays: its programs know types by themselves.
func (e *environment) knownTerminal(root, home string) {
	entry, sent := strings.CutPrefix(Getenv(*e, "TERMINFO"), inlineTerminfo)
	if sent {
		e.unset("TERMINFO")
	}
	name := Getenv(*e, "TERM")
	dirs := e.terminfoDirs(root, home)
	if name == "" || name == "dumb" || hasTerminfo(dirs, name) {
		return
	}
	if sent && writeTerminfo(root+sentTerminfo, name, entry) == nil {
		return
	}
	if slices.ContainsFunc(dirs, isFolder) {
		e.set("TERM=" + plainTerminal(name))
	}
}

// plainTerminal returns the type that replaces an unknown one.
func plainTerminal(name string) string {
	if strings.HasPrefix(name, "screen") || strings.HasPrefix(name, "tmux") {
		return "screen-256color"
	}
	return "xterm-256color"
}

// terminfoDirs returns the folders in which programs look for entries.
func (e *environment) terminfoDirs(root, home string) []string {
	dirs := []string{filepath.Join(root, home, ".terminfo")}
	own := append(strings.Split(Getenv(*e, "TERMINFO_DIRS"), ":"), Getenv(*e, "TERMINFO"))
	for _, d := range append(own, terminfoDirs...) {
		if filepath.IsAbs(d) {
			dirs = append(dirs, filepath.Join(root, d))
		}
	}
	return dirs
}

// hasTerminfo reports whether a folder has an entry of the name, which is below the name's
// first letter or the number of that letter in hexadecimal (term(5)).
func hasTerminfo(dirs []string, name string) bool {
	if !terminalName.MatchString(name) {
		return false
	}
	for _, d := range dirs {
		for _, sub := range []string{name[:1], fmt.Sprintf("%x", name[0])} {
			if fi, err := os.Stat(filepath.Join(d, sub, name)); err == nil && fi.Mode().IsRegular() {
				return true
			}
		}
	}
	return false
}

// writeTerminfo writes a compiled entry, in base64, to the folder.
func writeTerminfo(dir, name, entry string) error {
	if !terminalName.MatchString(name) || len(entry) > base64.StdEncoding.EncodedLen(maxTerminfo) {
		return fmt.Errorf("terminfo entry %q: the name is no file name, or the entry is too long", name)
	}
	b, err := base64.StdEncoding.DecodeString(entry)
	if err != nil {
		return fmt.Errorf("terminfo entry %s: %w", name, err)
	}
	if !compiledTerminfo(b) {
		return fmt.Errorf("terminfo entry %s: not compiled by tic", name)
	}
	return etc.Replace(filepath.Join(dir, name[:1], name), b, 0o644)
}

// compiledTerminfo reports whether b begins as a compiled terminfo entry (term(5)): with
// octal 0432, or 01036 for 32-bit numbers, low byte first.
func compiledTerminfo(b []byte) bool {
	return len(b) > 12 && len(b) <= maxTerminfo && (b[0] == 0x1a && b[1] == 0x01 || b[0] == 0x1e && b[1] == 0x02)
}
