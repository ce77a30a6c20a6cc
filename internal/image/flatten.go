package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"bawn.dev/bawn/internal/ext4"
	"bawn.dev/bawn/internal/progress"
	"bawn.dev/bawn/internal/sys/bounded"
)

// flatten makes an ext4 file of the tar stream that clean writes.
func (s *Store) flatten(out string, clean func(io.Writer) error) error {
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(clean(pw)) }()
	err := ext4.FromTar(pr, out, s.limits.Bytes)
	pr.CloseWithError(err) // ends the writer, whatever it does
	return err
}

// clean copies a tar stream and checks it against the limits. It leaves out devices, and
// writes each path in one form, below the root. Hard links are written last: the file that
// a link names may come after it.
func (s *Store) clean(in io.Reader, out io.Writer) error {
	c := newCleaner(s.limits, out)
	r := tar.NewReader(in)
	for {
		h, ok, err := c.next(r)
		if errors.Is(err, io.EOF) {
			return c.end()
		}
		if err == nil && ok {
			err = c.entry(h, r)
		}
		if err != nil {
			return err
		}
	}
}

// cleanLayers is clean for the layers of an OCI image, as one file tree (OCI image
// specification, layer.md): the highest layer decides about a path, and may remove what
// lower layers have. Layers are read from the top one down, so that what is hidden is
// never written. When ctx ends, so does the reading.
func (s *Store) cleanLayers(ctx context.Context, img v1.Image, task progress.Task, out io.Writer) error {
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	if len(layers) > s.limits.Layers {
		return beyond(s.limits.Layers, "layers")
	}
	c := newCleaner(s.limits, out)
	for i := len(layers) - 1; i >= 0; i-- {
		if err := c.layer(ctx, layers[i], task); err != nil {
			return err
		}
	}
	return c.end()
}

// layer copies what higher layers have left of one layer.
func (c *cleaner) layer(ctx context.Context, l v1.Layer, task progress.Task) error {
	stream, err := l.Uncompressed()
	if err != nil {
		return fmt.Errorf("a layer: %w", err)
	}
	defer stream.Close()
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	defer stop()
	limited := &bounded.Reader{R: &counted{stream, task}, Left: c.used.Bytes, Err: beyond(c.used.Bytes, "bytes in a layer")}
	r := tar.NewReader(limited)
	removed := map[string]state{} // by this layer, from lower ones
	for {
		h, ok, err := c.next(r)
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && ok {
			err = c.layerEntry(h, r, removed)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
	}
	for p, s := range removed {
		c.paths[p] |= s
	}
	// The layer's digest is verified at its end, which the tar reader may not have reached.
	if _, err := io.Copy(io.Discard, limited); err != nil {
		return fmt.Errorf("a layer: %w", err)
	}
	return ctx.Err()
}

// Names with which a layer removes what lower ones have.
const (
	removesFile     = ".wh."
	removesContents = ".wh..wh..opq"
)

// layerEntry copies one entry of a layer, unless a higher one hides it, or notes what it
// removes.
func (c *cleaner) layerEntry(h *tar.Header, r io.Reader, removed map[string]state) error {
	dir, base := path.Split(h.Name)
	dir = strings.TrimSuffix(dir, "/")
	if base == removesContents {
		removed[dir] |= emptied
		return nil
	}
	if gone, ok := strings.CutPrefix(base, removesFile); ok {
		removed[path.Join(dir, gone)] |= decided | closed
		return nil
	}
	if c.paths[h.Name]&decided != 0 || c.hidden(h.Name) {
		return nil
	}
	c.paths[h.Name] |= decided
	if h.Typeflag != tar.TypeDir {
		c.paths[h.Name] |= closed
	}
	return c.entry(h, r)
}

// state is what is known of a path.
type state uint8

const (
	written state = 1 << iota // it is in the stream
	named                     // a directory that so far only the path of another has named
	decided                   // this layer or a higher one has it, or removed it
	closed                    // no lower layer has anything below it
	emptied                   // likewise, but it may be a directory of a lower layer
)

// cleaner is the state of one run of clean or cleanLayers.
type cleaner struct {
	used  account
	w     *tar.Writer
	paths map[string]state
	links []link
}

// link is a hard link, to be written last.
type link struct{ name, target string }

func newCleaner(l Limits, out io.Writer) *cleaner {
	return &cleaner{used: account{Limits: l}, w: tar.NewWriter(out), paths: map[string]state{}}
}

// next reads the next header, brings its path into the form of inside, and counts it. ok is
// false for an entry without such a path.
func (c *cleaner) next(r *tar.Reader) (h *tar.Header, ok bool, err error) {
	if h, err = r.Next(); err != nil {
		return nil, false, err
	}
	if h.Typeflag == tar.TypeLink {
		h.Linkname, ok = inside(h.Linkname)
		if !ok {
			return h, false, c.used.path(0)
		}
	}
	if h.Name, ok = inside(h.Name); !ok {
		return h, false, c.used.path(0)
	}
	return h, true, c.used.entry(h)
}

// hidden reports whether a higher layer has removed or replaced a directory above a path.
func (c *cleaner) hidden(p string) bool {
	for i := strings.LastIndexByte(p, '/'); i >= 0; i = strings.LastIndexByte(p[:i], '/') {
		if c.paths[p[:i]]&(closed|emptied) != 0 {
			return true
		}
	}
	return c.paths[""]&emptied != 0
}

// parents counts the directories above a path that nothing has named before: the file
// system has them.
func (c *cleaner) parents(p string) error {
	for i := strings.LastIndexByte(p, '/'); i >= 0; i = strings.LastIndexByte(p[:i], '/') {
		up := p[:i]
		if c.paths[up]&(written|named) != 0 {
			return nil
		}
		if err := c.used.path(len(up)); err != nil {
			return err
		}
		c.paths[up] |= named
	}
	return nil
}

// entry copies one entry, puts it aside, or leaves it out.
func (c *cleaner) entry(h *tar.Header, r io.Reader) error {
	if err := c.parents(h.Name); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeFifo:
		c.paths[h.Name] |= written
	case tar.TypeLink:
		c.links = append(c.links, link{h.Name, h.Linkname})
		return nil
	default:
		return nil // devices: the guest's kernel makes its own
	}
	h.Format = tar.FormatPAX // for names of any length
	if err := c.w.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.Copy(c.w, r) // next has bounded the size
	return err
}

// end writes the hard links and ends the stream.
func (c *cleaner) end() error {
	for _, l := range c.links {
		if c.paths[l.target]&written == 0 {
			continue // to a file that a higher layer removed
		}
		h := tar.Header{Typeflag: tar.TypeLink, Name: l.name, Linkname: l.target, Format: tar.FormatPAX}
		if err := c.w.WriteHeader(&h); err != nil {
			return err
		}
	}
	return c.w.Close()
}

// inside returns the path in one form, relative to the root, and false for the root
// itself and for what is no path.
func inside(path string) (string, bool) {
	clean := strings.TrimPrefix(filepath.Clean("/"+path), "/")
	return clean, clean != "" && !strings.ContainsRune(clean, 0)
}
