package review

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"

	"bawn.dev/bawn/internal/undo"
)

// # What git status does not show
//
// git on the host goes by files that the guest writes: the index says which files git is to take for unchanged, a list
// of references may replace commits and files by others. Such entries are few and deliberate, so that new ones
// are told. Nothing here trusts the files: what cannot be read is told too.

// maxIndex bounds an index that is read, in bytes: some 500,000 paths.
const maxIndex = 64 << 20

// gitFile judges a file below a directory .git by what it contains. ok is false for one that is judged by its
// name alone.
func (f *Finder) gitFile(c *undo.Change, below string) (list []Finding, ok bool) {
	base := below[strings.LastIndexByte(below, '/')+1:]
	switch {
	case strings.HasPrefix(below, "objects/") || strings.Contains(below, "refs/") || strings.HasPrefix(below, "logs/") || c.Now.Kind != undo.File:
		return nil, false
	case base == "index" || strings.HasPrefix(base, "sharedindex."):
		return f.index(c), true
	case base == "packed-refs":
		return f.packedRefs(c), true
	}
	return nil, false
}

// packedRefs finds replaced objects in a list of references (git-pack-refs(1)).
func (f *Finder) packedRefs(c *undo.Change) []Finding {
	if f.Src == nil {
		return nil
	}
	now, ok := f.Src.Now(c, maxIndex)
	if !ok {
		return one(c, Git, "cannot be read, and may name objects that replace others")
	}
	was, _ := f.Src.Before(c, maxIndex) // none: all are new
	for line := range bytes.Lines(now) {
		if bytes.Contains(line, []byte(" refs/replace/")) && !bytes.Contains(was, bytes.TrimRight(line, "\n")) {
			return one(c, Git, replaced)
		}
	}
	return nil
}

const replaced = "git shows other contents than the commits have"

// index finds files that git takes for unchanged from now on, whatever they contain.
func (f *Finder) index(c *undo.Change) []Finding {
	if f.Src == nil {
		return nil
	}
	data, _ := f.Src.Now(c, maxIndex)
	now, ok := skippedIn(data)
	if !ok {
		return one(c, Git, "cannot be read: git status may leave out files")
	}
	data, _ = f.Src.Before(c, maxIndex)
	was, _ := skippedIn(data)
	more := nameless(now) > nameless(was)
	now = slices.DeleteFunc(now, func(name string) bool { _, had := slices.BinarySearch(was, name); return had || name == "" })
	if more {
		now = append(now, "files of its shared part")
	}
	if len(now) == 0 {
		return nil
	}
	return one(c, Git, "git status leaves out changes of "+shorten(now)+" (git update-index --assume-unchanged, --skip-worktree)")
}

// nameless returns how many of the sorted names are "": entries of a split index whose names the shared part has.
func nameless(names []string) int {
	n, _ := slices.BinarySearch(names, "\x00")
	return n
}

// Fields of an entry of the index (gitformat-index(5)).
const (
	indexHead     = 12
	statBytes     = 40
	assumeValid   = 1 << 15
	extended      = 1 << 14
	skipWorktree  = 1 << 14 // of the extended flags
	maxNameInFlag = 0xfff
)

// skippedIn returns the paths of an index that git takes for unchanged, sorted. ok is false for what is no index. The
// hashes in it are those of SHA-1, or of SHA-256.
func skippedIn(data []byte) (names []string, ok bool) {
	if len(data) < indexHead || string(data[:4]) != "DIRC" {
		return nil, false
	}
	version, count := binary.BigEndian.Uint32(data[4:]), binary.BigEndian.Uint32(data[8:])
	if version < 2 || version > 4 {
		return nil, false
	}
	for _, hash := range []int{20, 32} {
		if names, ok := skippedEntries(data[indexHead:], version, count, hash); ok {
			slices.Sort(names)
			return names, true
		}
	}
	return nil, false
}

// skippedEntries reads the entries with hashes of so many bytes.
func skippedEntries(b []byte, version, count uint32, hash int) (names []string, ok bool) {
	var last string
	for range count {
		e, rest, ok := readEntry(b, version, hash, last)
		if !ok || e.name < last { // they are sorted
			return nil, false
		}
		if e.skipped {
			names = append(names, e.name)
		}
		last, b = e.name, rest
	}
	return names, true
}

type indexEntry struct {
	name    string
	skipped bool
}

// readEntry reads one entry and returns what follows. last is the name of the entry before, which an entry of
// version 4 begins with in part.
func readEntry(b []byte, version uint32, hash int, last string) (e indexEntry, rest []byte, ok bool) {
	head := statBytes + hash + 2
	if len(b) < head {
		return e, nil, false
	}
	flags := binary.BigEndian.Uint16(b[head-2:])
	e.skipped = flags&assumeValid != 0
	if flags&extended != 0 {
		if version < 3 || len(b) < head+2 {
			return e, nil, false
		}
		e.skipped = e.skipped || binary.BigEndian.Uint16(b[head:])&skipWorktree != 0
		head += 2
	}
	name := b[head:]
	if version == 4 {
		drop, n := offsetVarint(name)
		if n == 0 || drop > uint64(len(last)) {
			return e, nil, false
		}
		e.name, name, head = last[:uint64(len(last))-drop], name[n:], head+n
	}
	end := bytes.IndexByte(name, 0)
	if end < 0 {
		return e, nil, false
	}
	e.name += string(name[:end])
	if stated := int(flags & maxNameInFlag); e.name == "" && stated != 0 || stated != min(len(e.name), maxNameInFlag) {
		return e, nil, false
	}
	size := head + end + 1
	if version < 4 {
		size = (head + end + 8) / 8 * 8
	}
	if size > len(b) {
		return e, nil, false
	}
	return e, b[size:], true
}

// offsetVarint reads a number as git writes offsets in packs: seven bits a byte, and one more for each byte that
// follows. n is 0 if it does not end.
func offsetVarint(b []byte) (v uint64, n int) {
	for i, c := range b[:min(len(b), 8)] {
		v = v<<7 | uint64(c&0x7f)
		if c&0x80 == 0 {
			return v, i + 1
		}
		v++
	}
	return 0, 0
}
