package image

import (
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// decodedImage is an image whose layers are decoded here: the library's decoder of zstd takes windows of 512 MiB.
type decodedImage struct{ v1.Image }

// Layers implements v1.Image.
func (i decodedImage) Layers() ([]v1.Layer, error) {
	list, err := i.Image.Layers()
	if err != nil {
		return nil, err
	}
	out := make([]v1.Layer, len(list))
	for j, l := range list {
		out[j] = decodedLayer{l}
	}
	return out, nil
}

// decodedLayer is a layer of such an image.
type decodedLayer struct{ v1.Layer }

// Uncompressed implements v1.Layer. Its end is that of the compressed stream, where the digest is verified.
func (l decodedLayer) Uncompressed() (io.ReadCloser, error) {
	stored, err := l.Compressed()
	if err != nil {
		return nil, err
	}
	r, err := uncompressed(stored)
	if err != nil {
		stored.Close()
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{r, stored}, nil
}
