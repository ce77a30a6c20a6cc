package handoff

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/sys/lockfile"
)

// The claim is the conversation on a pool member's claim socket by which the member
// becomes a sandbox:
//
//	caller: the sandbox's folder, with the event pipe and the sandbox's lock beside it
//	member: agreed (it fits), or hangs up
//	caller: agreed (from here on the sandbox is the member's)
//
// Both sides agree before anything is moved, so a member that does not answer within
// ClaimLimit stays in the pool.

// ClaimLimit is how long the two sides of a claim wait for each other.
const ClaimLimit = 2 * time.Second

const agreed = "y"

// WarmUpDir is where a pool member mounts the shares of its warm-up. Further shares are
// mounted at this path with a number behind it.
const WarmUpDir = "/run/bawn/warm-up"

// EmptyFolder is the folder, inside a pool member's, that those shares serve.
const EmptyFolder = "empty"

// claim is the caller's first message.
type claim struct {
	Dir string `json:"dir"`
}

// SendClaim offers the sandbox in d to a pool member. events is the end of the pipe that
// the member reports start events to. The descriptors are duplicated; the caller keeps
// its own.
func SendClaim(c *net.UnixConn, d store.Dir, events *os.File, lock *lockfile.Lock) error {
	b, err := json.Marshal(claim{d.Path})
	if err != nil {
		return err
	}
	rights := unix.UnixRights(int(events.Fd()), int(lock.File().Fd()))
	_, _, err = c.WriteMsgUnix(append(b, '\n'), rights, nil)
	return err
}

// ReceiveClaim reads the caller's first message. The caller of ReceiveClaim owns the
// event pipe and the lock.
func ReceiveClaim(c *net.UnixConn) (d store.Dir, events *os.File, lock *lockfile.Lock, err error) {
	b, oob := make([]byte, 4096+64), make([]byte, unix.CmsgSpace(2*4))
	n, oobn, _, _, err := c.ReadMsgUnix(b, oob)
	if err != nil {
		return d, nil, nil, err
	}
	messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		return d, nil, nil, errors.Join(errors.New("no file descriptors were received"), err)
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	for _, fd := range fds {
		syscall.CloseOnExec(fd)
	}
	if err != nil || len(fds) != 2 {
		for _, fd := range fds {
			_ = syscall.Close(fd) // there is nothing to do about an error
		}
		return d, nil, nil, errors.Join(errors.New("expected two file descriptors"), err)
	}
	events = os.NewFile(uintptr(fds[0]), "launcher")
	if lock, err = lockfile.Inherit(fds[1]); err != nil {
		return d, nil, nil, errors.Join(err, events.Close())
	}
	var offer claim
	if err = json.Unmarshal([]byte(strings.TrimSuffix(string(b[:n]), "\n")), &offer); err == nil && !filepath.IsAbs(offer.Dir) {
		err = fmt.Errorf("%q is not a sandbox's folder", offer.Dir)
	}
	if err != nil {
		return d, nil, nil, errors.Join(err, events.Close(), lock.Close())
	}
	return store.Dir{Path: offer.Dir}, events, lock, nil
}

// Agree sends agreement to the other side of a claim, which then continues.
func Agree(c *net.UnixConn) error {
	_, err := c.Write([]byte(agreed))
	return err
}

// AwaitAgreement waits until the other side of a claim agrees. The connection's deadline
// bounds the wait.
func AwaitAgreement(c *net.UnixConn) error {
	answer := make([]byte, len(agreed))
	if _, err := c.Read(answer); err != nil {
		return err
	}
	if string(answer) != agreed {
		return errors.New("refused")
	}
	return nil
}
