package share

import (
	"container/list"
	"encoding/binary"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// OpenDir implements fuse.RawFileSystem.
func (f *fileSystem) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n, err := f.nodeFor(readNode, &in.InHeader)
	if err == nil && !n.isDir() {
		err = unix.ENOTDIR
	}
	if err != nil {
		return status(err)
	}
	place, st, err := f.openByName(n)
	if err != nil {
		return status(err)
	}
	defer unix.Close(place)
	f.tree.holdDir(n, place, st)
	fd, err := reopen(place, unix.O_RDONLY|unix.O_DIRECTORY, st)
	if err != nil {
		return status(err)
	}
	h, err := f.add(n, fd, unix.O_RDONLY|unix.O_DIRECTORY, nil)
	if err != nil {
		unix.Close(fd)
		return status(err)
	}
	out.Fh = h.id
	return fuse.OK
}

// dirReader is the position in an open directory.
type dirReader struct {
	mu   sync.Mutex
	at   uint64 // cookie of the next entry in rest
	rest []byte
	buf  *[direntBuffer]byte // nil, or what rest lies in
	lost bool                // rest was dropped: the descriptor is further than at
	own  []string            // names of private versions that the host's directory does not show

	element *list.Element // guarded by listings.mu
}

// listings are the directory readers that hold entries in memory, the latest used first.
type listings struct {
	mu   sync.Mutex
	open *list.List
	max  int
}

// keep notes the end of a request on a reader, whose mutex the caller holds. A reader that
// was used long ago loses its entries, and reads them again when it is used.
func (l *listings) keep(d *dirReader) {
	if len(d.rest) == 0 {
		d.free()
		l.drop(d)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if d.element == nil {
		d.element = l.open.PushFront(d)
	}
	l.open.MoveToFront(d.element)
	for l.open.Len() > l.max {
		e := l.open.Back()
		old, ok := l.open.Remove(e).(*dirReader)
		if !ok {
			panic("share: the list holds readers")
		}
		old.element = nil
		if old.mu.TryLock() { // else it is in use, and kept again after that
			old.free()
			old.lost = true
			old.mu.Unlock()
		}
	}
}

// direntBuffers are buffers of readers that need none.
var direntBuffers = sync.Pool{New: func() any { return new([direntBuffer]byte) }}

// free drops what was read and not taken.
func (d *dirReader) free() {
	if d.buf != nil {
		direntBuffers.Put(d.buf)
	}
	d.rest, d.buf = nil, nil
}

// drop forgets a reader.
func (l *listings) drop(d *dirReader) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d.element != nil {
		l.open.Remove(d.element)
		d.element = nil
	}
}

// dirent is one entry of getdents64(2).
type dirent struct {
	fuse.DirEntry
	size  int  // in the buffer
	own   bool // a private version
	ruled bool // rules may apply to the name
}

// Layout of struct linux_dirent64 (getdents(2)).
const (
	direntOff    = 8
	direntLen    = 16
	direntType   = 18
	direntName   = 19
	direntBuffer = 32 << 10
	typeShift    = 12 // from DT_* to S_IFMT
)

// next returns the entry at the cookie, without taking it. ok is false at the
// end.
func (d *dirReader) next(fd int) (e dirent, ok bool, err error) {
	if len(d.rest) == 0 {
		if d.buf == nil {
			buf, ok := direntBuffers.Get().(*[direntBuffer]byte)
			if !ok {
				panic("share: the pool holds buffers")
			}
			d.buf = buf
		}
		n, err := unix.Getdents(fd, d.buf[:])
		if err != nil || n == 0 {
			return e, false, err
		}
		d.rest = d.buf[:n]
	}
	b := d.rest
	e.size = int(binary.NativeEndian.Uint16(b[direntLen:]))
	e.Ino = binary.NativeEndian.Uint64(b)
	e.Off = binary.NativeEndian.Uint64(b[direntOff:])
	e.Mode = uint32(b[direntType]) << typeShift
	name := b[direntName:e.size]
	for i, c := range name {
		if c == 0 {
			name = name[:i]
			break
		}
	}
	e.Name = string(name)
	return e, true, nil
}

func (d *dirReader) take(e dirent) {
	d.rest = d.rest[e.size:]
	d.at = e.Off
}

// seek goes to a cookie that an entry had.
func (d *dirReader) seek(fd int, cookie uint64) error {
	if cookie == d.at && !d.lost {
		return nil
	}
	d.rest, d.lost = nil, false
	d.at = cookie
	_, err := unix.Seek(fd, int64(cookie), 0)
	return err
}

// list calls put for the entries from an offset on, until it returns false. Names that the
// share does not show are left out.
func (f *fileSystem) list(in *fuse.ReadIn, put func(h *handle, e dirent) bool) fuse.Status {
	h, err := f.handle(in.Fh)
	if err != nil {
		return status(err)
	}
	defer f.done(h)
	if !h.node.isDir() {
		return fuse.ENOTDIR
	}
	h.dir.mu.Lock()
	defer h.dir.mu.Unlock()
	defer f.listings.keep(&h.dir)
	v := f.listView(h, in.Offset)
	if isOwnOffset(in.Offset) {
		f.listOwn(h, v, in.Offset, put)
		return fuse.OK
	}
	if err := h.dir.seek(h.fd, in.Offset); err != nil {
		return status(err)
	}
	for {
		e, ok, err := h.dir.next(h.fd)
		if err != nil {
			return status(err)
		}
		if !ok {
			f.listOwn(h, v, ownOffset, put)
			return fuse.OK
		}
		if (isDots(e.Name) || f.check(lookupName, h.node, e.Name) == nil && v.shows(&e) && !f.listsVanished(h, &e)) && !put(h, e) {
			return fuse.OK
		}
		h.dir.take(e)
	}
}

// isDots reports whether a directory entry leads to the directory itself or its parent.
func isDots(name string) bool { return name == "." || name == ".." }

// ReadDir implements fuse.RawFileSystem.
func (f *fileSystem) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.list(in, func(_ *handle, e dirent) bool { return out.AddDirEntry(e.DirEntry) })
}

// ReadDirPlus implements fuse.RawFileSystem.
func (f *fileSystem) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.list(in, func(h *handle, e dirent) bool {
		entry := out.AddDirLookupEntry(e.DirEntry)
		if entry == nil {
			return false
		}
		if isDots(e.Name) {
			return true
		}
		if e.own || e.ruled {
			f.enterListed(h.node, e.Name, out, entry)
			return true
		}
		if st, err := statAt(h.fd, e.Name); err == nil && f.checkMount(h.fd, e.Name, st) == nil {
			out.FixMode(uint32(st.Mode))
			if f.entry(h.node, e.Name, false, file{h.fd, e.Name}, st, entry) == nil { // else the guest looks it up
				out.FixMode(entry.Mode)
				entry.SetEntryTimeout(listedFor)
				if entry.AttrTimeout() > 0 {
					entry.SetAttrTimeout(listedFor)
				}
			}
		}
		return true
	})
}
