package accounts

import (
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// neutralLocale is built into the C libraries (glibc since 2.35, musl) and into Debian's
// libc-bin before that. Its character set is UTF-8.
const neutralLocale = "C.UTF-8"

// localeVars are the variables that name a locale (locale(7)).
var localeVars = []string{
	"LANG", "LC_ALL", "LC_ADDRESS", "LC_COLLATE", "LC_CTYPE", "LC_IDENTIFICATION", "LC_MEASUREMENT", "LC_MESSAGES",
	"LC_MONETARY", "LC_NAME", "LC_NUMERIC", "LC_PAPER", "LC_TELEPHONE", "LC_TIME",
}

// ownLocales are the variables by which the environment says where its locales are: glibc's
// and Nix's. With them nothing is known about which ones exist.
var ownLocales = []string{"LOCPATH", "LOCALE_ARCHIVE"}

// knownLocales replaces each locale that the guest does not have by neutralLocale. Programs
// would warn about it and work in ASCII.
func (e *environment) knownLocales(root string) {
	for _, v := range ownLocales {
		if Getenv(*e, v) != "" {
			return
		}
	}
	var installed []string
	for _, v := range localeVars {
		name := Getenv(*e, v)
		if name == "" || builtInLocale(name) {
			continue
		}
		if installed == nil {
			installed = append(archivedLocales(root+localeDir+"/locale-archive"), "")
		}
		if !slices.Contains(installed, normalLocale(name)) && !localeFolder(root, name) {
			e.set(v + "=" + neutralLocale)
		}
	}
}

// localeDir is where glibc keeps its locales (locale(1), FILES).
const localeDir = "/usr/lib/locale"

func builtInLocale(name string) bool {
	return name == "C" || name == "POSIX" || normalLocale(name) == "C.utf8"
}

// normalLocale returns the name with its character set as glibc writes it: letters and
// digits only, in lower case.
func normalLocale(name string) string {
	name, modifier, has := strings.Cut(name, "@")
	language, charset, ok := strings.Cut(name, ".")
	if ok {
		language += "." + strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
				return r
			}
			return -1
		}, strings.ToLower(charset))
	}
	if has {
		language += "@" + modifier
	}
	return language
}

// localeFolder reports whether the locale has a folder of its own.
func localeFolder(root, name string) bool {
	if strings.Contains(name, "/") {
		return false
	}
	for _, n := range []string{name, normalLocale(name)} {
		if fi, err := os.Stat(filepath.Join(root, localeDir, n, "LC_CTYPE")); err == nil && fi.Mode().IsRegular() {
			return true
		}
	}
	return false
}

// The header of a locale archive (glibc, locale/locarchive.h): 32-bit numbers in the
// machine's byte order.
const (
	archiveMagic   = 0xde020109
	archiveHeader  = 56 // bytes
	namehashOffset = 8
	namehashSize   = 16 // entries, used or not
	namehashEntry  = 12 // bytes: hash, offset of the name, offset of the locale

	maxNamehash   = 1 << 16 // entries
	maxLocaleName = 64      // bytes
)

// archivedLocales returns the names in a locale archive. One that is missing or damaged has
// none.
func archivedLocales(path string) []string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil
	}
	head := make([]byte, archiveHeader)
	if _, err := io.ReadFull(f, head); err != nil || binary.NativeEndian.Uint32(head) != archiveMagic {
		return nil
	}
	at, size := binary.NativeEndian.Uint32(head[namehashOffset:]), binary.NativeEndian.Uint32(head[namehashSize:])
	if size > maxNamehash {
		return nil
	}
	table := make([]byte, size*namehashEntry)
	if _, err := f.ReadAt(table, int64(at)); err != nil {
		return nil
	}
	var names []string
	for entry := range slices.Chunk(table, namehashEntry) {
		if locale := binary.NativeEndian.Uint32(entry[8:]); locale == 0 {
			continue // free
		}
		b := make([]byte, maxLocaleName)
		n, _ := f.ReadAt(b, int64(binary.NativeEndian.Uint32(entry[4:]))) // what was read counts
		if name, _, ok := strings.Cut(string(b[:n]), "\x00"); ok {
			names = append(names, normalLocale(name))
		}
	}
	return names
}
