// Package xdg names bawn's own folders, as the XDG base directory specification
// (version 0.8) has them. None of them need exist.
package xdg

import (
	"fmt"
	"os"
	"path/filepath"
)

// State returns the folder of sandboxes: $XDG_STATE_HOME/bawn, by default
// ~/.local/state/bawn.
func State() (string, error) {
	if d := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(d) {
		return filepath.Join(d, "bawn"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("cannot find the state folder: %w (set HOME or XDG_STATE_HOME)", err)
	}
	return filepath.Join(home, ".local", "state", "bawn"), nil
}

// Cache returns the folder of images, kernels and templates: $XDG_CACHE_HOME/bawn,
// by default ~/.cache/bawn.
func Cache() (string, error) {
	d, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("cannot find the cache folder: %w (set HOME or XDG_CACHE_HOME)", err)
	}
	return filepath.Join(d, "bawn"), nil
}

// Config returns the folder of the user's policy and approvals:
// $XDG_CONFIG_HOME/bawn, by default ~/.config/bawn.
func Config() (string, error) {
	d, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("cannot find the configuration folder: %w (set HOME or XDG_CONFIG_HOME)", err)
	}
	return filepath.Join(d, "bawn"), nil
}
