package share

import (
	"bytes"
	"encoding/binary"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The guest's own changes. The supervisor watches the directories on the host, and there the
// guest's changes look like those of any program. The guest's kernel has told its watchers of
// them, so they must not be told again. The server notes each change that it makes for the guest:
//
//   - of a file: when the change began and ended. The last change was the guest's if the
//     file's ctime lies between.
//   - of a name: the file that had the name then (or none). The change was the guest's if this is
//     still so.
//
// A change of the host that came before one of the guest is left out as well: who reads the file
// after the guest's event sees both.

// ownChange is when the guest changed a file last.
type ownChange struct {
	from, to time.Time
	running  int // changes that are under way
}

// clockTick is more than the resolution of the times of files.
const clockTick = 10 * time.Millisecond

// made reports whether the guest made the last change of a file, which had this ctime.
func (c ownChange) made(ctime unix.StatxTimestamp) bool {
	at := time.Unix(ctime.Sec, int64(ctime.Nsec))
	return c.running > 0 || !at.Before(c.from.Add(-clockTick)) && !at.After(c.to)
}

// inName is a name in a directory.
type inName struct {
	dir  key
	name string
}

// ownChanges are the names that the guest changed last.
type ownChanges struct {
	mu    sync.Mutex
	state map[inName]key // zero: it removed the name
	order []inName       // the oldest is at next, once it is full
	next  int
}

// maxOwnNames bounds ownChanges. A name that fell out of it is told to the guest
// once more.
const maxOwnNames = 16384

func (o *ownChanges) note(n inName, k key) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.state == nil {
		o.state = map[inName]key{}
	}
	_, known := o.state[n]
	o.state[n] = k
	switch {
	case known:
	case len(o.order) < maxOwnNames:
		o.order = append(o.order, n)
	default:
		delete(o.state, o.order[o.next])
		o.order[o.next] = n
		o.next = (o.next + 1) % maxOwnNames
	}
}

// made reports whether the guest knows that the name has this state.
func (o *ownChanges) made(n inName, k key) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	was, ok := o.state[n]
	return ok && was == k
}

// change is one request of the guest that changes something.
type change struct {
	fs    *fileSystem
	op    uint32
	node  *node // of the file, or of the directory
	body  []byte
	start time.Time
}

// FUSE opcodes of changes (linux/fuse.h).
const (
	opSetAttr     = 4
	opSymlink     = 6
	opMknod       = 8
	opMkdir       = 9
	opUnlink      = 10
	opRmdir       = 11
	opRename      = 12
	opLink        = 13
	opOpen        = 14
	opSetXAttr    = 21
	opRemoveXAttr = 24
	opCreate      = 35
	opRename2     = 45
)

// Lengths of the structures that precede the names in requests (linux/fuse.h).
const (
	mknodInLen   = 16
	mkdirInLen   = 8
	renameInLen  = 8
	linkInLen    = 8
	createInLen  = 16
	rename2InLen = 16
	copyToOffset = 16 // of nodeid_out in struct fuse_copy_file_range_in
	openFlagsLen = 4
)

// beginChange notes that a request begins, if it changes something. The caller ends it.
func (f *fileSystem) beginChange(private []byte) *change {
	op, body := opcode([][]byte{private}), private[headerLen:]
	id := binary.NativeEndian.Uint64(private[nodeOffset:])
	switch op {
	case opOpen:
		if len(body) < openFlagsLen || binary.NativeEndian.Uint32(body)&unix.O_TRUNC == 0 {
			return nil
		}
	case opCopyRange:
		if len(body) < copyToOffset+8 {
			return nil
		}
		id = binary.NativeEndian.Uint64(body[copyToOffset:])
	case opLink:
		if len(body) < linkInLen {
			return nil
		}
	case opWrite, opFallocate, opSetAttr, opSetXAttr, opRemoveXAttr, opSymlink, opMknod, opMkdir, opUnlink, opRmdir,
		opRename, opRename2, opCreate:
	default:
		return nil
	}
	n, err := f.tree.get(id)
	if err != nil {
		return nil
	}
	c := &change{fs: f, op: op, node: n, body: body, start: time.Now()}
	if c.ofFile() {
		f.tree.mu.Lock()
		n.mine.running++
		f.tree.mu.Unlock()
	}
	return c
}

// ofFile reports whether the change is of the node itself, and not of a name in it.
func (c *change) ofFile() bool {
	switch c.op {
	case opOpen, opCopyRange, opWrite, opFallocate, opSetAttr, opSetXAttr, opRemoveXAttr:
		return true
	}
	return false
}

// end notes that the change was made, and answered.
func (c *change) end(out [][]byte) {
	if c == nil {
		return
	}
	if c.ofFile() {
		c.fs.tree.mu.Lock()
		c.node.mine = ownChange{c.start, time.Now(), c.node.mine.running - 1}
		c.fs.tree.mu.Unlock()
		return
	}
	var answer [answerLen]byte
	n := 0
	for _, s := range out {
		n += copy(answer[n:], s)
	}
	if binary.NativeEndian.Uint32(answer[4:]) != 0 { // it failed
		return
	}
	made := binary.NativeEndian.Uint64(answer[answerLen-8:])
	switch c.op {
	case opUnlink, opRmdir:
		c.name(c.node, nameAt(c.body, 0, 0), key{})
	case opSymlink:
		c.made(nameAt(c.body, 0, 0), made)
	case opMknod:
		c.made(nameAt(c.body, mknodInLen, 0), made)
	case opMkdir:
		c.made(nameAt(c.body, mkdirInLen, 0), made)
	case opLink:
		c.made(nameAt(c.body, linkInLen, 0), made)
	case opCreate:
		c.made(nameAt(c.body, createInLen, 0), made)
	case opRename:
		c.renamed(renameInLen)
	case opRename2:
		c.renamed(rename2InLen)
	}
}

// nameAt returns the i-th string after a structure of a request.
func nameAt(body []byte, skip, i int) string {
	if len(body) < skip {
		return ""
	}
	parts := bytes.SplitN(body[skip:], []byte{0}, i+2)
	if len(parts) <= i {
		return ""
	}
	return string(parts[i])
}

// name notes what a name is now.
func (c *change) name(dir *node, name string, k key) { c.fs.changed.note(inName{dir.key, name}, k) }

// answerLen is the length of an answer up to the number of a node: struct fuse_out_header, and
// the first field of struct fuse_entry_out.
const answerLen = 24

// made notes a file that was made, by the number of its node.
func (c *change) made(name string, id uint64) {
	n, err := c.fs.tree.get(id)
	if err != nil {
		return
	}
	c.name(c.node, name, n.key)
	c.fs.tree.mu.Lock()
	defer c.fs.tree.mu.Unlock()
	n.mine = ownChange{c.start, time.Now(), n.mine.running}
}

// renamed notes a rename.
func (c *change) renamed(skip int) {
	if len(c.body) < skip {
		return
	}
	to, err := c.fs.tree.get(binary.NativeEndian.Uint64(c.body))
	if err != nil {
		return
	}
	for i, dir := range []*node{c.node, to} {
		name := nameAt(c.body, skip, i)
		k, st := c.fs.stateOf(dir, name)
		c.name(dir, name, k)
		if st == nil {
			continue
		}
		c.fs.tree.mu.Lock()
		if n := c.fs.tree.byKey[k]; n != nil {
			n.mine = ownChange{c.start, time.Now(), n.mine.running}
		}
		c.fs.tree.mu.Unlock()
	}
}

// stateOf returns the key of the file that has a name, and its attributes; zero and nil if
// there is none.
func (f *fileSystem) stateOf(dir *node, name string) (key, *unix.Statx_t) {
	at, err := f.tree.in(dir)
	if err != nil {
		return key{}, nil
	}
	defer at.close()
	st, err := statAt(at.dir.fd, name)
	if err != nil {
		return key{}, nil
	}
	return keyOf(st), st
}
