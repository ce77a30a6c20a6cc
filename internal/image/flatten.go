package image

import (
	"archive/tar"
	"errors"
	"io"
	"path/filepath"
	"strings"

	"bawn.dev/bawn/internal/ext4"
)

// flatten makes an ext4 file of the layers' tar stream.
func (s *Store) flatten(layers io.Reader, out string) error {
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(s.clean(layers, pw)) }()
	err := ext4.FromTar(pr, out, s.limits.Bytes)
	pr.CloseWithError(err) // ends the writer, whatever it does
	return err
}

// errTooLarge means that an image is beyond Limits.
var errTooLarge = errors.New("the image is larger than bawn allows")

// clean copies a tar stream and checks it against the limits. It leaves out devices, and
// writes each path in one form, below the root. Hard links are written last: layers are
// read from the top one down, so the file that a link names may come after it.
func (s *Store) clean(in io.Reader, out io.Writer) error {
	c := cleaner{limits: s.limits, r: tar.NewReader(in), w: tar.NewWriter(out), seen: map[string]bool{}}
	for {
		h, err := c.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := c.entry(h); err != nil {
			return err
		}
	}
	for _, h := range c.links {
		if !c.seen[h.Linkname] {
			continue // to a file that a higher layer removed
		}
		if err := c.w.WriteHeader(h); err != nil {
			return err
		}
	}
	return c.w.Close()
}

// cleaner is the state of one run of clean.
type cleaner struct {
	limits  Limits
	r       *tar.Reader
	w       *tar.Writer
	entries int             // read
	bytes   int64           // read
	seen    map[string]bool // files that were written
	links   []*tar.Header   // hard links, to be written last
}

// next reads the next header, within the limits.
func (c *cleaner) next() (*tar.Header, error) {
	h, err := c.r.Next()
	if err != nil {
		return nil, err
	}
	c.entries++
	c.bytes += h.Size
	if c.entries > c.limits.Entries || c.bytes > c.limits.Bytes || h.Size < 0 {
		return nil, errTooLarge
	}
	return h, nil
}

// entry copies one entry, puts it aside, or leaves it out.
func (c *cleaner) entry(h *tar.Header) error {
	var ok bool
	if h.Name, ok = inside(h.Name); !ok {
		return nil
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeFifo:
		c.seen[h.Name] = true
	case tar.TypeLink:
		if h.Linkname, ok = inside(h.Linkname); ok {
			c.links = append(c.links, h)
		}
		return nil
	default:
		return nil // devices: the guest's kernel makes its own
	}
	if err := c.w.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.Copy(c.w, c.r) // next has bounded the size
	return err
}

// inside returns the path in one form, relative to the root, and false for the root
// itself and for what is no path.
func inside(path string) (string, bool) {
	clean := strings.TrimPrefix(filepath.Clean("/"+path), "/")
	return clean, clean != "" && !strings.ContainsRune(clean, 0)
}
