package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"path/filepath"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

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
	// The digest of the configuration names the image, as it does for Docker. That of the
	// manifest would take a compression of all layers.
	source, err := img.ConfigName()
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	return s.unpack(ctx, dir, ref, img, source.String(), "Unpacking "+ref, r)
}

// fromArchive returns the image of an archive of docker save.
func (s *Store) fromArchive(path string) (v1.Image, error) {
	path, err := ownPath(path)
	if err != nil {
		return nil, err
	}
	if err := s.checkArchive(path); err != nil {
		return nil, err
	}
	return tarball.Image(func() (io.ReadCloser, error) { return regular.Open(path, regular.NoFollow) }, nil)
}

// checkArchive checks what is read of an archive of docker save before a layer is unpacked: how many entries it has,
// the sizes of its manifest and of its image's configuration, and the layers, of which the library computes the digests.
func (s *Store) checkArchive(file string) error {
	f, err := regular.Open(file, regular.NoFollow)
	if err != nil {
		return err
	}
	defer f.Close()
	var list tarball.Manifest
	sizes := map[string]int64{} // of regular files; the first of a name counts
	r := tar.NewReader(f)
	for n := 0; ; n++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("its archive: %w", err)
		}
		name := path.Clean(h.Name)
		switch {
		case n >= maxArchiveEntries:
			return beyond(maxArchiveEntries, "entries in its archive")
		case len(name) > s.limits.Path:
			return beyond(s.limits.Path, "bytes in a path")
		}
		if _, again := sizes[name]; again {
			continue
		}
		if sizes[name] = h.Size; h.Typeflag != tar.TypeReg {
			sizes[name] = -1
		}
		if name != manifestFile {
			continue
		}
		if h.Typeflag != tar.TypeReg || h.Size > maxManifest {
			return beyond(maxManifest, "bytes in its manifest")
		}
		if err := json.NewDecoder(r).Decode(&list); err != nil {
			return fmt.Errorf("the manifest of its archive: %w", err)
		}
	}
	if len(list) != 1 {
		return fmt.Errorf("its archive has %d images, not one", len(list))
	}
	config, ok := sizes[path.Clean(list[0].Config)]
	switch {
	case !ok || config < 0:
		return errors.New("its archive has no configuration")
	case config > s.limits.Config:
		return beyond(s.limits.Config, "bytes in its configuration")
	}
	return s.checkLayers(list[0].Layers, sizes)
}

// checkLayers checks the layers of an archive, each as often as the manifest names it. sizes has the regular files; what
// is none (-1) may be a link to the largest of them.
func (s *Store) checkLayers(layers []string, sizes map[string]int64) error {
	if len(layers) > s.limits.Layers {
		return beyond(s.limits.Layers, "layers")
	}
	largest, sum := int64(0), int64(0)
	for _, size := range sizes {
		largest = max(largest, size)
	}
	for _, name := range layers {
		size, ok := sizes[path.Clean(name)]
		if ok && size < 0 {
			size = largest
		}
		if sum += size; sum > s.limits.Bytes {
			return beyond(s.limits.Bytes, "bytes in its layers")
		}
	}
	return nil
}
