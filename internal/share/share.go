// Package share serves one host directory, or one file, to a guest by virtiofs.
//
// # Theory of operation
//
// Each share has a process of its own, confined to its
// directory (Prepare), with one end of a socket to QEMU. vhostuser reads the
// requests from the guest's queue, go-fuse decodes them, and a fileSystem answers them with
// system calls on the host.
//
// The guest names files by node numbers that the server gave out. A node (tree.go) is
// an inode of the host, known by device, number and birth time, and the last place
// where it was seen: a parent node and a name. It needs no descriptor, so that
// any number of files may be known; directories, and files that may lose their name
// (pinned.go), keep an O_PATH descriptor, in lists of bounded length. Each operation walks from there: one component,
// never "..", never through a symbolic link. The inode found must be that of the
// node, else the answer is ESTALE and the guest looks the name up again. So no
// rename, link or mount swapped in during the walk leads out of the directory;
// Landlock ensures the same a second time, independently of this code.
//
// Whether the share allows an operation is decided in one place, check (check.go).
//
// Files are opened in two steps: first the place (O_PATH), then, if that turns
// out to be a regular file or a directory, the file itself by /proc/self/fd. A
// FIFO or a device is never opened, by whatever means it got there.
//
// The process runs as the user who runs bawn, so every file that it makes belongs to that
// user on the host, whichever user of the guest made it. Owners and modes that only the
// guest sees are recorded beside the file (owner.go).
//
// The guest may keep names and attributes for a moment, and opens files with what the host
// wrote before (fresh.go). Writes are passed on at once. Locks hold between the
// processes of the guest; the host's processes do not see them.
//
// What the guest changes is recorded first, so that a person can take it back (keep.go), and a
// file that has names outside of the share is copied before its first change (separate.go).
//
// Watchers in the guest are told of the host's changes by requests of one thread of the guest,
// which the server answers without carrying them out (fileevents.go).
//
// A running server carries out orders of the supervisor (message.go, control.go, orders.go):
// it saves its state (saved.go), and another server takes that over.
//
// # Not safe
//
// The guest decides about the contents and names of everything in the directory. A
// symbolic link that it leaves may point anywhere, and a host program that follows it
// goes there.
package share

import (
	"context"
	"io"
	"log"
	"os"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/confine"
	"bawn.dev/bawn/internal/share/guard"
	"bawn.dev/bawn/internal/share/vhostuser"
)

// Options describe a share.
type Options struct {
	// Root is the directory, absolute.
	Root string `json:"root"`
	// File, when set, is the name of the one file in Root that is shared.
	File string `json:"file,omitempty"`
	// ReadOnly refuses every change.
	ReadOnly bool `json:"readOnly,omitempty"`

	// Limit, when set, is the most that all files may take on the host's disk, in bytes.
	Limit int64 `json:"limit,omitempty"`

	// Guard has what the user adds to the rules of guarded and hidden paths. Nil means that
	// the share has no such rules. They do not concern a share of one file.
	Guard *guard.Options `json:"guard,omitempty"`
	// Private is the directory in which the guest's own versions of guarded files are kept.
	// It is made if it is not there. Without it, changes of guarded paths are refused (EPERM).
	Private string `json:"private,omitempty"`
	// Events is the file to which changes of guarded paths are logged, if not empty.
	Events string `json:"events,omitempty"`
	// Undo, when set, is the directory, absolute, in which the server keeps what the guest
	// changes (package undo).
	Undo string `json:"undo,omitempty"`
}

// Equal reports whether two shares are the same for a guest, so that a server of the one
// can take over from a server of the other.
// The rules of guarded paths may differ, and where the host keeps what was changed.
func (o Options) Equal(p Options) bool {
	return o.Root == p.Root && o.File == p.File && o.ReadOnly == p.ReadOnly
}

// maxIO is the most that one request reads or writes, in bytes.
const maxIO = 1 << 20

// profile returns what the server's process may do.
func (o Options) profile() confine.Profile {
	p := confine.Profile{Role: confine.FileServer, Refer: true}
	at := o.Root
	if o.File != "" {
		at += "/" + o.File
	}
	if o.ReadOnly {
		p.Read = []string{at}
		p.NoAttributes = true
	} else {
		p.Write = []string{at}
		if o.Private != "" {
			p.Write = append(p.Write, o.Private)
		}
		if o.Undo != "" {
			p.Write = append(p.Write, o.Undo)
		}
	}
	return p
}

// Prepared is a share whose process has given up all other rights.
type Prepared struct {
	fs      *fileSystem
	handler *handler
	device  *vhostuser.Device
}

// Prepare opens the directory and restricts the whole process to it, for good: call it
// once in a process that does nothing else. The level says which of the restrictions this
// kernel enforces.
func Prepare(o Options) (*Prepared, confine.Level, error) {
	unix.Umask(0) // the guest's umask has been applied
	raiseFileLimit()
	f, err := newFileSystem(o)
	if err != nil {
		return nil, confine.Level{}, err
	}
	if err := confine.KeepCapabilities(keptCapabilities); err != nil {
		return nil, confine.Level{}, err
	}
	level, err := confine.Apply(o.profile())
	return newPrepared(f), level, err
}

func newPrepared(f *fileSystem) *Prepared {
	h := newHandler(f)
	return &Prepared{f, h, &vhostuser.Device{Queues: queues, Handler: h}}
}

// serve answers the guest's requests on a vhost-user socket until QEMU hangs up
// (nil) or breaks the protocol.
func (p *Prepared) serve(ctx context.Context, socket *os.File) error {
	// go-fuse logs every request that it does not understand; the guest could fill the
	// disk with that.
	log.SetOutput(io.Discard)
	return vhostuser.Serve(ctx, socket, p.device)
}

// queues: one for urgent requests and one for the others (virtio 1.2 section
// 5.11.2).
const queues = 2
