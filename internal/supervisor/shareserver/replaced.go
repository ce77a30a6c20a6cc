package shareserver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// fileID identifies a directory or file. Its number is not used again while a server has it
// open.
type fileID struct{ dev, ino uint64 }

// Path returns the directory or file that is shared.
func (p Plan) Path() string { return filepath.Join(p.Options.Root, p.Options.File) }

// identify returns what lies at the path of a plan, which must be of the plan's kind.
func identify(p Plan) (fileID, error) {
	fi, err := os.Lstat(p.Path())
	if errors.Is(err, fs.ErrNotExist) {
		return fileID{}, fmt.Errorf("%s, which the sandbox shares, is gone: put it back, or stop the sandbox", p.Path())
	}
	if err != nil {
		return fileID{}, err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}, errors.New("no inode number")
	}
	if fi.IsDir() == (p.Options.File != "") || !fi.IsDir() && !fi.Mode().IsRegular() {
		return fileID{}, fmt.Errorf("%s, which the sandbox shares, has been replaced by something of another kind (%s): put it back, or stop the sandbox and run again", p.Path(), fi.Mode().Type())
	}
	return fileID{uint64(st.Dev), st.Ino}, nil //nolint:unconvert // another type on other processors
}

// Replaced reports whether another directory or file lies at the path of the share than the
// server serves. It is an error if none lies there that could be served.
func (sh *Server) Replaced() (bool, error) {
	id, err := identify(sh.Plan)
	return err == nil && id != sh.id, err
}
