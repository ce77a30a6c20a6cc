// Package socketpair makes connected Unix sockets, one end for this process and one to
// hand to a child.
package socketpair

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// New makes a pair of stream sockets: the caller's end, and the end for a child
// (exec.Cmd.ExtraFiles), which the caller closes once the child was started, or the
// child's end would never be seen. Both are close-on-exec.
func New() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "socket pair")
	ours, err := Conn(os.NewFile(uintptr(fds[0]), "socket pair"))
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	return ours, theirs, nil
}

// Conn makes a connection of a Unix socket, such as one that this process inherited.
// The file is closed, also on an error.
func Conn(f *os.File) (*net.UnixConn, error) {
	defer f.Close() // FileConn duplicates it
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("not a Unix socket")
	}
	return u, nil
}
