package image

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sys/regular"
)

// An OCI image layout is a directory with an index and blobs, each named by its digest (OCI image specification,
// image-layout.md). It may lie in a project, where the guest writes. So each file is opened in the directory without
// any link, what is read into memory is bounded by what comes and not by what the files say, and the digests count.

// indexFile lists the images of a layout.
const indexFile = "index.json"

// maxNesting bounds indexes within indexes.
const maxNesting = 4

// blobs are those of a layout.
type blobs struct{ root *os.Root }

// open opens a blob. The caller closes it.
func (b blobs) open(h v1.Hash) (*os.File, error) {
	return regular.Check(regular.OpenBeneath(b.root, "blobs/"+h.Algorithm+"/"+h.Hex, 0)) // a hash has no slashes (v1.NewHash)
}

// read reads a blob of at most limit bytes, which has the digest.
func (b blobs) read(h v1.Hash, limit int64, what string) ([]byte, error) {
	f, err := b.open(h)
	if err != nil {
		return nil, err
	}
	text, err := regular.ReadAll(f, limit)
	if errors.Is(err, regular.ErrTooLarge) {
		return nil, beyond(limit, "bytes in its "+what)
	}
	if err != nil {
		return nil, err
	}
	check, err := newDigested(io.NopCloser(bytes.NewReader(text)), h)
	if err == nil {
		_, err = io.Copy(io.Discard, check)
	}
	return text, err
}

// digested is a reader that ends with an error unless what it has read has the digest.
type digested struct {
	io.ReadCloser
	want v1.Hash
	sum  hash.Hash
}

func newDigested(r io.ReadCloser, want v1.Hash) (*digested, error) {
	sum, err := v1.Hasher(want.Algorithm)
	return &digested{r, want, sum}, err
}

func (d *digested) Read(b []byte) (int, error) {
	n, err := d.ReadCloser.Read(b)
	d.sum.Write(b[:n])
	if errors.Is(err, io.EOF) && hex.EncodeToString(d.sum.Sum(nil)) != d.want.Hex {
		err = fmt.Errorf("the blob %s has another digest", d.want)
	}
	return n, err
}

// fromLayout returns the image for this platform from an OCI image layout.
func (s *Store) fromLayout(path string) (v1.Image, error) {
	path, err := ownPath(path)
	if err != nil {
		return nil, err
	}
	top, err := os.OpenRoot("/")
	if err != nil {
		return nil, err
	}
	defer top.Close()
	root, err := regular.OpenRootBeneath(top, strings.TrimPrefix(path, "/")) // closed when the image is not used any more (os.Root)
	if errors.Is(err, unix.ENOTDIR) {
		return nil, errors.New("not a directory: unpack the archive first")
	}
	if err != nil {
		return nil, err
	}
	text, err := regular.ReadBeneath(root, indexFile, maxManifest)
	if errors.Is(err, regular.ErrTooLarge) {
		err = beyond(maxManifest, "bytes in its index")
	}
	if err != nil {
		return nil, err
	}
	img, err := s.fromIndex(blobs{root}, text, 0)
	if err != nil {
		return nil, err
	}
	whole, err := partial.CompressedToImage(img)
	return decodedImage{whole}, err
}

// fromIndex returns the first image for this platform of an index.
func (s *Store) fromIndex(b blobs, text []byte, depth int) (*layoutImage, error) {
	m, err := v1.ParseIndexManifest(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	if depth > maxNesting {
		return nil, errors.New("its image indexes are nested too deeply")
	}
	for _, d := range m.Manifests {
		switch {
		case d.Platform != nil && !d.Platform.Satisfies(platform()):
		case d.MediaType.IsImage():
			return s.fromManifest(b, d)
		case d.MediaType.IsIndex():
			inner, err := b.read(d.Digest, maxManifest, "index")
			if err != nil {
				return nil, err
			}
			if img, err := s.fromIndex(b, inner, depth+1); err == nil {
				return img, nil
			}
		}
	}
	return nil, fmt.Errorf("it has no image for linux/%s", runtime.GOARCH)
}

// fromManifest returns the image of a manifest.
func (s *Store) fromManifest(b blobs, d v1.Descriptor) (*layoutImage, error) {
	text, err := b.read(d.Digest, maxManifest, "manifest")
	if err != nil {
		return nil, err
	}
	m, err := v1.ParseManifest(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	config, err := b.read(m.Config.Digest, s.limits.Config, "configuration")
	return &layoutImage{b, d.MediaType, text, config, m}, err
}

// layoutImage implements partial.CompressedImageCore.
type layoutImage struct {
	blobs        blobs
	kind         types.MediaType
	text, config []byte
	manifest     *v1.Manifest
}

func (i *layoutImage) MediaType() (types.MediaType, error) { return i.kind, nil }
func (i *layoutImage) RawManifest() ([]byte, error)        { return i.text, nil }
func (i *layoutImage) RawConfigFile() ([]byte, error)      { return i.config, nil }

// LayerByDigest implements partial.CompressedImageCore.
func (i *layoutImage) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	for _, d := range i.manifest.Layers {
		if d.Digest == h {
			return &layoutLayer{i.blobs, d}, nil
		}
	}
	return nil, fmt.Errorf("it has no layer %s", h)
}

// layoutLayer implements partial.CompressedLayer.
type layoutLayer struct {
	blobs blobs
	desc  v1.Descriptor
}

func (l *layoutLayer) Digest() (v1.Hash, error)            { return l.desc.Digest, nil }
func (l *layoutLayer) Size() (int64, error)                { return l.desc.Size, nil }
func (l *layoutLayer) MediaType() (types.MediaType, error) { return l.desc.MediaType, nil }

// Compressed implements partial.CompressedLayer.
func (l *layoutLayer) Compressed() (io.ReadCloser, error) {
	f, err := l.blobs.open(l.desc.Digest)
	if err != nil {
		return nil, err
	}
	return newDigested(f, l.desc.Digest)
}
