package share

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Saved is the state of a share that its guest relies on, for a server that takes over later:
// the numbers and places of nodes, the files that are open, and the settings of the protocol
// (FUSE_INIT). It names files by place and inode; one that was moved or replaced by then
// is stale, as after any change on the host. A file that was deleted while open is lost
// with its last server.
type Saved struct {
	Init    []byte        `json:"init,omitempty"`
	Next    uint64        `json:"next"`
	Nodes   []savedNode   `json:"nodes"`
	Handles []savedHandle `json:"handles"`
	Handle  uint64        `json:"handle"` // the last number given

	Thread uint32 `json:"thread,omitempty"` // the guest's event thread (fileevents.go)
}

type savedNode struct {
	ID      uint64 `json:"i"`
	Parent  uint64 `json:"p,omitempty"` // 0: it has no place
	Name    []byte `json:"n,omitempty"` // names need not be UTF-8
	Dev     uint64 `json:"d"`
	Ino     uint64 `json:"o"`
	Birth   int64  `json:"b,omitempty"`
	Type    uint16 `json:"t"`
	Lookups uint64 `json:"l,omitempty"`
	Private bool   `json:"v,omitempty"` // it lies in the store of private versions
	Owner   string `json:"w,omitempty"` // its record, if that is only in the server's table
}

type savedHandle struct {
	ID    uint64 `json:"i"`
	Node  uint64 `json:"n"`
	Flags int    `json:"f"` // of open(2)
}

// save returns what the guest knows. No request may be under way (vhostuser.Device.Idle).
func (f *fileSystem) save() *Saved {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tree.mu.Lock()
	defer f.tree.mu.Unlock()
	s := &Saved{Next: f.tree.next, Handle: f.nextHandle, Thread: f.script.player()}
	for _, n := range f.tree.byID {
		v := savedNode{ID: n.id, Name: []byte(n.name), Dev: n.key.dev, Ino: n.key.ino, Birth: n.key.birth, Type: n.typ, Lookups: n.lookups, Private: n.private}
		if n.parent != nil {
			v.Parent = n.parent.id
		}
		if record := f.owners.table.get(n.key); record != nil {
			v.Owner = record.String()
		}
		s.Nodes = append(s.Nodes, v)
	}
	for _, h := range f.handles {
		s.Handles = append(s.Handles, savedHandle{h.id, h.node.id, h.flags})
	}
	return s
}

// maxSavedNodes bounds a saved state. A server of an earlier bawn knew more nodes than one
// does now.
const maxSavedNodes = 2 << 20

// load fills a new file system with what another one saved. With moved, the share's
// directory is a copy of the saved one: each node becomes the inode that now lies at its
// place.
func (f *fileSystem) load(s *Saved, moved bool) error {
	if len(s.Nodes) > maxSavedNodes || len(s.Handles) > f.maxHandles {
		return errors.New("saved share: too many files are open")
	}
	if err := f.tree.load(s, moved, f.mayLie); err != nil {
		return err
	}
	f.loadOwners(s)
	f.script.begin(s.Thread, nil)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nextHandle = s.Handle
	for _, v := range s.Handles {
		if err := f.loadHandle(v); err != nil {
			return err
		}
	}
	return nil
}

// loadOwners takes over the records that were in the table of the saved server.
func (f *fileSystem) loadOwners(s *Saved) {
	for _, v := range s.Nodes {
		record, ok := parseOwnership(v.Owner)
		if !ok {
			continue
		}
		if n, err := f.tree.get(v.ID); err == nil {
			f.owners.table.set(n.key, &record)
		}
	}
}

// loadHandle opens a file again. One that cannot be opened answers ESTALE from now on.
func (f *fileSystem) loadHandle(v savedHandle) error {
	n, err := f.tree.get(v.Node)
	if err != nil {
		return fmt.Errorf("saved share: an open file without a node: %w", err)
	}
	flags := v.Flags &^ (unix.O_TRUNC | unix.O_CREAT | unix.O_EXCL)
	h := &handle{id: v.ID, node: n, fd: -1, flags: flags}
	if h.writable() && f.check(modifyNode, n, "") != nil {
		return errors.New("saved share: a file is open for writing, but the share is read-only now")
	}
	if h.writable() && f.guardsHost(n) {
		f.handles[h.id] = h // stale: the rules did not hold when it was opened
		f.tree.opened(h)
		return nil
	}
	if fd, ok := f.reopenSaved(n, flags); ok { // else the handle is stale
		h.fd = fd
	}
	f.handles[h.id] = h
	f.tree.opened(h)
	return nil
}

// reopenSaved opens the file of a saved node again. It reports false if the share does
// not allow that now, or if the file is not where it was.
func (f *fileSystem) reopenSaved(n *node, flags int) (fd int, ok bool) {
	if f.check(readNode, n, "") != nil {
		return -1, false
	}
	place, st, err := f.openPlace(n)
	if err != nil {
		return -1, false
	}
	defer unix.Close(place)
	fd, err = reopen(place, flags, st)
	return fd, err == nil
}

// mayLie reports whether the share allows a saved node to lie where it says.
func (f *fileSystem) mayLie(n, parent *node, name string) bool {
	return checkName(name) == nil && f.check(lookupName, parent, name) == nil && f.checkType(parent, n.typ) == nil
}

// load fills the tree. A node that mayLie refuses has no place: it is stale.
func (t *tree) load(s *Saved, moved bool, mayLie func(n, parent *node, name string) bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := map[uint64]savedNode{}
	for _, v := range s.Nodes {
		was[v.ID] = v
	}
	root, ok := was[rootID]
	if !ok || len(was) != len(s.Nodes) || root.Type != t.root.typ {
		return errors.New("saved share: damaged")
	}
	t.next = max(s.Next, t.next)
	slices.SortFunc(s.Nodes, func(a, b savedNode) int { return int(a.ID) - int(b.ID) })
	for _, v := range s.Nodes {
		if v.ID == rootID || v.ID >= t.next {
			continue
		}
		k := key{v.Dev, v.Ino, v.Birth}
		if unix.Major(k.dev) == 0 {
			k.birth = 0 // an earlier bawn saved it (keyOf)
		}
		if k.dev == root.Dev { // the number of a device may be another after the host's boot
			k.dev = t.root.key.dev
		}
		t.byID[v.ID] = &node{id: v.ID, key: k, typ: v.Type, lookups: v.Lookups, private: v.Private && t.store != nil}
	}
	for _, v := range s.Nodes {
		n, parent := t.byID[v.ID], t.byID[v.Parent]
		if n == nil || n == t.root || parent == nil || !mayLie(n, parent, string(v.Name)) {
			continue
		}
		t.place(n, parent, string(v.Name))
	}
	for _, v := range s.Nodes {
		if n := t.byID[v.ID]; n != nil && n != t.root {
			if moved {
				t.rebind(n)
			}
			t.byKey[n.key] = n
		}
	}
	return nil
}

// rebind gives a node the identity of the inode that now lies at its place, after the
// nodes above it. The caller holds the mutex.
func (t *tree) rebind(n *node) {
	var way []*node
	for at := n; at != nil && at != t.root && !at.rebound; at = at.parent {
		way = append(way, at)
		if len(way) > depthLimit {
			return
		}
	}
	for i := len(way) - 1; i >= 0; i-- {
		at := way[i]
		at.rebound = true
		if at.parent == nil {
			continue
		}
		t.mu.Unlock() // nobody else uses the tree yet
		p, err := t.at(at)
		t.mu.Lock()
		if err != nil {
			continue // stale, as it was
		}
		if st, err := statAt(p.dir.fd, p.name); err == nil && st.Mode&unix.S_IFMT == at.typ {
			at.key = keyOf(st)
			at.told = report{size: ^uint64(0), valid: true} // whatever the guest knows of it is of another file
		}
		t.unref(p.dir)
	}
}

// opInit is FUSE_INIT (linux/fuse.h).
const opInit = 26

// replay repeats the guest's FUSE_INIT, so that the protocol's server has the settings
// that both agreed on.
func (h *handler) replay(init []byte) error {
	if init == nil {
		return nil // the guest never mounted it
	}
	out := make([]byte, 4096)
	if opcode([][]byte{init}) != opInit {
		return errors.New("saved share: no FUSE_INIT")
	}
	if _, st := h.server.HandleRequest([][]byte{init}, [][]byte{out}); st != fuse.OK {
		return fmt.Errorf("saved share: FUSE_INIT: %v", st)
	}
	h.init.Store(&init)
	h.initEvents(init)
	return nil
}

// marshal returns the state of the share (Saved) as JSON.
func (p *Prepared) marshal() ([]byte, error) {
	if !p.device.Idle() {
		return nil, errors.New("the share is busy: a request is still being answered")
	}
	s := p.fs.save()
	if init := p.handler.init.Load(); init != nil {
		s.Init = *init
	}
	return json.Marshal(s)
}

// unmarshal takes a state over; see Control.Load.
func (p *Prepared) unmarshal(state []byte, moved bool) error {
	var s Saved
	if err := json.Unmarshal(state, &s); err != nil {
		return fmt.Errorf("saved share: %w", err)
	}
	if err := p.fs.load(&s, moved); err != nil {
		return err
	}
	p.device.Resumed = true
	return p.handler.replay(s.Init)
}
