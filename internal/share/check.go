package share

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// operation is the effect of a request on a node, or on a name in a directory.
type operation int

const (
	// Of a directory and a name in it.
	lookupName    operation = iota // find the name
	createName                     // make a new entry
	changeName                     // remove the entry, or rename it or another to it
	createUnnamed                  // make a file without a name
	// Of a node itself.
	statNode   // read the attributes that every file has (stat(2))
	readNode   // read its target, contents or extended attributes, list it, or link to it
	modifyNode // write its attributes or its contents
)

// modifies reports whether the operation changes anything on the host.
func (o operation) modifies() bool { return o != lookupName && o != statNode && o != readNode }

// check returns the error with which the share refuses an operation on node n, or on a
// name in directory n, and nil if it is allowed. It is the one place that knows the rules
// of a share. Every request passes it, by dirFor or nodeFor or on its open file, before
// it changes anything on the host or learns of a name; a rule about places in the share
// (guarded paths) belongs here. It may be called by several goroutines at once, without
// the tree's mutex.
func (f *fileSystem) check(o operation, n *node, name string) error {
	if err := f.checkShare(o); err != nil {
		return err
	}
	if f.standIn(n) {
		return f.checkStandIn(o, name)
	}
	return nil
}

// standIn reports whether a node is the root of a share of one file. The guest must have a
// root to mount, but the directory that holds the file on the host is not shared: the
// node stands in for it, with attributes of its own (standInAttr), and the file is the
// only thing that can be done from it.
func (f *fileSystem) standIn(n *node) bool { return f.file != "" && n == f.tree.root }

// checkStandIn is the part of check for the root of a share of one file.
func (f *fileSystem) checkStandIn(o operation, name string) error {
	switch o {
	case statNode:
		return nil
	case lookupName:
		if name != f.file {
			return unix.ENOENT
		}
		return nil
	case readNode:
		return unix.EACCES
	}
	return unix.EPERM
}

// checkType returns the error for a name in a directory whose file has the mode: in a share
// of one file, nothing but a regular file can be that file, whatever the host or another
// guest has put in its place.
func (f *fileSystem) checkType(dir *node, mode uint16) error {
	if f.standIn(dir) && mode&unix.S_IFMT != unix.S_IFREG {
		return unix.ENOENT
	}
	return nil
}

// checkShare is the part of check that holds for every place in the share.
func (f *fileSystem) checkShare(o operation) error {
	if f.readOnly && o.modifies() {
		return unix.EROFS
	}
	return nil
}

// nodeFor returns the node of a request about the node itself, if the share allows the
// operation.
func (f *fileSystem) nodeFor(o operation, h *fuse.InHeader) (*node, error) {
	n, err := f.tree.get(h.NodeId)
	if err == nil {
		err = f.check(o, n, "")
	}
	if err == nil && f.rules != nil && (o == readNode || o == modifyNode) {
		err = f.guardNode(who{h.Pid}, o, n)
	}
	return n, err
}

// guardNode makes the private version that a change of a node needs, and refuses a node
// that has become hidden.
func (f *fileSystem) guardNode(w who, o operation, n *node) error {
	slot, _, err := f.inSlot(n)
	if err != nil || slot == nil || o != modifyNode {
		return err
	}
	return f.makePrivate(w, slot)
}

// dirFor returns the directory of a request about a name in it (no name for
// createUnnamed), if the share allows the operation.
func (f *fileSystem) dirFor(o operation, id uint64, name string) (*node, error) {
	n, err := f.tree.dir(id)
	if err == nil && o != createUnnamed {
		err = checkName(name)
	}
	if err == nil {
		err = f.check(o, n, name)
	}
	return n, err
}

// dirToMake is dirFor for a request that makes a file, if the host has room for it. The
// caller calls made when the file is there, or cannot be made.
func (f *fileSystem) dirToMake(o operation, id uint64, name string) (n *node, made func(), err error) {
	n, err = f.dirFor(o, id, name)
	if err == nil {
		err = f.space.take(inodeBytes, 1)
	}
	return n, f.space.giveInode, err
}
