package share

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/wire"
)

// Besides the guest's requests, a share's server answers the supervisor's orders,
// on a stream socket of its own: it saves what the guest knows of the share, takes
// that over from a predecessor, and serves another QEMU. The supervisor sends
// one order at a time and waits for its answer. Each message is its length (4 bytes,
// big-endian) and a JSON document; a descriptor comes beside the first byte.

// maxMessage bounds a message, in bytes. A share of two million files in use
// makes some 200 MB.
const maxMessage = 1 << 30

// verb is the kind of an order.
type verb string

const (
	verbSave  verb = "save"  // answer with the state
	verbLoad  verb = "load"  // take over a state, before the first "serve"
	verbServe verb = "serve" // the next QEMU, by its socket
	verbMark  verb = "mark"  // begin a restore point
	// File events (fileevents.go).
	verbWatched  verb = "watched"  // answer with the directories of files that the guest watches
	verbAnnounce verb = "announce" // answer with the events for changes on the host
)

type order struct {
	Verb  verb            `json:"verb"`
	State json.RawMessage `json:"state,omitempty"`
	Moved bool            `json:"moved,omitempty"`

	Nodes   []uint64     `json:"nodes,omitempty"`   // verbWatched
	Thread  uint32       `json:"thread,omitempty"`  // verbAnnounce: the guest's event thread
	Changes []HostChange `json:"changes,omitempty"` // verbAnnounce
}

type answer struct {
	Error string          `json:"error,omitempty"`
	State json.RawMessage `json:"state,omitempty"`

	Dirs   [][]byte         `json:"dirs,omitempty"`   // verbWatched: paths below the root
	Events []wire.FileEvent `json:"events,omitempty"` // verbAnnounce
}

// send writes one message, with a descriptor beside it unless f is nil. The file stays the
// caller's.
func send(c *net.UnixConn, v any, f *os.File) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	head := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	var rights []byte
	if f != nil {
		rights = unix.UnixRights(int(f.Fd()))
	}
	if _, _, err := c.WriteMsgUnix(head, rights, nil); err != nil {
		return err
	}
	_, err = c.Write(body)
	return err
}

// receive reads one message into v, and the descriptor that came with it, if any.
func receive(c *net.UnixConn, v any) (f *os.File, err error) {
	head, oob := make([]byte, 4), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := c.ReadMsgUnix(head, oob)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, io.EOF
	}
	if oobn > 0 {
		if f, err = oneFile(oob[:oobn]); err != nil {
			return nil, err
		}
	}
	if _, err := io.ReadFull(c, head[n:]); err != nil {
		return f, err
	}
	size := binary.BigEndian.Uint32(head)
	if size > maxMessage {
		return f, fmt.Errorf("a message of %d bytes is too long", size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(c, body); err != nil {
		return f, err
	}
	return f, json.Unmarshal(body, v)
}

// oneFile returns the descriptor in a control message.
func oneFile(oob []byte) (*os.File, error) {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		fds, err := syscall.ParseUnixRights(&m)
		if err != nil || len(fds) == 0 {
			continue
		}
		syscall.CloseOnExec(fds[0])
		return os.NewFile(uintptr(fds[0]), "vhost-user"), nil
	}
	return nil, errors.New("no file descriptor was received")
}
