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

	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"bawn.dev/bawn/internal/progress"
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
	if err := s.checkArchive(file); err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	img, err := tarball.ImageFromPath(file, nil)
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

// checkArchive checks what is read into memory of an archive of docker save: how many entries
// it has, and the sizes of its manifest and of its image's configuration.
func (s *Store) checkArchive(file string) error {
	f, err := os.Open(file)
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
		if h.Typeflag != tar.TypeReg || h.Size > s.limits.Config {
			return beyond(s.limits.Config, "bytes in its manifest")
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
	return nil
}
