package share

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// # Theory of operation: owners and modes inside
//
// The server runs as the user who runs bawn, so each file that it makes belongs to that user
// on the host. The guest has users of its own. Where owner, group or mode inside differ from
// those on the host, the server records them: in the extended attribute ownerAttribute of
// the file, or in its table (ownertable.go) for what cannot have one. A file without a record
// has the host's owner and mode, which is the case of everything that the guest's user with
// the host user's numbers makes with an ordinary mode: it costs nothing.
//
// The guest's kernel checks permissions with what it is told here (virtiofs always mounts
// with default_permissions); the host's kernel checks the server's own with the real ones.
// So that the server can do what the guest's kernel has allowed, and the host's user can
// edit the files, modes on the host always let the owner read and write (hostMode). A file
// that the host has with less is given that when the guest's root wants in (widen.go).
//
// A record holds only while the permission bits on the host are those that follow from it:
// after a chmod on the host the host's are right.
//
// # Not safe
//
// A record may come with a project, from an archive or another sandbox. It is parsed
// strictly, and decides only what the guest is told: who may do what on the host depends
// on the host's own owner and mode, and no record ever changes these by being there.

// ownerAttribute is the extended attribute that holds a record: "1 UID GID MODE", with
// the numbers in decimal and the mode in octal; for a device its type and number follow,
// " b RDEV" or " c RDEV". 1 is the version.
const ownerAttribute = ownAttributes + "owner"

// ownAttributes is the name space of the server's own attributes. The guest cannot see or
// set them.
const ownAttributes = userAttributes + "bawn."

// maxRecord bounds a record, in bytes.
const maxRecord = 64

// specialBits are the mode bits that are never set on the host because of a guest.
const specialBits = unix.S_ISUID | unix.S_ISGID | unix.S_ISVTX

// modeBits are all bits that chmod(2) sets.
const modeBits = permissions | specialBits

// permissions are the bits of owner, group and others.
const permissions = 0o777

// nobody is the number that means "no user" (chown(2)).
const nobody = ^uint32(0)

// ownership is the owner and mode of a file as the guest sees them.
type ownership struct {
	uid, gid uint32
	mode     uint16 // modeBits
	device   uint16 // S_IFBLK or S_IFCHR for a file that stands in for a device, else 0
	rdev     uint32 // the device's number, as fuse_attr.rdev
}

// String returns the record.
func (o ownership) String() string {
	s := fmt.Sprintf("1 %d %d %04o", o.uid, o.gid, o.mode)
	switch o.device {
	case unix.S_IFBLK:
		s += fmt.Sprintf(" b %d", o.rdev)
	case unix.S_IFCHR:
		s += fmt.Sprintf(" c %d", o.rdev)
	}
	return s
}

// parseOwnership parses a record. It accepts only what String writes.
func parseOwnership(text string) (ownership, bool) {
	if len(text) > maxRecord {
		return ownership{}, false
	}
	var o ownership
	var kind string
	n, _ := fmt.Sscanf(text, "1 %d %d %o %s %d", &o.uid, &o.gid, &o.mode, &kind, &o.rdev)
	switch {
	case n == 5 && kind == "b":
		o.device = unix.S_IFBLK
	case n == 5 && kind == "c":
		o.device = unix.S_IFCHR
	}
	ok := n >= 3 && o.uid != nobody && o.gid != nobody && o.mode <= modeBits && o.String() == text
	return o, ok
}

// ownershipOf is that of a file without a record.
func ownershipOf(st *unix.Statx_t) ownership {
	return ownership{uid: st.Uid, gid: st.Gid, mode: st.Mode & modeBits}
}

// hostMode returns the permission bits on the host of a file of the type (S_IFMT) that has
// the mode in the guest. The host's user may always edit a file or directory, and the host
// takes a file for executable if anybody in the guest may execute it.
func hostMode(typ, mode uint16) uint16 {
	mode &= permissions
	switch {
	case typ == unix.S_IFDIR, typ == unix.S_IFREG && mode&0o111 != 0:
		return mode | 0o700
	case typ == unix.S_IFREG:
		return mode | 0o600
	}
	return mode // the server opens nothing else
}

// shown returns what the guest sees of a file with the record, or without one (nil).
func shown(record *ownership, st *unix.Statx_t) ownership {
	if record == nil {
		return ownershipOf(st)
	}
	o := *record
	typ := st.Mode & unix.S_IFMT
	if o.device != 0 && (typ != unix.S_IFREG || st.Size != 0) {
		o.device, o.rdev = 0, 0 // only an empty file stands in for a device
	}
	if typ == unix.S_IFLNK || st.Mode&permissions != hostMode(typ, o.mode) {
		o.mode = st.Mode & modeBits
	}
	return o
}

// typeOf returns the S_IFMT bits that the guest sees.
func (o ownership) typeOf(st *unix.Statx_t) uint16 {
	if o.device != 0 {
		return o.device
	}
	return st.Mode & unix.S_IFMT
}

// privileged reports whether a program with the mode runs as its owner or group.
func (o ownership) privileged() bool { return o.mode&(unix.S_ISUID|unix.S_ISGID) != 0 }

// withoutPrivileges returns the ownership after a write or a change of owner: without
// set-user-ID, and without set-group-ID where it means that (inode(7)).
func (o ownership) withoutPrivileges() ownership {
	o.mode &^= unix.S_ISUID
	if o.mode&unix.S_IXGRP != 0 {
		o.mode &^= unix.S_ISGID
	}
	return o
}

// mayChange reports whether the server's user may change a file's mode on the host.
func mayChange(st *unix.Statx_t) bool {
	return os.Geteuid() == 0 || int(st.Uid) == os.Geteuid()
}
