package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sys/proc"
)

// workFolder returns the path of the folder for builds of a cache: the same each time.
func workFolder(cache string) string {
	base := "/var/tmp"
	if fi, err := os.Stat(base); err != nil || !fi.IsDir() || unix.Access(base, unix.W_OK) != nil {
		base = proc.TempDir()
	}
	sum := sha256.Sum256([]byte(cache))
	return filepath.Join(base, fmt.Sprintf("bawn-build-%d-%s", os.Getuid(), hex.EncodeToString(sum[:6])))
}

// newWorkFolder makes the folder for mmdebstrap, after removing what a killed build left
// there. The caller holds the lock on the default image.
func newWorkFolder(ctx context.Context, cache, mode string) (string, error) {
	path := workFolder(cache)
	err := os.Mkdir(path, 0o711) //nolint:gosec // passage, not reading
	if errors.Is(err, os.ErrExist) && ownFolder(path) {
		removeWorkFolder(ctx, path, mode)
		err = os.Mkdir(path, 0o711) //nolint:gosec // passage, not reading
	}
	if err != nil {
		// It is somebody else's: take another name, which nobody can foresee.
		if path, err = os.MkdirTemp(filepath.Dir(path), "bawn-build-*"); err != nil {
			return "", err
		}
	}
	// Whatever the umask is: the subordinate user has to pass through.
	return path, os.Chmod(path, 0o711) //nolint:gosec // passage, not reading
}

// ownFolder reports whether path is a folder of this user, and no symbolic link.
func ownFolder(path string) bool {
	fi, err := os.Lstat(path)
	if err != nil || !fi.IsDir() {
		return false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Getuid()
}

// removeWorkFolder removes the folder and the files that subordinate users own in it.
// What cannot be removed is left for the next build to try.
func removeWorkFolder(ctx context.Context, path, mode string) {
	if os.RemoveAll(path) == nil || mode != modeUnshare {
		return
	}
	_ = proc.Command(ctx, "mmdebstrap", "--unshare-helper", "rm", "-rf", "--one-file-system", path).Run()
	_ = os.RemoveAll(path)
}
