// Package keyfile reads files with a secret key that only their owner may read, and has each made once.
package keyfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"bawn.dev/bawn/internal/sys/lockfile"
)

// Read returns the contents of a file with a key. If there is none, create writes it, once. It writes it in one step
// (package atomicfile), since others read it at that moment without a lock. A file that other users may read is an error, which tells the person to remove it
// and what to do then.
func Read(ctx context.Context, path, then string, create func() error) ([]byte, error) {
	if b, err := read(path, then); !errors.Is(err, fs.ErrNotExist) {
		return b, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	l, err := lockfile.Acquire(ctx, path+".lock")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	if b, err := read(path, then); !errors.Is(err, fs.ErrNotExist) {
		return b, err
	}
	if err := create(); err != nil {
		return nil, err
	}
	return read(path, then)
}

func read(path, then string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("other users may have read %s: remove it, and %s", path, then)
	}
	return io.ReadAll(f)
}
