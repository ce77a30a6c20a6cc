// Package settings reads the files in which the user has set up programs of the host.
package settings

import (
	"fmt"
	"os"

	"bawn.dev/bawn/internal/sys/proc"
	"bawn.dev/bawn/internal/sys/regular"
)

// Read returns the contents of a regular file of at most limit bytes, by its absolute path. A file that a guest or
// another user could have written is an error (proc.Trusted): it would choose what the host asks, runs or
// believes. If there is no such file, the error is an fs.ErrNotExist. /dev/null is an empty file: people set it where a
// program is to have no settings.
func Read(path string, limit int64) ([]byte, error) {
	if path == os.DevNull {
		return nil, nil
	}
	text, err := regular.Read(path, limit, 0)
	if err != nil {
		return nil, err
	}
	if err := proc.Trusted(path); err != nil {
		return nil, fmt.Errorf("%s is not used: %w", path, err)
	}
	return text, nil
}
