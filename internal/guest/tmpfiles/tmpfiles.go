// Package tmpfiles makes what the image's packages want in /run at each start, as
// systemd-tmpfiles(8) does: daemons and programs such as screen expect folders there.
//
// It applies the lines of tmpfiles.d(5) that make something below /run (fragment.go parses
// them), and leaves all others alone: /run alone is empty at a start. It is bounded and
// follows no symbolic link of the last element of a path.
//
// Not safe: the files are the guest's, whose root may write what it likes into them. The
// agent applies them with root's rights in the guest.
package tmpfiles

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/guest/accounts"
	"bawn.dev/bawn/internal/guest/etc"
)

// fragmentDirs are the folders of fragments (tmpfiles.d(5)). A file in an earlier one stands
// for those of the same name in later ones.
var fragmentDirs = []string{"/etc/tmpfiles.d", "/run/tmpfiles.d", "/usr/local/lib/tmpfiles.d", "/usr/lib/tmpfiles.d", "/lib/tmpfiles.d"}

const (
	maxFragments = 512
	maxLines     = 4096 // of all fragments
)

// reserved are paths of systemd, which does not run here: programs look there for whether it
// does, and nologin(5) would keep users out.
var reserved = []string{"/run/systemd", "/run/nologin", "/run/bawn"}

// Apply applies the fragments of the file system at root, "" for /. It returns the errors of
// the lines that failed; the others are applied.
func Apply(root string) (failed []error) {
	lines := 0
	for _, path := range fragments(root) {
		for text := range strings.Lines(string(etc.Read(path))) {
			if lines++; lines > maxLines {
				return append(failed, fmt.Errorf("tmpfiles: more than %d lines", maxLines))
			}
			l, ok := parse(text)
			if !ok || !below("/run", l.path) || slices.ContainsFunc(reserved, func(r string) bool { return l.path == r || below(r, l.path) }) {
				continue
			}
			if err := l.apply(root); err != nil {
				failed = append(failed, fmt.Errorf("tmpfiles: %s: %w", filepath.Base(path), err))
			}
		}
	}
	return failed
}

// below reports whether a clean path lies below a folder.
func below(dir, path string) bool { return strings.HasPrefix(path, dir+"/") }

// fragments returns the files to apply, in the order of their names.
func fragments(root string) []string {
	found := map[string]string{}
	for _, dir := range fragmentDirs {
		entries, _ := os.ReadDir(root + dir) // a missing one is empty
		for _, e := range entries {
			name := e.Name()
			if _, ok := found[name]; !ok && strings.HasSuffix(name, ".conf") && len(found) < maxFragments {
				found[name] = filepath.Join(root+dir, name) // a link to /dev/null reads as empty
			}
		}
	}
	names := make([]string, 0, len(found))
	for n := range found {
		names = append(names, n)
	}
	slices.Sort(names)
	for i, n := range names {
		names[i] = found[n]
	}
	return names
}

// apply makes what the line says, unless something is there.
func (l line) apply(root string) error {
	uid, err := number(root+"/etc/passwd", l.user, accounts.UserID)
	if err != nil {
		return err
	}
	gid, err := number(root+"/etc/group", l.group, accounts.GroupID)
	if err != nil {
		return err
	}
	path := root + l.path
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	made, err := l.make(root, path)
	if err != nil || !made && l.kind != 'd' && l.kind != 'D' {
		return err
	}
	if l.kind == 'L' {
		return os.Lchown(path, uid, gid)
	}
	fi, err := os.Lstat(path)
	if err != nil || fi.Mode()&fs.ModeSymlink != 0 {
		return err // a link that somebody else made is left alone
	}
	return errors.Join(os.Lchown(path, uid, gid), unix.Chmod(path, l.mode)) // chown(2) clears setgid
}

// make makes the thing itself, and reports whether it was not there.
func (l line) make(root, path string) (made bool, err error) {
	switch l.kind {
	case 'd', 'D':
		err = os.Mkdir(path, 0o700)
	case 'f':
		err = write(path, os.O_EXCL, l.argument)
	case 'F':
		return true, write(path, os.O_TRUNC|unix.O_NOFOLLOW, l.argument)
	case 'p':
		err = unix.Mkfifo(path, 0o600)
	case 'L':
		if l.replace {
			if fi, serr := os.Lstat(path); serr == nil && !fi.IsDir() {
				_ = os.Remove(path)
			}
		}
		target := l.argument
		if target == "" { // tmpfiles.d(5), type L
			target = "/usr/share/factory" + l.path
		}
		if l.optional {
			if _, err := os.Stat(root + target); err != nil {
				return false, nil //nolint:nilerr // wanted only where the target exists
			}
		}
		err = os.Symlink(target, path)
	}
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	return err == nil, err
}

func write(path string, flags int, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|unix.O_NONBLOCK|flags, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
