package session

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/wire"
)

// giveFile sends the rest of a file that is not too long before the command starts, which
// then gets it as a file: programs that read more than they use set the position back. Of
// other input nothing is sent, and the command gets a pipe.
func (s *source) giveFile(to *remote) error {
	data := s.shortFile()
	if len(data) == 0 {
		return nil
	}
	var err error
	if s.sent, err = to.sendInput(data); s.sent {
		s.given = uint64(len(data))
	}
	return err
}

// shortFile returns the rest of the file, or nothing if it is too long or is none that the
// command may get as a file. An error of reading comes again when it is read for the pipe.
func (s *source) shortFile() []byte {
	if s.read != readFile || !openedForReading(s.file) {
		return nil
	}
	if fi, err := s.file.Stat(); err != nil || fi.Size()-s.start > wire.MaxInputFile {
		return nil
	}
	data, err := io.ReadAll(io.NewSectionReader(s.file, s.start, wire.MaxInputFile+1))
	if err != nil || len(data) > wire.MaxInputFile {
		return nil
	}
	return data
}

// openedForReading reports whether f cannot be written to: the copy in the guest cannot be
// either.
func openedForReading(f *os.File) (only bool) {
	_ = control(f, func(fd int) {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		only = err == nil && flags&unix.O_ACCMODE == unix.O_RDONLY
	})
	return only
}

// sendInput sends the parts of an input file. It reports false if the agent does not know
// them.
func (s *remote) sendInput(data []byte) (bool, error) {
	for first := true; len(data) > 0; first = false {
		part := data[:min(len(data), wire.MaxInputPart)]
		data = data[len(part):]
		ok, err := s.SendRequest(wire.RequestInputPart, first, ssh.Marshal(wire.InputPart{Data: string(part)}))
		if err != nil {
			return false, fmt.Errorf("guest: send the standard input: %w", err)
		}
		if first && !ok {
			return false, nil
		}
	}
	return true, nil
}
