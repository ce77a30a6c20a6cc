// Package settings reads the files in which the user has set up programs of the host.
package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

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

// Check returns an error if a file or folder, by its absolute path, is one that a guest or another user could have
// written or can replace (proc.Trusted). It need not be there.
func Check(path string) error {
	if err := proc.Trusted(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// CheckFolders is Check for the folders that variables of the environment name: programs read settings there, which may
// name code. A variable that is not set is left out.
func CheckFolders(variables ...string) error {
	for _, k := range variables {
		if v := os.Getenv(k); v != "" {
			if err := Check(v); err != nil {
				return fmt.Errorf("%s is not used: %w", k, err)
			}
		}
	}
	return nil
}

// Passed returns those of the variables of the environment that are set to more than nothing, as a program gets them beside
// those of proc.Environ. They are none that name code, or have gone through CheckFolders.
func Passed(variables ...string) (env []string) {
	for _, k := range variables {
		if v := os.Getenv(k); v != "" {
			env = append(env, k+"="+v)
		}
	}
	return env
}

// CheckGnuPG returns an error unless GnuPG's folder and its files of configuration there are ones that no guest or
// other user can write: they name programs (agent-program, pinentry-program; gpg(1), FILES). The names of the files
// may end in a version.
func CheckGnuPG() error {
	dir := os.Getenv("GNUPGHOME")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return err
		}
		dir = filepath.Join(home, ".gnupg")
	}
	if err := Check(dir); err != nil {
		return fmt.Errorf("the folder of GnuPG is not used: %w", err)
	}
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, f := range list {
		if !strings.Contains(f.Name(), ".conf") {
			continue
		}
		if err := Check(filepath.Join(dir, f.Name())); err != nil {
			return fmt.Errorf("%s of GnuPG is not used: %w", f.Name(), err)
		}
	}
	return nil
}
