package registry

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/gzip"

	"bawn.dev/bawn/internal/progress"
	"bawn.dev/bawn/internal/sys/bounded"
	"bawn.dev/bawn/internal/sys/text"
)

// Unpack fetches the archive of a package and unpacks the files that want reports into dir,
// without the archive's top folder. want gets their paths within the package; nil wants all.
// After an error dir may hold part of them, which must not be used: what is unpacked counts only
// once the whole archive was compared with its checksum.
func (c *Client) Unpack(ctx context.Context, p *Package, dir string, want func(name string) bool, r progress.Reporter) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("package %s@%s: %w", p.Name, p.Version, err)
		}
	}()
	sum, err := checksum(p.Dist.Integrity)
	if err != nil {
		return err
	}
	address, err := c.archive(p.Dist.Tarball)
	if err != nil {
		return err
	}
	body, size, err := c.get(ctx, address, "*/*")
	if err != nil {
		return err
	}
	defer body.Close()
	task := r.Start(fmt.Sprintf("Downloading %s %s", p.Name, p.Version), max(0, size), progress.Bytes)
	defer func() { task.Done(err) }()
	h := sha512.New()
	limited := &bounded.Reader{R: body, Left: maxArchive, Err: errors.New("the archive is larger than allowed")}
	all := io.TeeReader(limited, io.MultiWriter(h, advance{task}))
	if err := unpack(all, func() int64 { return maxArchive - limited.Left }, dir, want); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, all); err != nil { // what follows the last entry counts, too
		return err
	}
	if !bytes.Equal(h.Sum(nil), sum) {
		return errors.New("the archive does not have the checksum that the registry names: it was damaged or exchanged on the way; nothing of it is kept")
	}
	return nil
}

// checksum returns the SHA-512 of an integrity string (W3C Subresource Integrity, section 3.5).
func checksum(integrity string) ([]byte, error) {
	for word := range strings.FieldsSeq(integrity) {
		if rest, ok := strings.CutPrefix(word, "sha512-"); ok {
			if b, err := base64.StdEncoding.DecodeString(rest); err == nil && len(b) == sha512.Size {
				return b, nil
			}
		}
	}
	return nil, errors.New("the registry names no SHA-512 of the archive, so it cannot be checked")
}

// archive returns where an archive is fetched. A registry that mirrors another names the other's
// host; as npm does (replace-registry-host), the archive is fetched from the registry that was
// asked, unless it lies elsewhere on purpose.
func (c *Client) archive(named string) (string, error) {
	u, err := url.Parse(named)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return "", fmt.Errorf("the registry names no archive, but %q", text.Short(named, 100))
	}
	if u.Host == DefaultHost() {
		u.Scheme, u.Host, u.Path = c.base.Scheme, c.base.Host, c.base.Path+strings.TrimPrefix(u.Path, "/")
	}
	if c.base.Scheme == "https" && u.Scheme != "https" {
		return "", fmt.Errorf("the archive would come without TLS, from %s", text.Short(named, 100))
	}
	return u.String(), nil
}

// advance reports what is written to it as progress.
type advance struct{ task progress.Task }

func (a advance) Write(b []byte) (int, error) {
	a.task.Add(int64(len(b)))
	return len(b), nil
}

// readSize is how much of an archive is read at once, in bytes: each read is reported as progress.
const readSize = 1 << 20

// inflated is an unpacked archive that fails once it is much larger than what was read of the
// archive.
type inflated struct {
	bounded.Reader
	packed func() int64 // bytes of the archive that were read
}

func (i *inflated) Read(p []byte) (int, error) {
	if maxUnpacked-i.Left > slackBytes+maxRatio*i.packed() {
		i.Left = 0
	}
	return i.Reader.Read(p)
}

// unpack unpacks a gzip-compressed tar archive of npm. Packages hold files only, so links and
// devices are refused. packed returns how many bytes of the archive were read so far.
func unpack(archive io.Reader, packed func() int64, dir string, want func(string) bool) error {
	root, err := os.OpenRoot(dir) // no entry leads out of it
	if err != nil {
		return err
	}
	defer root.Close()
	z, err := gzip.NewReader(bufio.NewReaderSize(archive, readSize))
	if err != nil {
		return fmt.Errorf("the archive is not in gzip format: %w", err)
	}
	t := tar.NewReader(&inflated{bounded.Reader{R: z, Left: maxUnpacked, Err: errors.New("the unpacked archive is larger than allowed")}, packed})
	u := &unpacking{root: root, want: want, made: map[string]bool{".": true}}
	for {
		e, err := t.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read the archive: %w", err)
		}
		if err := u.count(); err != nil {
			return err
		}
		if err := u.entry(t, e); err != nil {
			return err
		}
	}
}

// unpacking is the state of unpacking an archive.
type unpacking struct {
	root    *os.Root
	want    func(name string) bool // nil: all
	made    map[string]bool        // directories
	entries int                    // with the directories that they lie in
}

// count counts an entry, or a directory that is made.
func (u *unpacking) count() error {
	if u.entries++; u.entries > maxEntries {
		return fmt.Errorf("the archive has more than %d entries", maxEntries)
	}
	return nil
}

// mkdir makes a directory and those that it lies in.
func (u *unpacking) mkdir(dir string) error {
	if u.made[dir] {
		return nil
	}
	if err := u.mkdir(path.Dir(dir)); err != nil {
		return err
	}
	if err := u.count(); err != nil {
		return err
	}
	u.made[dir] = true
	if err := u.root.Mkdir(dir, 0o700); !errors.Is(err, fs.ErrExist) { // if that is a file, making the entry in it fails
		return err
	}
	return nil
}

// entry unpacks one entry.
func (u *unpacking) entry(t *tar.Reader, e *tar.Header) error {
	if e.Typeflag == tar.TypeDir || e.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	clean := path.Clean(e.Name)
	_, name, ok := strings.Cut(clean, "/") // below "package", or what the packer called it
	if !ok || !filepath.IsLocal(clean) || len(clean) > maxPath || strings.Contains(name, "\x00") {
		return fmt.Errorf("the archive has an entry with the name %q", text.Short(e.Name, 100))
	}
	if e.Typeflag != tar.TypeReg {
		return fmt.Errorf("the archive has an entry that is no file: %q", text.Short(e.Name, 100))
	}
	if strings.Count(name, "/") > maxDepth {
		return fmt.Errorf("the archive has an entry that lies deeper than %d directories: %q", maxDepth, text.Short(e.Name, 100))
	}
	if u.want != nil && !u.want(name) {
		return nil
	}
	if err := u.mkdir(path.Dir(name)); err != nil {
		return err
	}
	f, err := u.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600|e.FileInfo().Mode().Perm()&0o100)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, t)
	return errors.Join(err, f.Close())
}
