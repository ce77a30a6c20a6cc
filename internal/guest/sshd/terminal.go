package sshd

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// terminal is a session's pseudo-terminal.
type terminal struct {
	name   string   // $TERM
	master *os.File // our end
	tty    *os.File // the command's end, until the command is started
}

// groupTTY is Debian's group tty. devpts is mounted with the same number.
const groupTTY = 5

// newTerminal opens a terminal for a pty-req (RFC 4254, section 6.2), which belongs to
// the user.
func newTerminal(payload []byte, uid uint32) (*terminal, error) {
	var v struct {
		Term                         string
		Columns, Rows, Width, Height uint32
		Modes                        string
	}
	if err := ssh.Unmarshal(payload, &v); err != nil {
		return nil, err
	}
	master, tty, err := openPTY()
	if err != nil {
		return nil, err
	}
	err = resize(master, window{v.Columns, v.Rows, v.Width, v.Height})
	err = errors.Join(err, setModes(tty, v.Modes))
	if os.Geteuid() == 0 {
		// The group tty may write to it, as write(1) needs.
		err = errors.Join(err, tty.Chown(int(uid), groupTTY), tty.Chmod(0o620))
	}
	t := &terminal{name: v.Term, master: master, tty: tty}
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// close closes both ends. It may be called more than once.
func (t *terminal) close() {
	t.tty.Close()
	t.master.Close()
}

// carry copies between the terminal and the channel until the command has ended (done is
// closed) and its output is read. It closes the terminal.
func (t *terminal) carry(channel io.ReadWriter, done <-chan struct{}) {
	go func() { _, _ = io.Copy(t.master, channel) }() // ends with the channel, at the latest
	var output sync.WaitGroup
	output.Go(func() {
		_, _ = io.Copy(channel, t.master)
		t.drain(channel)
	})
	<-done
	// Ends the copy, also when a process in the background keeps the terminal open.
	_ = t.master.SetReadDeadline(time.Unix(1, 0))
	output.Wait()
	t.master.Close()
}

// drain copies what is left to read, and does not wait for more. A read that would block
// first flushes what the kernel has under way (n_tty_read), so nothing that the ended
// command wrote is missed.
func (t *terminal) drain(w io.Writer) {
	_ = t.master.SetReadDeadline(time.Time{})
	raw, err := t.master.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 32<<10)
	for {
		var n int
		var rerr error
		err := raw.Read(func(fd uintptr) bool {
			n, rerr = unix.Read(int(fd), buf)
			return true
		})
		if errors.Is(rerr, unix.EINTR) {
			continue
		}
		if err != nil || rerr != nil || n <= 0 {
			return
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return
		}
	}
}

// foreground returns the process group in the terminal's foreground; 0 where there is
// none.
func (t *terminal) foreground() (group int) {
	_ = withFD(t.master, func(fd int) (err error) {
		group, err = unix.IoctlGetInt(fd, unix.TIOCGPGRP)
		return err
	})
	return group
}
