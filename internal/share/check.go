package share

import "golang.org/x/sys/unix"

// operation is what a request does to a node, or to a name in a directory.
type operation int

const (
	// Of a directory and a name in it.
	lookupName    operation = iota // find the name
	createName                     // make a new entry
	changeName                     // remove the entry, or rename it or another to it
	createUnnamed                  // make a file without a name
	// Of a node itself.
	readNode   // read its attributes, its target or its contents, or list it
	modifyNode // write its attributes or its contents
)

// modifies reports whether the operation changes anything on the host.
func (o operation) modifies() bool { return o != lookupName && o != readNode }

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
	if f.file != "" && n == f.tree.root { // nothing is there but the one file
		switch o {
		case lookupName:
			if name != f.file {
				return unix.ENOENT
			}
		case createName, changeName, createUnnamed:
			return unix.EPERM
		}
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
func (f *fileSystem) nodeFor(o operation, id uint64) (*node, error) {
	n, err := f.tree.get(id)
	if err == nil {
		err = f.check(o, n, "")
	}
	return n, err
}

// dirFor returns the directory of a request about a name in it (no name for
// createUnnamed), if the share allows the operation and the host has room for it.
func (f *fileSystem) dirFor(o operation, id uint64, name string) (*node, error) {
	n, err := f.tree.dir(id)
	if err == nil && o != createUnnamed {
		err = checkName(name)
	}
	if err == nil {
		err = f.check(o, n, name)
	}
	if err == nil && (o == createName || o == createUnnamed) {
		err = f.space.takeInode()
	}
	return n, err
}
