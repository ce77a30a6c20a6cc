package share

import (
	"encoding/binary"
	"strconv"
	"strings"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/wire"
)

// File events.
//
// Theory of operation. Programs in the guest learn of changes by inotify(7), whose events the
// guest's kernel makes when it changes a file itself. FUSE has no message that makes it raise
// one for a change of the host. So the guest's agent makes the system call that would have
// caused the event, on one thread that does nothing else (the event thread). The server knows
// that thread by its number, which is in the header of each FUSE request. It carries out none
// of its requests: it answers them as if it had. The guest's kernel then raises the event,
// and takes over the attributes in the answer, which are those that the file has.
//
// The supervisor watches the directories on the host, and gives the server what it saw (Announce).
// The server leaves out what the guest changed itself (own.go) and what the guest may not see
// (mayTell), and answers with a list of events. The list is also its script: before each
// event, the event thread names the event's position in the list by getxattr(2) (wire.FileEventAttribute), and
// the requests that follow get the answers of that event:
//
//	created   LOOKUP: no such name; then MKNOD, MKDIR or SYMLINK: the file that is there
//	removed   LOOKUP: the file that was there; then UNLINK or RMDIR: done
//	renamed   LOOKUP of the old name: the file, of the new name: what was there; then RENAME: done
//	others    SETATTR: the attributes that the file has; OPEN: a handle that leads to nothing
//
// The number of the thread is part of a saved state: a server that takes over carries out nothing
// of what its predecessor would not have.
//
// A guest that forges the number of the thread sees what it may look up anyway, and
// changes nothing.

// event is one event of the script.
type event struct {
	wire.FileEvent
	dir, toDir *node // where the names are
	old        *node // removed: what was there; renamed: what was at the new name, or nil
}

// script is the list of events that the guest's agent plays.
type script struct {
	mu      sync.Mutex
	thread  uint32 // 0: there is none
	events  []event
	current int // -1: none
	made    uint64
}

// begin makes a list the one that the thread plays, and returns the list before it.
func (s *script) begin(thread uint32, events []event) (was []event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was = s.events
	s.thread, s.events, s.current = thread, events, -1
	return was
}

// isPlayer reports whether a request comes from the event thread.
func (s *script) isPlayer(pid, uid uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.thread != 0 && pid == s.thread && uid == 0
}

// now returns the event that is played, or nil.
func (s *script) now() *event {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current < 0 || s.current >= len(s.events) {
		return nil
	}
	return &s.events[s.current]
}

// step makes the event of the number the current one. It reports whether there is one.
func (s *script) step(number string) bool {
	n, err := strconv.Atoi(number)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = n
	if err != nil || n < 0 || n >= len(s.events) {
		s.current = -1
	}
	return s.current >= 0
}

// player returns the event thread, 0 if there is none.
func (s *script) player() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.thread
}

// Offsets in struct fuse_in_header (linux/fuse.h).
const (
	nodeOffset = 16
	uidOffset  = 24
	pidOffset  = 32
)

// playable are the requests of the event thread that are answered. All others are refused: one
// that was answered with ENOSYS would not be sent again by any thread.
var playable = map[uint32]bool{
	1: true /* LOOKUP */, 3: true /* GETATTR */, 4: true /* SETATTR */, 6: true /* SYMLINK */, 8: true, /* MKNOD */
	9: true /* MKDIR */, 10: true /* UNLINK */, 11: true /* RMDIR */, 12: true /* RENAME */, 14: true, /* OPEN */
	18: true /* RELEASE */, 22: true /* GETXATTR */, 45: true, /* RENAME2 */
}

// play answers a request of the event thread. ok is false if it is from another one.
func (h *handler) play(private []byte, out [][]byte) (n int, ok bool) {
	pid, uid := binary.NativeEndian.Uint32(private[pidOffset:]), binary.NativeEndian.Uint32(private[uidOffset:])
	op := opcode([][]byte{private})
	if !h.fs.script.isPlayer(pid, uid) || op == opInit || op == opFlush || op == opForget || op == opBatchForget {
		return 0, false
	}
	if !playable[op] {
		return plain([][]byte{private}, out, fuse.EPERM), true
	}
	n, st := h.events.HandleRequest([][]byte{private}, out)
	if st != fuse.OK {
		return failure([][]byte{private}, out), true
	}
	return n, true
}

// Requests that have no effect, or no answer (linux/fuse.h).
const (
	opForget      = 2
	opFlush       = 25
	opBatchForget = 42
)

// player answers the requests of the event thread.
type player struct {
	fuse.RawFileSystem
	fs *fileSystem
}

func newPlayer(f *fileSystem) player { return player{fuse.NewDefaultRawFileSystem(), f} }

// event returns the event that is played, if it is of the kind and of a name in the directory.
func (p player) event(kind wire.FileEventKind, dir uint64, name string) *event {
	e := p.fs.script.now()
	if e == nil || e.Kind != kind || e.dir.id != dir || string(e.Name) != name {
		return nil
	}
	return e
}

// Lookup implements fuse.RawFileSystem.
func (p player) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	e := p.fs.script.now()
	switch {
	case e == nil:
		return fuse.EPERM
	case e.Kind == wire.FileRenamed && e.toDir.id == h.NodeId && string(e.ToName) == name:
		if e.old == nil {
			return fuse.ENOENT
		}
		return p.gone(e.old, out)
	case e.dir.id != h.NodeId || string(e.Name) != name:
		return fuse.EPERM
	}
	switch e.Kind {
	case wire.FileCreated:
		return fuse.ENOENT
	case wire.FileRemoved:
		return p.gone(e.old, out)
	case wire.FileRenamed:
		return p.present(e.toDir, string(e.ToName), out)
	}
	return p.present(e.dir, name, out)
}

// present answers with the file at a name, as a look-up of the guest would.
func (p player) present(dir *node, name string, out *fuse.EntryOut) fuse.Status {
	if err := p.fs.mayTell(dir, name); err != nil {
		return status(err)
	}
	at, err := p.fs.look(dir, name)
	if err != nil {
		return status(err)
	}
	defer at.close()
	return status(p.fs.find(&at, dir, name, out))
}

// gone answers with a file that is not there any more.
func (p player) gone(n *node, out *fuse.EntryOut) fuse.Status {
	if !p.fs.tree.again(n) {
		return fuse.ENOENT
	}
	out.NodeId = n.id
	out.Mode, out.Nlink = uint32(n.typ)|0o600, 1
	if st, o, err := p.fs.stat(n); err == nil {
		p.fs.fill(&out.Attr, st, o)
		out.Nlink = max(out.Nlink, 1)
	}
	return fuse.OK
}

// GetAttr implements fuse.RawFileSystem. Unlike forRoot, it changes no mode on the host.
func (p player) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	return p.fs.GetAttr(cancel, in, out)
}

// SetAttr answers with the attributes that the file has.
func (p player) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	return p.GetAttr(cancel, &fuse.GetAttrIn{InHeader: in.InHeader}, out)
}

// Open implements fuse.RawFileSystem. The handle leads to no file.
func (p player) Open(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.OK }

// Release implements fuse.RawFileSystem.
func (p player) Release(<-chan struct{}, *fuse.ReleaseIn) {}

// GetXAttr names the event that is played next (wire.FileEventAttribute). The answer tells the
// agent that nothing of it will be carried out.
func (p player) GetXAttr(_ <-chan struct{}, _ *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	number, ok := strings.CutPrefix(attr, wire.FileEventAttribute)
	if !ok || !p.fs.script.step(number) {
		return 0, fuse.ENODATA
	}
	if len(dest) < len(wire.FileEventValue) {
		return uint32(len(wire.FileEventValue)), fuse.ERANGE
	}
	return uint32(copy(dest, wire.FileEventValue)), fuse.OK
}

// created answers to a request that would make a file.
func (p player) created(h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	e := p.event(wire.FileCreated, h.NodeId, name)
	if e == nil {
		return fuse.EPERM
	}
	return p.present(e.dir, name, out)
}

// Mknod implements fuse.RawFileSystem.
func (p player) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	return p.created(&in.InHeader, name, out)
}

// Mkdir implements fuse.RawFileSystem.
func (p player) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return p.created(&in.InHeader, name, out)
}

// Symlink implements fuse.RawFileSystem.
func (p player) Symlink(_ <-chan struct{}, h *fuse.InHeader, _, name string, out *fuse.EntryOut) fuse.Status {
	return p.created(h, name, out)
}

// removed answers to a request that would remove a name.
func (p player) removed(h *fuse.InHeader, name string) fuse.Status {
	e := p.event(wire.FileRemoved, h.NodeId, name)
	if e == nil {
		return fuse.EPERM
	}
	p.fs.tree.gone(e.dir, name, e.old.key)
	return fuse.OK
}

// Unlink implements fuse.RawFileSystem.
func (p player) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return p.removed(h, name)
}

// Rmdir implements fuse.RawFileSystem.
func (p player) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return p.removed(h, name)
}

// Rename implements fuse.RawFileSystem.
func (p player) Rename(_ <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	e := p.event(wire.FileRenamed, in.NodeId, from)
	if e == nil || e.toDir.id != in.Newdir || string(e.ToName) != to || in.Flags != 0 {
		return fuse.EPERM
	}
	if e.old != nil {
		p.fs.tree.gone(e.toDir, to, e.old.key)
	}
	return fuse.OK
}

// again notes one more look-up of a node, and reports false if it is not known any more.
func (t *tree) again(n *node) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n == nil || t.byID[n.id] != n {
		return false
	}
	n.lookups++
	return true
}

// mayTell returns the error with which the share refuses to tell the guest of a name. It is
// the one place that decides which names events may have: none that is hidden, or of which the
// guest sees a private version.
func (f *fileSystem) mayTell(dir *node, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if err := f.check(lookupName, dir, name); err != nil || f.rules == nil {
		return err
	}
	at, err := f.look(dir, name)
	if err != nil {
		return err
	}
	defer at.close()
	if at.private {
		return unix.ENOENT
	}
	return nil
}

// initEvents gives the settings of the guest's FUSE_INIT to the server of the event thread.
func (h *handler) initEvents(init []byte) {
	_, _ = h.events.HandleRequest([][]byte{init}, [][]byte{make([]byte, 4096)}) // as the other server accepted it
}
