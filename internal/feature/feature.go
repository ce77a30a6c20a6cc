// Package feature reads the contents of a feature (package devcontainer): the files of an archive that came
// from a registry, or of a folder of a project. Both are hostile: the author of a feature wrote the one,
// and the guest may write to the other. What is read is regular files and directories within limits, kept
// in memory and in one form, so that the same contents have the same digest. Nothing of them is run, and
// nothing is written on the host but that form.
package feature

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sys/bounded"
	"bawn.dev/bawn/internal/sys/regular"
)

// Limits of a feature. Those that people publish have some dozen files and kilobytes.
const (
	maxEntries = 4096     // files and directories
	maxBytes   = 32 << 20 // of all files
	maxPath    = 512      // of a path, in bytes
	maxDepth   = 32       // directories in one another
)

// MaxArchive bounds an archive of a feature as it is fetched, in bytes.
const MaxArchive = 32 << 20

// Contents are the files of a feature.
type Contents struct {
	files map[string]file // by their paths, in the form of path.Clean
	bytes int64
}

// file is a regular file, or a directory.
type file struct {
	dir  bool
	exec bool
	data []byte
}

func newContents() *Contents { return &Contents{files: map[string]file{}} }

// add adds a file. One of the same path is an error: readers of archives disagree on which one counts.
func (c *Contents) add(name string, f file) error {
	switch {
	case len(c.files) == maxEntries:
		return fmt.Errorf("it has more than %d files", maxEntries)
	case len(name) > maxPath || strings.Count(name, "/") >= maxDepth:
		return fmt.Errorf("a path of more than %d bytes or %d directories", maxPath, maxDepth)
	}
	if have, again := c.files[name]; again && (!have.dir || !f.dir) {
		return fmt.Errorf("%s is there twice", strconv.Quote(name))
	}
	c.files[name] = f
	return nil
}

// left returns how many bytes further files may have.
func (c *Contents) left() int64 { return maxBytes - c.bytes }

// keep adds a regular file with its data.
func (c *Contents) keep(name string, exec bool, data []byte) error {
	c.bytes += int64(len(data))
	return c.add(name, file{exec: exec, data: data})
}

// File returns the data of a regular file.
func (c *Contents) File(name string) ([]byte, bool) {
	f, ok := c.files[name]
	return f.data, ok && !f.dir
}

// Names returns the paths of all regular files, sorted.
func (c *Contents) Names() (list []string) {
	for _, name := range slices.Sorted(maps.Keys(c.files)) {
		if !c.files[name].dir {
			list = append(list, name)
		}
	}
	return list
}

// Unpack reads an archive in the format of tar, which may be compressed by gzip.
func Unpack(archive []byte) (*Contents, error) {
	var in io.Reader = bytes.NewReader(archive)
	if bytes.HasPrefix(archive, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("its archive: %w", err)
		}
		in = z
	}
	// Headers and padding come on top of the files. PAX records are within this limit, too.
	r := tar.NewReader(&bounded.Reader{R: in, Left: maxBytes + 2*MaxArchive, Err: errors.New("it is larger than bawn takes")})
	c := newContents()
	for {
		h, err := r.Next()
		end := errors.Is(err, io.EOF)
		switch {
		case end:
			err = c.check()
		case err == nil:
			err = c.entry(h, r)
		}
		if err != nil {
			return nil, fmt.Errorf("its archive: %w", err)
		}
		if end {
			return c, nil
		}
	}
}

// entry adds one entry of an archive.
func (c *Contents) entry(h *tar.Header, r io.Reader) error {
	name := path.Clean(h.Name)
	switch {
	case h.Typeflag == tar.TypeXGlobalHeader:
		return nil
	case !filepath.IsLocal(h.Name) && name != "." || strings.ContainsRune(name, 0):
		return fmt.Errorf("%s does not lie in it", strconv.Quote(h.Name))
	case name == ".":
		return nil
	case h.Typeflag == tar.TypeDir:
		return c.add(name, file{dir: true})
	case h.Typeflag != tar.TypeReg:
		return fmt.Errorf("%s is neither a regular file nor a directory", strconv.Quote(name))
	case h.Size > c.left():
		return fmt.Errorf("its files have more than %d bytes", maxBytes)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	return c.keep(name, h.Mode&0o111 != 0, data)
}

// check returns an error if a file lies in what is no directory. Directories that no entry names are
// added.
func (c *Contents) check() error {
	for _, name := range slices.Sorted(maps.Keys(c.files)) {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if f, ok := c.files[dir]; ok && !f.dir {
				return fmt.Errorf("%s lies in a file", strconv.Quote(name))
			} else if ok {
				continue
			}
			if err := c.add(dir, file{dir: true}); err != nil {
				return err
			}
		}
	}
	return nil
}

// Read reads the folder dir below a root. It follows no symbolic link in it or on the way to it, also none that a
// guest puts there meanwhile: it may lead to what is hidden from the guest. It waits for no pipe.
func Read(root *os.Root, dir string) (*Contents, error) {
	c := newContents()
	if err := c.folder(root, filepath.Clean(dir), "."); err != nil {
		return nil, err
	}
	return c, nil
}

// linkError says of the error of an open where the path led.
func linkError(name string, err error) error {
	switch {
	case errors.Is(err, unix.ELOOP):
		return fmt.Errorf("%s is a symbolic link, or lies behind one", strconv.Quote(name))
	case errors.Is(err, unix.EXDEV):
		return fmt.Errorf("%s does not lie in the project", strconv.Quote(name))
	}
	return err
}

// folder adds what is in one directory, inside being its path in the feature.
func (c *Contents) folder(root *os.Root, dir, inside string) error {
	at := filepath.Join(dir, inside)
	f, err := regular.OpenBeneath(root, at, unix.O_DIRECTORY)
	if err != nil {
		return linkError(at, err)
	}
	defer f.Close()
	list, err := f.ReadDir(maxEntries + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if len(list) > maxEntries {
		return fmt.Errorf("it has more than %d files", maxEntries)
	}
	for _, e := range list {
		if err := c.found(root, dir, path.Join(inside, e.Name()), e); err != nil {
			return err
		}
	}
	return nil
}

// found adds one file or directory of a folder.
func (c *Contents) found(root *os.Root, dir, name string, e fs.DirEntry) error {
	switch {
	case e.IsDir():
		if err := c.add(name, file{dir: true}); err != nil {
			return err
		}
		return c.folder(root, dir, name)
	case !e.Type().IsRegular():
		return fmt.Errorf("%s is neither a regular file nor a directory", strconv.Quote(name))
	}
	at := filepath.Join(dir, name)
	f, err := regular.Check(regular.OpenBeneath(root, at, 0))
	if err != nil {
		return linkError(at, err)
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	data, err := regular.ReadAll(f, c.left())
	if errors.Is(err, regular.ErrTooLarge) {
		return fmt.Errorf("its files have more than %d bytes", maxBytes)
	}
	if err != nil {
		return err
	}
	return c.keep(name, fi.Mode()&0o111 != 0, data)
}

// Tar returns the contents as an archive, in which files and directories belong to root. It is the same for
// the same contents.
func (c *Contents) Tar() []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(c.files)) {
		f := c.files[name]
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(f.data)), Mode: 0o644, Format: tar.FormatPAX}
		switch {
		case f.dir:
			h.Typeflag, h.Name, h.Mode = tar.TypeDir, name+"/", 0o755
		case f.exec:
			h.Mode = 0o755
		}
		// Neither fails: the names are within limits, and the buffer takes all.
		_ = w.WriteHeader(h)
		_, _ = w.Write(f.data)
	}
	_ = w.Close()
	return b.Bytes()
}

// Digest returns the digest of the contents.
func (c *Contents) Digest() string {
	sum := sha256.Sum256(c.Tar())
	return "sha256:" + hex.EncodeToString(sum[:])
}
