package guest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/guest/accounts"
	"bawn.dev/bawn/internal/wire"
)

// Theory of operation. A local directory is a directory of a share whose files are on the
// sandbox's own disk: a folder of the disk is bind-mounted over it. The directory is made in the
// share if it is missing, and stays empty on the host.
//
// The host may remove or rename that directory while the guest runs (git clean, a build). The
// guest's kernel then takes the mount away as soon as it finds out, and programs would go on in the
// share. So the agent waits for changes of the mounts, and puts the directory and the mount back.
// What is on the disk is not touched by any of this.

// localFolder is the folder of the sandbox's disk that has the local directories, by localName.
const localFolder = "/local"

// localDirs are the local directories of the sandbox. Its methods may be called by several
// goroutines at once.
type localDirs struct {
	mu      sync.Mutex
	disk    *os.File // root of the sandbox's disk; nil before setup
	logins  *accounts.Logins
	list    []wire.LocalDirs
	watched bool
}

// setup sets where the directories are kept, and the user that owns them.
func (l *localDirs) setup(disk *os.File, logins *accounts.Logins) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.disk, l.logins = disk, logins
}

// set mounts the local directories of a share in place of those that it had, and keeps them mounted
// from then on.
func (l *localDirs) set(r wire.LocalDirs) (any, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.disk == nil {
		return nil, errors.New("the guest is not set up")
	}
	for i, had := range l.list {
		if had.Share == r.Share {
			l.list = slices.Delete(l.list, i, i+1)
			l.unmountOthers(had, r.Dirs)
			break
		}
	}
	l.list = append(l.list, r)
	if err := l.mountAll(); err != nil {
		return nil, err
	}
	if !l.watched {
		l.watched = true
		go l.watch()
	}
	return nil, nil
}

// unmountOthers unmounts the directories that are not among those to keep, also while they are in
// use. The caller holds the mutex.
func (l *localDirs) unmountOthers(r wire.LocalDirs, keep []string) {
	for _, dir := range r.Dirs {
		path := filepath.Join(r.Share, dir)
		var at, own unix.Stat_t
		if slices.Contains(keep, dir) || unix.Lstat(path, &at) != nil || unix.Stat(l.own(r.Share, dir), &own) != nil || at.Dev != own.Dev || at.Ino != own.Ino {
			continue
		}
		if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			log.Printf("local directory %s: %v", path, err)
		}
	}
}

// own returns the path of a local directory's folder on the sandbox's disk.
func (l *localDirs) own(share, dir string) string {
	return fmt.Sprintf("/proc/self/fd/%d%s/%s", l.disk.Fd(), localFolder, localName(share, dir))
}

// mountAll mounts what is not mounted. The caller holds the mutex.
func (l *localDirs) mountAll() (err error) {
	for _, r := range l.list {
		for _, dir := range r.Dirs {
			if derr := l.mount(r.Share, dir); derr != nil {
				err = errors.Join(err, fmt.Errorf("local directory %s: %w", filepath.Join(r.Share, dir), derr))
			}
		}
	}
	return err
}

// localName is the name that a directory of a share has in localFolder.
func localName(share, dir string) string {
	sum := sha256.Sum256([]byte(filepath.Join(share, dir)))
	return hex.EncodeToString(sum[:16])
}

// mount mounts one directory, unless it is mounted.
func (l *localDirs) mount(share, dir string) error {
	user := l.logins.User()
	own := l.own(share, dir)
	if !exists(own) {
		if err := makeOwned(own, int(user.UID), int(user.GID)); err != nil {
			return err
		}
	}
	at, err := openDirIn(share, dir, int(user.UID), int(user.GID))
	if err != nil {
		return err
	}
	defer unix.Close(at)
	var have, want unix.Stat_t
	if err := errors.Join(unix.Fstat(at, &have), unix.Stat(own, &want)); err != nil {
		return err
	}
	if have.Dev == want.Dev && have.Ino == want.Ino {
		return nil
	}
	return unix.Mount(own, fmt.Sprintf("/proc/self/fd/%d", at), "", unix.MS_BIND, "")
}

// makeOwned makes a folder of localFolder. It gets its name last, so that one that exists
// has its owner.
func makeOwned(path string, uid, gid int) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	draft := path + ".new"
	if err := os.Mkdir(draft, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := os.Lchown(draft, uid, gid); err != nil {
		return err
	}
	return os.Rename(draft, path)
}

// openDirIn opens a directory below a share's root, without following links, and makes what is
// missing. The caller closes it.
func openDirIn(share, dir string, uid, gid int) (fd int, err error) {
	at, err := unix.Open(share, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	for _, name := range strings.Split(filepath.Clean(dir), "/") {
		next, err := openOrMake(at, name, uid, gid)
		unix.Close(at)
		if err != nil {
			return -1, err
		}
		at = next
	}
	return at, nil
}

func openOrMake(at int, name string, uid, gid int) (int, error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(at, name, flags, 0)
	if errors.Is(err, unix.ENOENT) {
		err = unix.Mkdirat(at, name, 0o755)
		if err == nil {
			err = unix.Fchownat(at, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
		}
		if err == nil || errors.Is(err, unix.EEXIST) {
			fd, err = unix.Openat(at, name, flags, 0)
		}
	}
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return -1, fmt.Errorf("%s is not a directory, or is a link", name)
	}
	return fd, err
}

// remountPause is how long watch waits between two looks at the mounts: containers change them
// often.
const remountPause = 100 * time.Millisecond

// retryPause is how long watch waits after a failure. What it failed at may change without a change
// of the mounts: a file of the host may stand where the directory was, until the host removes it.
const retryPause = time.Second

// watch mounts the directories again whenever one of them is not mounted any more.
func (l *localDirs) watch() {
	// os.Open would have the Go runtime poll the file too, and the kernel reports a change of the
	// mounts to one poll of an open file only (mounts_poll in Linux's fs/proc_namespace.c).
	mounts, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		log.Printf("local directories are not watched: %v", err)
		return
	}
	defer unix.Close(mounts)
	said := ""
	for { // it looks first: a mount may have gone before the file was opened
		l.mu.Lock()
		err := l.mountAll()
		l.mu.Unlock()
		next := -1 // milliseconds; -1 is without a limit
		if err != nil {
			next = int(retryPause.Milliseconds())
			if err.Error() != said {
				said = err.Error()
				log.Print(err)
			}
		}
		time.Sleep(remountPause)
		// A change of the mounts since the last poll is POLLPRI (proc_pid_mounts(5)).
		_, err = unix.Poll([]unix.PollFd{{Fd: int32(mounts), Events: unix.POLLPRI}}, next)
		if err != nil && !errors.Is(err, unix.EINTR) {
			log.Printf("local directories are not watched: %v", err)
			return
		}
	}
}
