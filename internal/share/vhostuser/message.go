package vhostuser

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// request is the type of a message from QEMU (docs/interop/vhost-user, "Front-end
// message types").
type request uint32

const (
	reqGetFeatures         request = 1
	reqSetFeatures         request = 2
	reqSetOwner            request = 3
	reqResetOwner          request = 4
	reqSetMemTable         request = 5
	reqSetVringNum         request = 8
	reqSetVringAddr        request = 9
	reqSetVringBase        request = 10
	reqGetVringBase        request = 11
	reqSetVringKick        request = 12
	reqSetVringCall        request = 13
	reqSetVringErr         request = 14
	reqGetProtocolFeatures request = 15
	reqSetProtocolFeatures request = 16
	reqGetQueueNum         request = 17
	reqSetVringEnable      request = 18
	reqResetDevice         request = 34
)

func (r request) String() string { return fmt.Sprintf("message %d", uint32(r)) }

// Layout of a message (docs/interop/vhost-user, "Message Specification").
const (
	headerLen = 12 // request, flags, payload size: 32 bits each

	versionMask   = 0x3
	version       = 0x1
	flagReply     = 0x4
	flagNeedReply = 0x8

	maxPayload = 4096 // bytes; the largest message that is handled here has 264
	maxFiles   = 8    // VHOST_MEMORY_BASELINE_NREGIONS

	vringIndexMask = 0xff
	vringNoFile    = 0x100
)

// message is one message from QEMU.
type message struct {
	request request
	flags   uint32
	payload []byte
	files   []*os.File
}

// readMessage reads one message. Its files are the caller's to close.
func readMessage(c *net.UnixConn) (_ *message, err error) {
	m := &message{}
	defer func() {
		if err != nil {
			m.closeFiles()
		}
	}()
	head := make([]byte, headerLen)
	oob := make([]byte, unix.CmsgSpace(maxFiles*4))
	n, oobn, flags, _, err := c.ReadMsgUnix(head, oob)
	if oobn > 0 {
		var ferr error
		if m.files, ferr = files(oob[:oobn]); ferr != nil {
			return nil, ferr
		}
	}
	switch {
	case err != nil:
		return nil, err
	case n == 0:
		return nil, io.EOF
	case flags&unix.MSG_CTRUNC != 0:
		return nil, errors.New("more file descriptors than a message may carry")
	}
	if _, err := io.ReadFull(c, head[n:]); err != nil {
		return nil, err
	}
	m.request = request(binary.NativeEndian.Uint32(head))
	m.flags = binary.NativeEndian.Uint32(head[4:])
	size := binary.NativeEndian.Uint32(head[8:])
	if m.flags&versionMask != version || size > maxPayload {
		return nil, fmt.Errorf("malformed message: flags %#x, %d bytes", m.flags, size)
	}
	m.payload = make([]byte, size)
	_, err = io.ReadFull(c, m.payload)
	return m, err
}

// files returns the descriptors in a control message.
func files(oob []byte) ([]*os.File, error) {
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var out []*os.File
	for _, c := range list {
		fds, err := unix.ParseUnixRights(&c)
		if err != nil {
			continue // credentials, which were not asked for
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			// Go's poller needs it, and QEMU's eventfds are non-blocking already.
			if err := unix.SetNonblock(fd, true); err != nil {
				return out, err
			}
			out = append(out, os.NewFile(uintptr(fd), "vhost-user"))
		}
	}
	return out, nil
}

func (m *message) closeFiles() {
	for _, f := range m.files {
		if f != nil {
			f.Close()
		}
	}
}

// takeFile returns the message's only file, which is then the caller's.
func (m *message) takeFile() (*os.File, error) {
	if len(m.files) != 1 {
		return nil, fmt.Errorf("%d file descriptors, not 1", len(m.files))
	}
	f := m.files[0]
	m.files = nil
	return f, nil
}

func (m *message) wantsAck() bool { return m.flags&flagNeedReply != 0 }

var errShort = errors.New("message too short")

func (m *message) u64() (uint64, error) {
	if len(m.payload) < 8 {
		return 0, errShort
	}
	return binary.NativeEndian.Uint64(m.payload), nil
}

func (m *message) state() (index, num uint32, err error) {
	if len(m.payload) < 8 {
		return 0, 0, errShort
	}
	return binary.NativeEndian.Uint32(m.payload), binary.NativeEndian.Uint32(m.payload[4:]), nil
}

// address is the payload of SET_VRING_ADDR; the addresses are QEMU's own.
type address struct {
	index, flags      uint32
	desc, used, avail uint64
}

func (m *message) address() (address, error) {
	if len(m.payload) < 40 {
		return address{}, errShort
	}
	p := m.payload
	return address{
		index: binary.NativeEndian.Uint32(p),
		flags: binary.NativeEndian.Uint32(p[4:]),
		desc:  binary.NativeEndian.Uint64(p[8:]),
		used:  binary.NativeEndian.Uint64(p[16:]),
		avail: binary.NativeEndian.Uint64(p[24:]),
	}, nil
}

func u64(v uint64) []byte { return binary.NativeEndian.AppendUint64(nil, v) }

func statePayload(index, num uint32) []byte {
	return binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, index), num)
}

func writeReply(w io.Writer, r request, payload []byte) error {
	b := make([]byte, 0, headerLen+len(payload))
	b = binary.NativeEndian.AppendUint32(b, uint32(r))
	b = binary.NativeEndian.AppendUint32(b, version|flagReply)
	b = binary.NativeEndian.AppendUint32(b, uint32(len(payload)))
	_, err := w.Write(append(b, payload...))
	return err
}
