package share

import (
	"slices"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/share/guard"
)

// A listing leaves out what the guest does not see, and ends with the private versions that
// the host's directory does not show.

// ownOffset is the first offset of an entry that is a private version. The host's file
// systems use other offsets: small numbers, hashes of which none of note falls into this
// range, and 1<<63-1 for the end.
const ownOffset = 1<<63 - 1<<20

func isOwnOffset(o uint64) bool { return o >= ownOffset && o <= ownOffset+maxPrivateFiles }

// shownDir judges the entries of a directory. A nil one shows all of them, the zero value none.
type shownDir struct {
	*view
	versions []string // names in the store
}

// listView returns the judge of a listing, and at its beginning finds the private versions.
func (f *fileSystem) listView(h *handle, offset uint64) *shownDir {
	if f.rules == nil {
		return nil
	}
	v, err := f.view(h.node)
	if err != nil {
		return &shownDir{} // a removed directory is empty
	}
	l := &shownDir{view: v}
	if f.private == nil || v.chain.private || v.slot != nil {
		return l
	}
	l.versions = f.private.versions(v.chain.names)
	if offset == 0 {
		h.dir.own = nil
		for _, name := range l.versions {
			kind := v.judge(name, false)
			if _, err := statAt(h.fd, name); kind == guard.Hidden || kind == guard.Guarded && err != nil {
				h.dir.own = append(h.dir.own, name)
			}
		}
	}
	return l
}

// shows reports whether the guest sees an entry of the host's directory.
func (l *shownDir) shows(e *dirent) bool {
	if l != nil && l.view == nil {
		return false
	}
	if l == nil || !l.fs.rules.Candidate(e.Name) {
		return true
	}
	e.ruled = true
	switch l.judge(e.Name, false) {
	case guard.Hidden:
		return false
	case guard.Guarded:
		if l.fs.private == nil || l.slot != nil {
			return true
		}
		there, removed := l.fs.private.version(l.chain.names, e.Name)
		e.own = there
		return !removed
	}
	return true
}

// listOwn lists private versions from an offset on.
func (f *fileSystem) listOwn(h *handle, l *shownDir, offset uint64, put func(h *handle, e dirent) bool) {
	if l == nil || l.view == nil {
		return
	}
	for i := offset - ownOffset; i < uint64(len(h.dir.own)); i++ {
		name := h.dir.own[i]
		if !slices.Contains(l.versions, name) {
			continue
		}
		p, err := f.slotPlace(l.chain.names, name)
		if err != nil {
			continue
		}
		st, err := statAt(p.dir.fd, p.name)
		p.close()
		if err != nil {
			continue
		}
		e := dirent{own: true}
		e.Name, e.Ino, e.Off, e.Mode = name, st.Ino, ownOffset+i+1, uint32(st.Mode&unix.S_IFMT)
		if !put(h, e) {
			return
		}
	}
}

// enterListed fills in the attributes of a listed entry that rules may apply to. If it fails, the
// guest looks the name up.
func (f *fileSystem) enterListed(dir *node, name string, out *fuse.DirEntryList, entry *fuse.EntryOut) {
	s, err := f.look(dir, name)
	if err != nil {
		return
	}
	defer s.close()
	if f.find(&s, dir, name, entry) != nil {
		return
	}
	out.FixMode(entry.Mode)
}
