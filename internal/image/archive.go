package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"bawn.dev/bawn/internal/progress"
	"bawn.dev/bawn/internal/sys/regular"
	"bawn.dev/bawn/internal/sys/reserve"
	"bawn.dev/bawn/internal/sys/size"
)

const (
	// maxArchiveEntries bounds the entries of an archive of one image: a layer is one or two,
	// beside a few files that describe them.
	maxArchiveEntries = 4096
	// manifestFile lists the images of an archive that docker save wrote.
	manifestFile = "manifest.json"
	// maxArchiveLinks bounds the links of an archive that lead to one of its files.
	maxArchiveLinks = 16
	// maxLayerWindow bounds what the decoder of a layer in zstd keeps, in bytes: zstd --long takes as much.
	maxLayerWindow = 128 << 20
)

// SaveArchive makes an image of an archive in the format of docker save, which holds one image.
// From then on the reference ref, of TagRef, stands for it. The archive may come from a hostile
// guest: it is bounded by Limits and by limit, in bytes. When it ends with an error, nothing is
// kept.
func (s *Store) SaveArchive(ctx context.Context, ref string, archive io.Reader, limit int64, r progress.Reporter) (*Image, error) {
	return s.locked(ctx, ref, r, nil, func(ctx context.Context, dir, ref string, r progress.Reporter) (*meta, error) {
		file := filepath.Join(dir, "archive.tar")
		if err := s.receive(file, archive, limit, r); err != nil {
			return nil, fmt.Errorf("image %s: %w", ref, err)
		}
		m, err := s.unpackArchive(ctx, dir, ref, file, r)
		return m, errors.Join(err, os.Remove(file)) // it must not become a part of the entry
	})
}

// receive writes an archive of at most limit bytes to a file. It leaves the reserve of the
// host's disk free.
func (s *Store) receive(file string, archive io.Reader, limit int64, r progress.Reporter) (err error) {
	task := r.Start("Fetching the image from the machine", 0, progress.Bytes)
	defer func() { task.Done(err) }()
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var disk reserve.Room
	disk.Settle()
	st, err := disk.Left(int(f.Fd()), uint64(max(limit, 0)))
	if err != nil {
		return err
	}
	most := min(limit, int64(min(reserve.Bytes(&st), math.MaxInt64-1)))
	n, err := io.Copy(f, &counted{io.LimitReader(archive, most+1), task})
	switch {
	case err != nil || n <= most:
		return err
	case most < limit:
		return fmt.Errorf("its archive has more than %s, which is what the host's disk has left: %w", size.Format(most), syscall.ENOSPC)
	}
	return beyond(limit, "bytes in its archive")
}

// unpackArchive flattens the image of an archive in dir.
func (s *Store) unpackArchive(ctx context.Context, dir, ref, file string, r progress.Reporter) (*meta, error) {
	img, err := s.fromArchive(file)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	return s.unpackOf(ctx, dir, ref, img, r)
}

// unpackOf flattens the image of an archive in dir. The digest of the configuration names the image, as it does for Docker.
// That of the manifest would take a compression of all layers.
func (s *Store) unpackOf(ctx context.Context, dir, ref string, img v1.Image, r progress.Reporter) (*meta, error) {
	source, err := img.ConfigName()
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	return s.unpack(ctx, dir, ref, img, source.String(), "Unpacking "+ref, r)
}

// fromArchive returns the image of an archive of docker save. The archive may lie in a project, where the guest writes
// also while it is read. So it is opened once, without any link; what is read into memory is bounded by what comes; where
// its files are is noted once; and each layer must have the digest that the configuration names.
func (s *Store) fromArchive(path string) (v1.Image, error) {
	path, err := ownPath(path)
	if err != nil {
		return nil, err
	}
	f, err := openOwn(path)
	if err != nil {
		return nil, err
	}
	a := &archive{file: f} // closed when the image is not used any more (os.File)
	if err := s.readArchive(a); err != nil {
		f.Close()
		return nil, err
	}
	return partial.UncompressedToImage(a)
}

// openOwn opens a file by a path of ownPath, without any link that has come since. The caller closes it.
func openOwn(file string) (*os.File, error) {
	top, err := os.OpenRoot("/")
	if err != nil {
		return nil, err
	}
	defer top.Close()
	return regular.Check(regular.OpenBeneath(top, strings.TrimPrefix(file, "/"), 0))
}

// member is a file of an archive.
type member struct {
	at, size int64  // its data in the archive
	link     string // the file that it is a link to; empty: it is a regular file
	other    bool   // neither
}

// archive implements partial.UncompressedImageCore.
type archive struct {
	file     *os.File
	manifest tarball.Manifest
	members  map[string]member // by their clean names; the first of a name counts
	config   []byte
	layers   []member
	diffs    []v1.Hash // digests of the layers, uncompressed
}

// readArchive reads all of an archive but for its layers.
func (s *Store) readArchive(a *archive) error {
	if err := s.readMembers(a); err != nil {
		return err
	}
	if len(a.manifest) != 1 {
		return fmt.Errorf("its archive has %d images, not one", len(a.manifest))
	}
	image := a.manifest[0]
	config, ok := a.find(image.Config)
	switch {
	case !ok:
		return errors.New("its archive has no configuration")
	case config.size > s.limits.Config:
		return beyond(s.limits.Config, "bytes in its configuration")
	}
	var err error
	if a.config, err = io.ReadAll(a.data(config)); err != nil {
		return err
	}
	return s.findLayers(a, image.Layers)
}

// readMembers reads the headers of an archive, and its manifest.
func (s *Store) readMembers(a *archive) error {
	a.members = map[string]member{}
	r := tar.NewReader(a.file)
	for n := 0; ; n++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("its archive: %w", err)
		}
		name := path.Clean(h.Name)
		switch {
		case n >= maxArchiveEntries:
			return beyond(maxArchiveEntries, "entries in its archive")
		case len(name) > s.limits.Path || len(h.Linkname) > s.limits.Path:
			return beyond(s.limits.Path, "bytes in a path")
		}
		if _, again := a.members[name]; again {
			continue
		}
		if a.members[name], err = a.member(name, h); err != nil {
			return err
		}
		if name == manifestFile {
			if err := a.readManifest(h, r); err != nil {
				return err
			}
		}
	}
}

// member notes where the data of an entry is, of which the header was just read.
func (a *archive) member(name string, h *tar.Header) (m member, err error) {
	switch h.Typeflag {
	case tar.TypeReg:
		m.size = h.Size
		m.at, err = a.file.Seek(0, io.SeekCurrent) // the tar reader reads no further than the header
	case tar.TypeSymlink, tar.TypeLink: // of docker save before Docker 25: a layer that another image has too
		m.link = path.Join(path.Dir(name), path.Clean(h.Linkname))
	default:
		m.other = true
	}
	return m, err
}

// readManifest reads the manifest.
func (a *archive) readManifest(h *tar.Header, r io.Reader) error {
	if h.Typeflag != tar.TypeReg || h.Size > maxManifest {
		return beyond(maxManifest, "bytes in its manifest")
	}
	if err := json.NewDecoder(r).Decode(&a.manifest); err != nil {
		return fmt.Errorf("the manifest of its archive: %w", err)
	}
	return nil
}

// find returns the regular file of a name, or the one that it is a link to.
func (a *archive) find(name string) (member, bool) {
	name = path.Clean(name)
	for range maxArchiveLinks {
		m, ok := a.members[name]
		if !ok || m.other {
			return m, false
		}
		if m.link == "" {
			return m, true
		}
		name = m.link
	}
	return member{}, false
}

// data returns a reader of a file of the archive.
func (a *archive) data(m member) io.Reader { return io.NewSectionReader(a.file, m.at, m.size) }

// findLayers finds the layers, and counts their bytes as often as the manifest names them.
func (s *Store) findLayers(a *archive, names []string) error {
	if len(names) > s.limits.Layers {
		return beyond(s.limits.Layers, "layers")
	}
	config, err := v1.ParseConfigFile(bytes.NewReader(a.config))
	if err != nil {
		return fmt.Errorf("the configuration of its archive: %w", err)
	}
	a.diffs = config.RootFS.DiffIDs
	sum := int64(0)
	for _, name := range names {
		m, ok := a.find(name)
		if !ok {
			return fmt.Errorf("its archive has no layer %.200q", name)
		}
		if sum += m.size; sum > s.limits.Bytes {
			return beyond(s.limits.Bytes, "bytes in its layers")
		}
		a.layers = append(a.layers, m)
	}
	return nil
}

// MediaType implements partial.UncompressedImageCore.
func (a *archive) MediaType() (types.MediaType, error) { return types.DockerManifestSchema2, nil }

// RawConfigFile implements partial.UncompressedImageCore.
func (a *archive) RawConfigFile() ([]byte, error) { return a.config, nil }

// LayerByDiffID implements partial.UncompressedImageCore.
func (a *archive) LayerByDiffID(h v1.Hash) (partial.UncompressedLayer, error) {
	i := slices.Index(a.diffs, h)
	if i < 0 || i >= len(a.layers) {
		return nil, fmt.Errorf("its archive has no layer %s", h)
	}
	return &archiveLayer{a, a.layers[i], h}, nil
}

// archiveLayer implements partial.UncompressedLayer.
type archiveLayer struct {
	archive *archive
	member  member
	diff    v1.Hash
}

func (l *archiveLayer) DiffID() (v1.Hash, error)            { return l.diff, nil }
func (l *archiveLayer) MediaType() (types.MediaType, error) { return types.DockerLayer, nil }

// Uncompressed implements partial.UncompressedLayer.
func (l *archiveLayer) Uncompressed() (io.ReadCloser, error) {
	from := &closable{r: l.archive.data(l.member)}
	r, err := uncompressed(from)
	if err != nil {
		return nil, err
	}
	return newDigested(struct {
		io.Reader
		io.Closer
	}{r, from}, l.diff)
}

// closable is a reader that another goroutine may close.
type closable struct {
	r      io.Reader
	closed atomic.Bool
}

func (c *closable) Read(b []byte) (int, error) {
	if c.closed.Load() {
		return 0, os.ErrClosed
	}
	return c.r.Read(b)
}

func (c *closable) Close() error {
	c.closed.Store(true)
	return nil
}

// uncompressed returns what a layer is as a tar stream. The reader starts no goroutine and needs no Close.
func uncompressed(r io.Reader) (io.Reader, error) {
	b := bufio.NewReader(r)
	start, err := b.Peek(4)
	switch {
	case bytes.HasPrefix(start, []byte{0x1f, 0x8b}): // RFC 1952
		return gzip.NewReader(b)
	case bytes.HasPrefix(start, []byte{0x28, 0xb5, 0x2f, 0xfd}): // RFC 8878
		return zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxLayerWindow))
	case err != nil && !errors.Is(err, io.EOF):
		return nil, err
	}
	return b, nil
}
