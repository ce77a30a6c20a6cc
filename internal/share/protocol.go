package share

import (
	"encoding/binary"
	"io"
	"log"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// handler turns requests of the queue into calls of the file system.
type handler struct {
	fs     *fileSystem
	server *fuse.ProtocolServer
	events *fuse.ProtocolServer   // for the event thread (fileevents.go)
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
		// Without CAP_READDIRPLUS_AUTO the entries of a directory always come with their
		// attributes (READDIRPLUS), not only the first ones: a program that lists a
		// directory mostly looks at its entries next, with a request for each.
		ExtraCapabilities: fuse.CAP_ATOMIC_O_TRUNC | capHandleKillPrivV2,
	}
	return &handler{fs: fs, server: fuse.NewProtocolServer(forRoot{fs}, opts), events: fuse.NewProtocolServer(newPlayer(fs), opts)}
}

// capHandleKillPrivV2 is FUSE_HANDLE_KILLPRIV_V2 (linux/fuse.h): the server
// takes setuid bits away on writing, which the host's kernel does for a process
// without CAP_FSETID. The guest need not ask for security.capability then.
const capHandleKillPrivV2 = 1 << 28

// FUSE opcodes that matter here (linux/fuse.h).
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

// Blocks implements vhostuser.Handler: a request that waits for a disk must not delay the
// others.
func (*handler) Blocks(in [][]byte) bool {
	switch opcode(in) {
	case opFsync, opFsyncDir, opSyncFS, opFallocate, opCopyRange:
		return true
	case opRead: // a stream is read ahead: several at once
		return readSize(in) >= largeRead
	}
	return false
}

// largeRead is the size of a read that is worth a goroutine of its own, in bytes.
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
		if recover() != nil { // go-fuse panics on some malformed requests
			n = failure(in, out)
		}
	}()
	private, rest := copyRequest(in)
	if private == nil {
		return failure(in, out)
	}
	if opcode([][]byte{private}) == opSyncFS {
		return plain(in, out, h.fs.syncFS())
	}
	if n, ok := h.play(private, out); ok {
		return n
	}
	change := h.fs.beginChange(private)
	request := make([][]byte, 0, 1+len(rest))
	request = append(request, private)
	request = append(request, rest...)
	n, st := h.server.HandleRequest(request, out)
	change.end(out)
	h.fs.space.quota.done(opcode([][]byte{private}))
	if st != fuse.OK {
		return failure(in, out)
	}
	if opcode(in) == opInit {
		h.init.Store(&private)
		h.initEvents(private)
	}
	return n
}

// copyRequest returns a copy of a request, without the data of WRITE, which is rest. It
// returns nil for a request that is too short or too long.
func copyRequest(in [][]byte) (private []byte, rest [][]byte) {
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

// failure writes the answer EIO and returns its length: struct fuse_out_header is length,
// error and the request's unique number.
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
