package sshd

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/guest/accounts"
	"bawn.dev/bawn/internal/wire"
)

// inputFile is a command's standard input that is a file on the host, kept in memory.
//
// Theory of operation. Programs read a file in blocks and set its position back to what
// they have used: after "head -n 1" the next program gets the second line. A pipe has no
// position, so all that head has read would be lost. The host therefore sends a file that
// is not too long before the command starts, and the command gets it as a file. Its
// position at the command's end is how much was read.
type inputFile struct {
	mu     sync.Mutex
	memory *os.File // all bytes; nil after release
	length int
	theirs *os.File // shares the position of the command's standard input; nil before open
}

// addInput keeps a part of the command's input. A part that cannot be kept makes the
// command fail.
func (s *session) addInput(payload []byte) bool {
	var v wire.InputPart
	if ssh.Unmarshal(payload, &v) != nil || s.running != nil || s.terminal != nil {
		return false
	}
	if s.file == nil {
		s.file = &inputFile{}
	}
	return s.file.add(v.Data) == nil
}

// add appends data. After an error the file is released.
func (f *inputFile) add(data string) (err error) {
	defer func() {
		if err != nil {
			f.release()
		}
	}()
	if f.length += len(data); f.length > wire.MaxInputFile {
		return unix.EFBIG
	}
	if f.length == len(data) {
		fd, err := unix.MemfdCreate("stdin", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
		if err != nil {
			return err
		}
		f.memory = os.NewFile(uintptr(fd), "stdin")
	}
	if f.memory == nil {
		return os.ErrClosed // an earlier part is missing
	}
	_, err = f.memory.WriteString(data)
	return err
}

// open returns the file, to be read only, at its beginning. It belongs to the user, who
// could otherwise not open it again (/dev/stdin).
func (f *inputFile) open(to *accounts.Login) (in *os.File, err error) {
	if f == nil {
		return nil, errors.New("standard input: the client has not sent it")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.memory == nil {
		return nil, errors.New("standard input: the guest has no memory for it")
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("standard input: %w", err)
		}
	}()
	if err = f.protect(to); err != nil {
		return nil, err
	}
	if in, err = os.Open(fmt.Sprintf("/proc/self/fd/%d", f.memory.Fd())); err != nil {
		return nil, err
	}
	fd, err := unix.FcntlInt(in.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		in.Close()
		return nil, err
	}
	f.theirs = os.NewFile(uintptr(fd), "stdin")
	return in, nil
}

// protect makes the file the user's, and unchangeable.
func (f *inputFile) protect(to *accounts.Login) error {
	fd := int(f.memory.Fd())
	if os.Geteuid() == 0 {
		if err := unix.Fchown(fd, int(to.UID), int(to.GID)); err != nil {
			return err
		}
	}
	if err := unix.Fchmod(fd, 0o400); err != nil {
		return err
	}
	_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
	return err
}

// position returns where in the file the command's processes are, and releases the file.
func (f *inputFile) position() (at int64) {
	f.mu.Lock()
	if f.theirs != nil {
		at, _ = unix.Seek(int(f.theirs.Fd()), 0, unix.SEEK_CUR) // a file always has a position
	}
	f.mu.Unlock()
	f.release()
	return at
}

// release closes the file, unless the command has it open. It may be called more than
// once, and of nil.
func (f *inputFile) release() {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, file := range []*os.File{f.memory, f.theirs} {
		if file != nil {
			file.Close()
		}
	}
	f.memory, f.theirs = nil, nil
}
