package proc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"bawn.dev/bawn/internal/sys/fileid"
	"bawn.dev/bawn/internal/sys/pathwalk"
)

// Writable is a file or directory of the host that is not trusted, by its identity: a bind
// mount of it is the same, and so it is under another name.
type Writable struct {
	ID  fileid.ID
	Why string // "the guest of a sandbox can write to ..."
}

var distrusted struct {
	sync.Mutex
	list func() ([]Writable, error)
}

// Distrust says which files and directories of the host guests can write to, or could: Find
// passes over programs that are one of them, lie below one, or are reached through one. list
// is called for each look-up, by several goroutines at once, so that it may change; what it returns is
// only read. With an error from it nothing is found. A later call replaces an earlier one.
func Distrust(list func() ([]Writable, error)) {
	distrusted.Lock()
	defer distrusted.Unlock()
	distrusted.list = list
}

// judge decides whether a program may be run. It is made for one look-up.
type judge struct {
	guests []Writable
	here   *place // the current directory, which may be a project; nil where it cannot be one
	owners map[uint32]bool
}

// place is a directory by its identity.
type place struct {
	path string
	fs.FileInfo
}

// same reports whether two are one directory, or both are none.
func (p *place) same(other *place) bool {
	if p == nil || other == nil {
		return p == other
	}
	return os.SameFile(p.FileInfo, other.FileInfo)
}

func newJudge() (*judge, error) {
	root, err := os.Stat("/")
	if err != nil {
		return nil, err
	}
	j := &judge{owners: map[uint32]bool{
		0:                    true,
		uint32(os.Geteuid()): true,
		// Root's number in a user namespace that does not map it.
		root.Sys().(*syscall.Stat_t).Uid: true,
	}}
	if j.guests, err = writable(); err != nil {
		return nil, err
	}
	j.here = currentProject()
	return j, nil
}

// writable returns what guests can write to, or could (Distrust).
func writable() ([]Writable, error) {
	distrusted.Lock()
	list := distrusted.list
	distrusted.Unlock()
	if list == nil {
		return nil, nil
	}
	guests, err := list()
	if err != nil {
		return nil, fmt.Errorf("learn what guests can write to: %w", err)
	}
	return guests, nil
}

// currentProject returns the current directory, unless it has the system's programs below
// it and so is no project.
func currentProject() *place {
	dir, err := os.Getwd()
	if err != nil {
		return nil
	}
	for _, system := range systemFolders {
		if rel, err := filepath.Rel(dir, system); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
			return nil
		}
	}
	fi, err := os.Stat(dir)
	if err != nil {
		return nil
	}
	return &place{dir, fi}
}

// Trusted returns an error unless a file or directory, by its absolute path, is one that no guest or
// other user could have written or can replace (Distrust). It is for what the user's own settings name;
// unlike Find it takes what lies in the current directory.
func Trusted(path string) error {
	j, err := newSettingsJudge()
	if err != nil {
		return err
	}
	return j.settings(path)
}

// TrustedFolder is Trusted for a folder and for all that is in it, but for what lies in folders of it. Links in it are
// judged by what they lead to.
func TrustedFolder(path string) error {
	j, err := newSettingsJudge()
	if err != nil {
		return err
	}
	if err := j.settings(path); err != nil {
		return err
	}
	return j.contents(path)
}

// newSettingsJudge returns a judge of what the user's settings name, which may lie in the current directory.
func newSettingsJudge() (*judge, error) {
	j, err := newJudge()
	if err != nil {
		return nil, err
	}
	j.here = nil
	return j, nil
}

// settings judges an absolute path of the user's settings.
func (j *judge) settings(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%s is not an absolute path", path)
	}
	return j.trusted(path)
}

// ByGuests is Beyond for what guests can write to, or could (Distrust). Unlike Trusted it asks nothing of other users, and
// the path need not exist.
func ByGuests(path string) error {
	guests, err := writable()
	if err != nil {
		return err
	}
	return Beyond(path, guests)
}

// Beyond returns an error if an absolute path leads to, or through, one of the places that guests can write to, or if it
// cannot be followed. The path need not exist: then as much of it is judged as does.
func Beyond(path string, guests []Writable) error {
	_, err := pathwalk.Walk(path, func(at string, fi fs.FileInfo) error {
		if why := guest(guests, at, fi); why != "" {
			return fmt.Errorf("%s leads to %s: %s", path, at, why)
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// GuestLink is a symbolic link on the way along a path that a guest can have made, or could (Distrust).
type GuestLink struct {
	Link string // by a path without links
	Out  bool   // the path ends outside of the outermost place that guests can write to and the link is in
	Why  string // about that place, as of Writable
}

// Follow follows an absolute path to its end, which has no links in it, and returns the first link on the way that
// lies in, or below, a place that guests can write to; nil if there is none. The errors are those of pathwalk.Walk,
// and one if it is not known what guests can write to.
func Follow(path string) (end string, link *GuestLink, err error) {
	guests, err := writable()
	if err != nil {
		return "", nil, errors.New(err.Error()) // of another path: what is missing is not this one
	}
	w := linkWalk{guests: guests}
	if end, err = pathwalk.Walk(path, w.step); err != nil {
		return "", nil, err
	}
	if w.found != nil {
		w.found.Out = !beneath(w.place, end)
	}
	return end, w.found, nil
}

// linkWalk is the state of Follow.
type linkWalk struct {
	guests []Writable
	place  string // the outermost place of guests that the walk is in; fixed once a link was found
	why    string
	found  *GuestLink
}

func (w *linkWalk) step(at string, fi fs.FileInfo) error {
	if w.found != nil {
		return nil
	}
	if w.place != "" && !beneath(w.place, at) {
		w.place = "" // the walk has left it by ".."
	}
	switch {
	case w.place != "" && fi.Mode()&fs.ModeSymlink != 0:
		w.found = &GuestLink{Link: at, Why: w.why}
	case w.place == "" && fi.IsDir():
		if w.why = guest(w.guests, at, fi); w.why != "" {
			w.place = at
		}
	}
	return nil
}

// beneath reports whether a clean absolute path is a directory or lies below it.
func beneath(dir, path string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

// guest returns why a guest can write to a file or directory, or could; "" if it cannot.
func guest(guests []Writable, path string, fi fs.FileInfo) (why string) {
	for _, g := range guests {
		if g.ID.At(path, fi) {
			return g.Why
		}
	}
	return ""
}

// trusted walks to a program or directory by an absolute path and judges every directory,
// link and file on the way: who can change one of them decides what runs.
func (j *judge) trusted(path string) error {
	_, err := pathwalk.Walk(path, j.step)
	return err
}

// step judges one name on the way: what it leads to, and who else could change that.
func (j *judge) step(path string, fi fs.FileInfo) error {
	if why := guest(j.guests, path, fi); why != "" {
		return errors.New(why)
	}
	if j.here != nil && os.SameFile(fi, j.here.FileInfo) {
		return fmt.Errorf("%s is the current directory, which may be a sandbox's", j.here.path)
	}
	if owner := fi.Sys().(*syscall.Stat_t).Uid; !j.owners[owner] {
		return fmt.Errorf("%s belongs to user %d", path, owner)
	}
	link := fi.Mode()&fs.ModeSymlink != 0 // its mode means nothing
	if !link && writableByOthers(fi) && (!fi.IsDir() || fi.Mode()&fs.ModeSticky == 0) {
		return fmt.Errorf("other users can write to %s", path)
	}
	return nil
}

// staffGroup is Debian's group "staff", for the users who install programs in /usr/local
// (Debian Policy 9.1.2).
const staffGroup = 50

// writableByOthers reports whether users other than root and this one can write to a file
// or directory by its mode. A group counts as others, unless it is root's, Debian's staff or
// one of this user alone (which by convention has the user's number). In a directory with
// the sticky bit, they can replace only what is theirs.
func writableByOthers(fi fs.FileInfo) bool {
	if fi.Mode()&0o002 != 0 {
		return true
	}
	gid := fi.Sys().(*syscall.Stat_t).Gid
	return fi.Mode()&0o020 != 0 && gid != 0 && gid != staffGroup && gid != uint32(os.Getuid())
}
