// Package xdg names bawn's own folders, as the XDG base directory specification
// (version 0.8) has them. None of them need exist.
package xdg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"bawn.dev/bawn/internal/sys/pathwalk"
	"bawn.dev/bawn/internal/sys/proc"
)

// State returns the folder of sandboxes: $XDG_STATE_HOME/bawn, by default
// ~/.local/state/bawn.
func State() (string, error) {
	if d := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(d) {
		return mine(filepath.Join(d, "bawn"))
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("cannot find the state folder: %w (set HOME or XDG_STATE_HOME)", err)
	}
	return mine(filepath.Join(home, ".local", "state", "bawn"))
}

// Cache returns the folder of images, kernels and templates: $XDG_CACHE_HOME/bawn,
// by default ~/.cache/bawn. A folder that a guest can write to, or could, is an error: what is there is started and
// installed in other sandboxes.
func Cache() (string, error) {
	dir, err := CachePath()
	if err != nil {
		return "", err
	}
	if err := proc.ByGuests(dir); err != nil {
		return "", fmt.Errorf("the cache folder %w; or set XDG_CACHE_HOME to a folder outside of what sandboxes share", err)
	}
	return dir, nil
}

// CachePath is Cache for a caller that only needs to know where the folder is.
func CachePath() (string, error) {
	d, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("cannot find the cache folder: %w (set HOME or XDG_CACHE_HOME)", err)
	}
	return mine(filepath.Join(d, "bawn"))
}

// Config returns the folder of the user's policy and approvals:
// $XDG_CONFIG_HOME/bawn, by default ~/.config/bawn.
func Config() (string, error) {
	d, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("cannot find the configuration folder: %w (set HOME or XDG_CONFIG_HOME)", err)
	}
	return mine(filepath.Join(d, "bawn"))
}

// mine returns a folder of bawn's, unless this is root and the folder is not root's to use.
func mine(dir string) (string, error) {
	if os.Geteuid() != 0 {
		return dir, nil
	}
	if err := ofRoot(dir); err != nil {
		return "", fmt.Errorf("root cannot keep files in %s: %w (run bawn as that user, or set HOME=/root and no XDG_ variables)", dir, err)
	}
	return dir, nil
}

// ofRoot checks each directory and link on the way to a folder, as far as it exists: a user
// who can exchange one of them (sudo may keep HOME and the XDG variables) would choose the
// files that root reads, writes, and makes private.
func ofRoot(dir string) error {
	_, err := pathwalk.Walk(dir, step)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// systemOwner is the owner of the file system's root: 0, or in a user namespace that does not
// map the host's root the number that stands for it (user_namespaces(7)). There this process
// is no root of the host, and no other user's choice gives it more than it has.
func systemOwner() uint32 {
	fi, err := os.Stat("/")
	if err != nil {
		return 0
	}
	return fi.Sys().(*syscall.Stat_t).Uid
}

// step judges one name on the way.
func step(p string, fi fs.FileInfo) error {
	if uid := fi.Sys().(*syscall.Stat_t).Uid; uid != 0 && uid != systemOwner() {
		return fmt.Errorf("%s belongs to user %d", p, uid)
	}
	if fi.IsDir() && fi.Mode().Perm()&0o002 != 0 && fi.Mode()&fs.ModeSticky == 0 {
		return fmt.Errorf("every user can write to %s", p)
	}
	return nil
}
