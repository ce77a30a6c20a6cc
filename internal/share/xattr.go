package share

import (
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// userAttributes is the name space that a guest may use. The others mean something to
// the host: capabilities, labels, access lists.
const userAttributes = "user."

// guestsOwn returns the error with which the guest is refused an attribute, or nil.
func guestsOwn(name string) error {
	if !strings.HasPrefix(name, userAttributes) || strings.HasPrefix(name, ownAttributes) {
		return unix.EOPNOTSUPP
	}
	return nil
}

// maxAttributeList is XATTR_LIST_MAX (linux/limits.h), in bytes.
const maxAttributeList = 65536

// onAttributes opens a node for a system call on its extended attributes, if the share
// allows the operation.
func (f *fileSystem) onAttributes(o operation, h *fuse.InHeader, call func(path string) (int, error)) (int, fuse.Status) {
	n, err := f.nodeFor(o, h)
	if err != nil {
		return 0, status(err)
	}
	fd, st, err := f.open(n)
	var here hostPath
	if err == nil {
		if here, err = f.checkHere(o, n, fd); err != nil {
			unix.Close(fd)
		}
	}
	if err == nil && o.modifies() {
		fd, _, err = f.separate(n, fd, st, here)
	}
	if err != nil {
		return 0, status(err)
	}
	defer unix.Close(fd)
	if o.modifies() {
		defer f.changing(n, fd)()
		f.keepNode(n, fd)
	}
	got, err := call(magic(fd))
	return max(got, 0), status(err)
}

// GetXAttr implements fuse.RawFileSystem.
func (f *fileSystem) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	if err := guestsOwn(name); err != nil {
		return 0, status(err)
	}
	n, st := f.onAttributes(readNode, h, func(path string) (int, error) { return unix.Getxattr(path, name, dest) })
	return uint32(n), st
}

// ListXAttr implements fuse.RawFileSystem.
func (f *fileSystem) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	buf := make([]byte, maxAttributeList)
	n, st := f.onAttributes(readNode, h, func(path string) (int, error) { return unix.Listxattr(path, buf) })
	if st != fuse.OK {
		return 0, st
	}
	var list []byte
	for name := range strings.SplitSeq(string(buf[:n]), "\x00") {
		if guestsOwn(name) == nil {
			list = append(append(list, name...), 0)
		}
	}
	if len(dest) > 0 && len(list) > len(dest) {
		return uint32(len(list)), fuse.ERANGE
	}
	copy(dest, list)
	return uint32(len(list)), fuse.OK
}

// SetXAttr implements fuse.RawFileSystem.
func (f *fileSystem) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, name string, data []byte) fuse.Status {
	if err := guestsOwn(name); err != nil {
		return status(err)
	}
	_, st := f.onAttributes(modifyNode, &in.InHeader, func(path string) (int, error) {
		room := uint64(len(data)) + inodeBytes
		if err := f.space.take(room, 0); err != nil {
			return 0, err
		}
		defer f.space.give(room, 0)
		return 0, unix.Setxattr(path, name, data, int(in.Flags))
	})
	return st
}

// RemoveXAttr implements fuse.RawFileSystem.
func (f *fileSystem) RemoveXAttr(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	if err := guestsOwn(name); err != nil {
		return status(err)
	}
	_, st := f.onAttributes(modifyNode, h, func(path string) (int, error) { return 0, unix.Removexattr(path, name) })
	return st
}
