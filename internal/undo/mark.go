package undo

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// # Theory of operation: files with a temporary name
//
// Undo and accept make a file under a temporary name beside the path that it is for. Before that
// they write a mark into the store: which path, and which temporary name. After a kill, Recover
// reads the mark and removes the file. A file of an accept may hold what the host had at the path
// (after the exchange, and before it was compared): if that is not what the person has seen, it is
// put back. The same holds for one of an undo, which says the slot of what it replaces or removes.
//
// The mark is replaced in place, with a checksum. If it is torn, the process was killed while it wrote
// it: the file that it names was not made yet, and the file of the mark before it was in its place
// already. Marks are not synced: they outlive the process, not the host.

// mark says which file with a temporary name may be in a project.
type mark struct {
	Root string `json:"root"` // the project, absolute
	Path []byte `json:"path"` // that the file is for
	Temp string `json:"temp"` // its name, in the directory of Path

	// Of an accept: what the person has seen at Path, and the inode of the finished
	// replacement; 0 as long as it is being written, or if Path is to be removed.
	Seen *Seen  `json:"seen,omitempty"`
	Ino  uint64 `json:"ino,omitempty"`

	Was []byte `json:"was,omitempty"` // of an undo: the slot of what lay at Path; Ino is as for an accept
}

// marks writes the marks of a store.
type marks struct{ f *os.File }

func openMarks(store int) (*marks, error) {
	f, err := openFile(store, markName, unix.O_RDWR|unix.O_CREAT)
	if err != nil {
		return nil, err
	}
	return &marks{f}, nil
}

// markFile bounds the file that is compared with what the person has seen, in bytes. A larger one
// counts as the host's.
const markFile = 16 << 20

// set replaces the mark.
func (m *marks) set(v mark) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = m.f.WriteAt(fmt.Appendf(nil, "%08x %s\n", crc32.ChecksumIEEE(b), b), 0)
	return err
}

// close says that no file with a temporary name is left.
func (m *marks) close() error {
	return errors.Join(m.f.Truncate(0), m.f.Close())
}

// read returns the mark, or nil.
func (m *marks) read() *mark {
	line, err := bufio.NewReader(io.NewSectionReader(m.f, 0, maxLine)).ReadString('\n')
	sum, text, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	var v mark
	if err != nil || !ok || sum != fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(text))) || json.Unmarshal([]byte(text), &v) != nil {
		return nil
	}
	if checkPath(string(v.Path)) != nil || !strings.HasPrefix(v.Temp, TempPrefix) || strings.Contains(v.Temp, "/") {
		return nil
	}
	return &v
}

// Recover removes the file with a temporary name that an undo or an accept left when it was
// killed. roots are the directories that it may lie in. The error names a file that a person has to
// look at; it is returned once.
func (s *Store) Recover(roots ...string) error {
	m, err := openMarks(s.fd)
	if err != nil {
		return err
	}
	v := m.read()
	if v != nil && slices.Contains(roots, v.Root) {
		err = v.recover()
	}
	return errors.Join(err, m.close())
}

func (v *mark) recover() error {
	root, err := os.Open(v.Root)
	if err != nil {
		return err
	}
	defer root.Close()
	dir, name, err := parent(root, string(v.Path))
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	var st unix.Stat_t
	if err := unix.Fstatat(dir, v.Temp, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if gone(err) {
			return nil
		}
		return err
	}
	if v.isHosts(dir, &st) {
		return v.putBack(dir, name)
	}
	return unix.Unlinkat(dir, v.Temp, 0)
}

// isHosts reports whether the file with the temporary name is the host's, and not the one that
// the person has seen and agreed to replace.
func (v *mark) isHosts(dir int, st *unix.Stat_t) bool {
	if v.Was == nil && (v.Seen == nil || v.Seen.Kind == Absent) || v.Ino == st.Ino {
		return false
	}
	if v.Ino == 0 && !v.taken() {
		return false // the replacement was being written
	}
	if v.Was != nil {
		was, ok := parseSlot(v.Was)
		now, err := lookAt(dir, v.Temp)
		return err != nil || !ok || !now.same(was)
	}
	was, _, err := lookIn(dir, v.Temp, markFile)
	return err != nil || was != *v.Seen
}

// taken reports whether the path was to be removed.
func (v *mark) taken() bool { return strings.HasPrefix(v.Temp, takenPrefix) }

// putBack gives a path what lies under the temporary name. If that cannot be done, the error names the file.
func (v *mark) putBack(dir int, name string) error {
	err := v.exchangeBack(dir, name)
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s holds what was at %s: move it back or remove it: %w", path.Join(v.Root, path.Dir(string(v.Path)), v.setAside(dir)), v.Path, err)
}

func (v *mark) exchangeBack(dir int, name string) error {
	if v.taken() {
		return unix.Renameat2(dir, v.Temp, dir, name, unix.RENAME_NOREPLACE)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || st.Ino != v.Ino {
		return errors.Join(err, errors.New("something else is there now"))
	}
	if err := unix.Renameat2(dir, v.Temp, dir, name, unix.RENAME_EXCHANGE); err != nil {
		return err
	}
	return unix.Unlinkat(dir, v.Temp, 0)
}
