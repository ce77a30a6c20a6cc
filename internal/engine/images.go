package engine

import (
	"context"
	"errors"

	"bawn.dev/bawn/internal/image"
	"bawn.dev/bawn/internal/kernel"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/sys/xdg"
)

// The reasons about images.
const (
	// ImageInUse: a sandbox's disk is laid over the image, which therefore stays.
	ImageInUse Reason = "image-in-use"
	// ImageNotMade: no image of that name was made of a sandbox (Path is its name).
	ImageNotMade Reason = "image-not-made"
	// ImageNotRemoved: the image is not there, or cannot be removed.
	ImageNotRemoved Reason = "image-not-removed"
)

// Image is a root file system that sandboxes boot from.
type Image = image.Image

// images returns the cache of images, which all of the user's sandboxes share.
func (e *Engine) images() (*image.Store, error) {
	cache, err := xdg.Cache()
	if err != nil {
		return nil, err
	}
	return image.Open(cache), nil
}

// Images lists the images in the cache.
func (e *Engine) Images() ([]Image, error) {
	s, err := e.images()
	if err != nil {
		return nil, err
	}
	return s.List()
}

// PullImage returns the image that a reference stands for, from the cache if it is there;
// else it is fetched or, for the default image (""), built.
func (e *Engine) PullImage(ctx context.Context, ref string) (*Image, error) {
	s, err := e.images()
	if err != nil {
		return nil, err
	}
	return s.Get(ctx, ref, e.progress())
}

// UpdateImage fetches or builds the image that a reference stands for in any case. New
// sandboxes get it; those that exist keep the one that their disk is laid over.
func (e *Engine) UpdateImage(ctx context.Context, ref string) (*Image, error) {
	s, err := e.images()
	if err != nil {
		return nil, err
	}
	return s.Refresh(ctx, ref, e.progress())
}

// DefaultImage is the reference of the image that bawn builds itself.
const DefaultImage = image.DefaultRef

// UpdateKernel fetches the distribution's present guest kernel, which sandboxes that are
// stopped start with from then on, and returns its version.
func (e *Engine) UpdateKernel(ctx context.Context) (version string, err error) {
	cache, err := xdg.Cache()
	if err != nil {
		return "", err
	}
	k, err := kernel.Open(cache).Refresh(ctx, e.progress())
	if err != nil {
		return "", err
	}
	return k.Version, nil
}

// RemoveImages removes the images of references or digests, of which the beginning is
// enough. One that a sandbox uses is ImageInUse; the others are removed all the same.
func (e *Engine) RemoveImages(refs []string) error {
	s, err := e.images()
	if err != nil {
		return err
	}
	used, err := e.imagesInUse()
	if err != nil {
		return err
	}
	var failed error
	for _, ref := range refs {
		err := s.Remove(ref, func(digest string) bool { return used[digest] })
		switch {
		case errors.Is(err, image.ErrInUse):
			err = &Error{Reason: ImageInUse, Err: err}
		case err != nil:
			err = &Error{Reason: ImageNotRemoved, Err: err}
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

// PruneImages removes the images that have been superseded and that no sandbox uses. It
// returns those that it removed, also with an error.
func (e *Engine) PruneImages() (removed []Image, err error) {
	s, err := e.images()
	if err != nil {
		return nil, err
	}
	used, err := e.imagesInUse()
	if err != nil {
		return nil, err
	}
	list, err := s.List()
	if err != nil {
		return nil, err
	}
	for _, i := range list {
		if !i.Superseded || used[i.Digest] {
			continue
		}
		if err := s.Remove(i.Digest, nil); err != nil {
			return removed, err
		}
		removed = append(removed, i)
	}
	return removed, nil
}

// imagesInUse returns the digests of the images that sandboxes' disks are laid over. A sandbox
// that cannot be read is an error: its image might be among those.
func (e *Engine) imagesInUse() (map[string]bool, error) {
	used := map[string]bool{}
	names, err := e.sandboxes.Names()
	for _, n := range names {
		spec, serr := e.sandboxes.Dir(n).Spec()
		if serr == nil {
			used[spec.Boot.ImageDigest] = true
		} else if !store.IsNotFound(serr) { // else removed meanwhile
			err = errors.Join(err, serr)
		}
	}
	return used, err
}
