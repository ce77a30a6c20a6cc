package accounts

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"bawn.dev/bawn/internal/wire"
)

// MakeHome makes the home directories of root and of the user below root, if they do not
// exist; the user's as a copy of /etc/skel. Small images have none.
func MakeHome(root string, u wire.User) error {
	if err := os.MkdirAll(filepath.Join(root, "/root"), 0o700); err != nil {
		return fmt.Errorf("home directory: %w", err)
	}
	if u.Home == "" || u.Home == "/" || u.UID == 0 {
		return nil
	}
	home := filepath.Join(root, u.Home)
	if fi, err := os.Stat(home); err == nil && fi.IsDir() {
		return os.Chown(home, int(u.UID), int(u.GID))
	}
	if err := os.MkdirAll(filepath.Dir(home), 0o755); err != nil {
		return fmt.Errorf("home directory: %w", err)
	}
	// It has another name until it is complete, so that a start that was killed begins
	// again.
	tmp := home + ".bawn-new"
	if err := os.RemoveAll(tmp); err != nil {
		return fmt.Errorf("home directory: %w", err)
	}
	if err := copySkeleton(root+"/etc/skel", tmp, u); err != nil {
		return fmt.Errorf("home directory: %w", err)
	}
	return os.Rename(tmp, home)
}

// copySkeleton copies regular files, directories and links, and gives them to the user.
// src may be missing.
func copySkeleton(src, dst string, u wire.User) error {
	if err := os.Mkdir(dst, 0o755); err != nil {
		return err
	}
	if err := os.Lchown(dst, int(u.UID), int(u.GID)); err != nil {
		return err
	}
	entries, err := os.ReadDir(src)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		from, to := filepath.Join(src, e.Name()), filepath.Join(dst, e.Name())
		switch e.Type() {
		case fs.ModeDir:
			err = copySkeleton(from, to, u)
		case fs.ModeSymlink:
			var target string
			if target, err = os.Readlink(from); err == nil {
				err = os.Symlink(target, to)
			}
		case 0:
			err = copyFile(from, to)
		}
		if err == nil && e.Type()&^(fs.ModeDir|fs.ModeSymlink) == 0 {
			err = os.Lchown(to, int(u.UID), int(u.GID))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	fi, err := os.Stat(from)
	if err != nil {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fi.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
