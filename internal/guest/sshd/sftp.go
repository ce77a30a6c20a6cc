package sshd

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/pkg/sftp"
)

// SFTPMode is the name under which the agent executes itself to serve SFTP.
const SFTPMode = "bawn-sftp"

// stdio is standard input and output as one connection.
type stdio struct{}

func (stdio) Read(b []byte) (int, error)  { return os.Stdin.Read(b) }
func (stdio) Write(b []byte) (int, error) { return os.Stdout.Write(b) }
func (stdio) Close() error                { return errors.Join(os.Stdin.Close(), os.Stdout.Close()) }

// ServeSFTP serves SFTP on standard input and output, with the rights of this process,
// until the input ends. It returns the exit status.
func ServeSFTP() int {
	// Relative paths start at this process's working directory. (With the
	// option of that name, the targets of symbolic links would too.)
	s, err := sftp.NewServer(stdio{})
	if err == nil {
		err = s.Serve()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintf(os.Stderr, "sftp: %v\n", err)
		return 1
	}
	return 0
}
