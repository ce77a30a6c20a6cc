// Package share serves one host directory, or one file, to a guest by virtiofs.
//
// Theory of operation. Each share has a process of its own, confined to its
// directory (Confine), with one end of a socket to QEMU. vhostuser takes the
// requests off the guest's queue, go-fuse takes them apart, and a fileSystem
// answers them with system calls on the host.
//
// The guest names files by node numbers that we gave out. A node (tree.go) is an
// inode of the host, known by device, number and birth time, and the last place
// where it was seen: a parent node and a name. It holds no descriptor, so that
// any number of files may be known; only directories keep an O_PATH descriptor,
// in a list of bounded length. Each operation walks from there: one component,
// never "..", never through a symbolic link, and what is found must be the inode
// that was meant, else the answer is ESTALE and the guest looks the name up
// again. So no rename, link or mount swapped in during the walk leads out of the
// directory; Landlock says so a second time, from outside of this code.
//
// Files are opened in two steps: first the place (O_PATH), then, if that turns
// out to be a regular file or a directory, the file itself by /proc/self/fd. A
// FIFO or a device is never opened, by whatever means it got there.
//
// The process runs as the person who runs bawn, so what it makes is theirs,
// whoever asked in the guest. It cannot give files away: chown to anybody else
// is EPERM.
//
// The guest may keep names and attributes for staleAfter; a change on the host
// is seen when that is over. Writes are passed on at once. Locks are between the
// processes of the guest; the host's do not see them.
//
// Not safe: the guest decides about the contents and names of everything in the
// directory. A symbolic link that it leaves may point anywhere, and a host
// program that follows it goes there.
package share

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"os"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/confine"
	"bawn.dev/bawn/internal/vhostuser"
)

// Options say what is shared.
type Options struct {
	// Root is the directory, absolute.
	Root string `json:"root"`
	// File, when set, is the name of the one file in Root that is shared.
	File string `json:"file,omitempty"`
	// ReadOnly refuses every change.
	ReadOnly bool `json:"readOnly,omitempty"`
}

// staleAfter is how long the guest may believe what it was told of a name or of
// attributes. A change on the host must show within a second.
const staleAfter = 800 * time.Millisecond

// maxIO is the most that one request reads or writes, in bytes.
const maxIO = 1 << 20

// profile is what the server's process may do.
func (o Options) profile() confine.Profile {
	p := confine.Profile{NoNetwork: true, Refer: true}
	at := o.Root
	if o.File != "" {
		at += "/" + o.File
	}
	if o.ReadOnly {
		p.Read = []string{at}
		p.NoAttributes = true
	} else {
		p.Write = []string{at}
	}
	return p
}

// Prepared is a share whose process has given up all other rights.
type Prepared struct {
	fs      *fileSystem
	handler *handler
	device  *vhostuser.Device
}

// Prepare opens the directory and restricts the whole process to it, for good.
// It returns what of that this kernel cannot hold.
func Prepare(o Options) (*Prepared, confine.Level, error) {
	unix.Umask(0) // the guest's umask has been applied
	raiseFileLimit()
	f, err := newFileSystem(o)
	if err != nil {
		return nil, confine.Level{}, err
	}
	if err := dropCapabilities(); err != nil {
		return nil, confine.Level{}, fmt.Errorf("give up capabilities: %w", err)
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
	// go-fuse tells the log of every request that it does not understand; the
	// guest could fill the disk with that.
	log.SetOutput(io.Discard)
	return vhostuser.Serve(ctx, socket, p.device)
}

// queues: one for urgent requests and one for the others (virtio 1.2 section
// 5.11.2).
const queues = 2

// handler turns requests of the queue into calls of the file system.
type handler struct {
	server *fuse.ProtocolServer
	init   atomic.Pointer[[]byte] // the guest's FUSE_INIT
}

func newHandler(fs *fileSystem) *handler {
	opts := &fuse.MountOptions{
		MaxWrite:             maxIO,
		MaxReadAhead:         maxIO,
		MaxBackground:        64,
		EnableSymlinkCaching: true,
		Logger:               log.New(io.Discard, "", 0),
		PanicHandler:         func(any) fuse.Status { return fuse.EIO },
		// Without CAP_READDIRPLUS_AUTO entries of a folder always come with their attributes
		// (READDIRPLUS), not the first ones only: who lists a folder mostly looks at
		// what is in it, with a request for each.
		ExtraCapabilities: fuse.CAP_ATOMIC_O_TRUNC | capHandleKillPrivV2,
	}
	return &handler{server: fuse.NewProtocolServer(fs, opts)}
}

// capHandleKillPrivV2 is FUSE_HANDLE_KILLPRIV_V2 (linux/fuse.h): the server
// takes setuid bits away on writing, which the host's kernel does for a process
// without CAP_FSETID. The guest need not ask for security.capability then.
const capHandleKillPrivV2 = 1 << 28

// FUSE opcodes that need a look here (linux/fuse.h).
const (
	opRead      = 15
	opWrite     = 16
	opFsync     = 20
	opFsyncDir  = 30
	opFallocate = 43
	opCopyRange = 47
	opOffset    = 4  // of the opcode in the header
	headerLen   = 40 // struct fuse_in_header
	writeInLen  = headerLen + 40
	maxRequest  = 128 << 10 // bytes of a request that is not WRITE: names and attributes have 64 KiB at most
)

func opcode(in [][]byte) uint32 {
	var b [headerLen]byte
	n := 0
	for _, s := range in {
		n += copy(b[n:], s)
	}
	return binary.NativeEndian.Uint32(b[opOffset:])
}

// Blocks implements vhostuser.Handler: what waits for a disk must not hold up
// the others.
func (*handler) Blocks(in [][]byte) bool {
	switch opcode(in) {
	case opFsync, opFsyncDir, opFallocate, opCopyRange:
		return true
	case opRead: // a stream is read ahead: several at once
		return readSize(in) >= largeRead
	}
	return false
}

// largeRead is what is worth a goroutine of its own, in bytes.
const largeRead = 64 << 10

// readSize is fuse_read_in.size.
func readSize(in [][]byte) uint32 {
	var b [headerLen + 20]byte
	n := 0
	for _, s := range in {
		n += copy(b[n:], s)
	}
	return binary.NativeEndian.Uint32(b[headerLen+16:])
}

// Handle implements vhostuser.Handler. All but the data of WRITE is copied out
// of guest memory first, so that it cannot change after it was checked.
func (h *handler) Handle(in, out [][]byte) (n int) {
	defer func() {
		if recover() != nil { // go-fuse on a request that makes no sense
			n = failure(in, out)
		}
	}()
	private, rest := own(in)
	if private == nil {
		return failure(in, out)
	}
	request := make([][]byte, 0, 1+len(rest))
	request = append(request, private)
	request = append(request, rest...)
	n, st := h.server.HandleRequest(request, out)
	if st != fuse.OK {
		return failure(in, out)
	}
	if opcode(in) == opInit {
		h.init.Store(&private)
	}
	return n
}

// own copies a request but for the data of WRITE, which is rest.
func own(in [][]byte) (private []byte, rest [][]byte) {
	total := 0
	for _, s := range in {
		total += len(s)
	}
	n := total
	if opcode(in) == opWrite {
		n = min(n, writeInLen)
	}
	if n < headerLen || n > maxRequest {
		return nil, nil
	}
	private = make([]byte, 0, n)
	for i, s := range in {
		take := min(len(s), n-len(private))
		private = append(private, s[:take]...)
		if take < len(s) {
			rest = append(rest, s[take:])
		}
		if len(private) == n {
			return private, append(rest, in[i+1:]...)
		}
	}
	return private, nil
}

// failure answers EIO: struct fuse_out_header is length, error and the
// request's unique number.
func failure(in, out [][]byte) int {
	var b [16]byte
	binary.NativeEndian.PutUint32(b[:], uint32(len(b)))
	minus := -int32(unix.EIO)
	binary.NativeEndian.PutUint32(b[4:], uint32(minus))
	if len(in) > 0 && len(in[0]) >= 16 {
		copy(b[8:], in[0][8:16])
	}
	n := 0
	for _, s := range out {
		n += copy(s, b[n:])
	}
	return n
}
