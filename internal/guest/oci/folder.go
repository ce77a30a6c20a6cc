package oci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"bawn.dev/bawn/internal/sys/lockfile"
)

// Theory of operation. Containers with the same lists share a folder, whose name, ca-KEY, comes from
// the contents of the lists; most images of a distribution have the same. So a second container
// costs the reading of its lists only. A link used-ID for each container leads to its folder. A
// folder without a link is removed once there are keptFolders. One call of runc at a
// time does that (the file lock), since several containers may start at once.
const (
	folderPrefix = "ca-"
	usePrefix    = "used-"
	newPrefix    = "new-" // of a folder that is being made
	keptFolders  = 8      // some 700 KiB of the guest's memory each

	// lockWait bounds how long a container waits for others, each of which takes a part of a second.
	lockWait = 30 * time.Second
)

// hold returns the folder with a container's files, which stays until release.
func hold(folder, id string, l *lists) (string, error) {
	if !validID(id) {
		return "", fmt.Errorf("the container's name is %q", id)
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), lockWait)
	defer cancel()
	lock, err := lockfile.Acquire(ctx, filepath.Join(folder, "lock"))
	if err != nil && ctx.Err() != nil {
		return "", fmt.Errorf("other containers that start have held %s/lock for %v", folder, lockWait)
	}
	if err != nil {
		return "", err
	}
	defer lock.Close()
	name := folderPrefix + l.key()
	made := filepath.Join(folder, name)
	if _, err := os.Lstat(made); errors.Is(err, fs.ErrNotExist) {
		if err := sweep(folder); err != nil {
			return "", err
		}
		if err := makeFolder(folder, made, l); err != nil {
			return "", err
		}
	}
	use := filepath.Join(folder, usePrefix+id)
	if err := os.Remove(use); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return made, os.Symlink(name, use)
}

// release ends a container's use of its folder.
func release(folder, id string) error {
	if !validID(id) {
		return nil // no container of hold
	}
	err := os.Remove(filepath.Join(folder, usePrefix+id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// sweep removes the folders that no container uses, if there are many, and those that a call which
// was killed has left half made. The caller holds the lock.
func sweep(folder string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	var folders, used []string
	for _, e := range entries {
		switch {
		case strings.HasPrefix(e.Name(), folderPrefix):
			folders = append(folders, e.Name())
		case strings.HasPrefix(e.Name(), newPrefix):
			if err := os.RemoveAll(filepath.Join(folder, e.Name())); err != nil {
				return err
			}
		case strings.HasPrefix(e.Name(), usePrefix):
			if to, err := os.Readlink(filepath.Join(folder, e.Name())); err == nil {
				used = append(used, to)
			}
		}
	}
	if len(folders) < keptFolders {
		return nil
	}
	for _, name := range folders {
		if slices.Contains(used, name) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(folder, name)); err != nil {
			return err
		}
	}
	return nil
}

// makeFolder makes a folder with a container's files. It appears with all of them.
func makeFolder(folder, made string, l *lists) error {
	files, err := l.files()
	if err != nil {
		return err
	}
	next, err := os.MkdirTemp(folder, newPrefix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(next) // gone after the rename
	for name, b := range files {
		path := filepath.Join(next, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, b, 0o644); err != nil { //nolint:gosec // every user of a container reads them
			return err
		}
	}
	if err := os.Chmod(next, 0o755); err != nil {
		return err
	}
	return os.Rename(next, made)
}
