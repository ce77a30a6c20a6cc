// Package image turns a reference into the read-only disk image that sandboxes
// boot from.
//
// There are two sources. The default image is a Debian built on this host by
// mmdebstrap; any OCI image is fetched and flattened. Both end as one ext4 file,
// named by its own SHA-256 and shared by all sandboxes, in bawn's cache (see
// package cache for how that survives crashes, damage and a second bawn). A
// pointer names the file that a reference stands for at present. All of it works
// without privileges: ext4 is written directly, never mounted.
//
// Not safe: an OCI image's contents are hostile, and stay so: flattening only makes sure
// that they end up in the file system and nowhere else, within limits. Programs of the
// image run inside the sandbox only.
package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"bawn.dev/bawn/internal/cache"
	"bawn.dev/bawn/internal/debian"
	"bawn.dev/bawn/internal/progress"
)

// DefaultRef names the image that is built rather than fetched.
const DefaultRef = "default"

// Names in the cache.
const (
	kind      = "image"
	imageFile = "image.ext4"
)

const digestPrefix = "sha256:"

// ErrGone means that an image named by its digest is not in the cache (any
// more), and cannot be had again by that name.
var ErrGone = errors.New("the image is no longer in the cache")

// Image is a root file system to boot from.
type Image struct {
	Ref    string `json:"ref"`    // the reference that it was asked for by
	Digest string `json:"digest"` // sha256:HEX of the file at Path
	Path   string `json:"path"`   // ext4, read-only
	Size   int64  `json:"size"`   // bytes

	// From the OCI image's configuration.
	Env        []string `json:"env,omitempty"`
	WorkingDir string   `json:"workingDir,omitempty"`
	User       string   `json:"user,omitempty"`

	Created time.Time `json:"created"` // on this host
	// Superseded says that Ref has come to mean a newer image.
	Superseded bool `json:"superseded,omitempty"`
}

// meta is the cache's metadata of an image.
type meta struct {
	Ref        string    `json:"ref"`
	Source     string    `json:"source"` // its identity at its origin: a digest
	Env        []string  `json:"env,omitempty"`
	WorkingDir string    `json:"workingDir,omitempty"`
	User       string    `json:"user,omitempty"`
	Created    time.Time `json:"created"`
}

// pointer names the image that a reference stands for.
type pointer struct {
	Ref    string `json:"ref"`
	Key    string `json:"key"`
	Source string `json:"source"`
}

// Store keeps images in a cache.
type Store struct {
	cache  cache.Dir
	limits Limits
}

// Open returns the store in bawn's cache folder, which need not exist.
func Open(path string) *Store {
	return &Store{cache: cache.Open(path), limits: DefaultLimits}
}

// pointerName returns the file name of a reference's pointer: a readable one for the
// default image, a hash for references that a user typed.
func pointerName(ref string) string {
	if ref == DefaultRef {
		return ref + "-" + debian.Arch()
	}
	sum := sha256.Sum256([]byte(ref))
	return "ref-" + hex.EncodeToString(sum[:16])
}

// Get returns the image that a reference stands for: "" and "default" are the
// default image, "sha256:HEX" is one in the cache, "oci:PATH" and
// "docker-archive:PATH" are on this host, "local:NAME" was made here, and anything else is
// in a registry, unless an image of that name was made here.
// An image that is in the cache is used without the network.
//
// The error for a digest that is not in the cache is ErrGone.
func (s *Store) Get(ctx context.Context, ref string, r progress.Reporter) (*Image, error) {
	ref = s.meaning(ref)
	switch {
	case ref == "" || ref == DefaultRef:
		return s.Default(ctx, r)
	case strings.HasPrefix(ref, digestPrefix):
		return s.byDigest(ctx, ref, r)
	default:
		return s.pulled(ctx, ref, r)
	}
}

// Refresh builds or fetches the image that ref stands for again. Sandboxes made from the
// earlier one keep it: it stays in the cache until Remove.
func (s *Store) Refresh(ctx context.Context, ref string, r progress.Reporter) (*Image, error) {
	ref = s.meaning(ref)
	switch {
	case strings.HasPrefix(ref, LocalPrefix):
		return nil, fmt.Errorf("%s was made on this host, so there is no newer one to fetch: build or commit it again", ref)
	case ref == "" || ref == DefaultRef:
		return s.locked(ctx, DefaultRef, r, nil, s.build)
	case strings.HasPrefix(ref, digestPrefix):
		return nil, fmt.Errorf("%s always means the same image, so there is no newer one", ref)
	default:
		return s.locked(ctx, ref, r, nil, s.pull)
	}
}

// Default returns the default image, building it at first use.
func (s *Store) Default(ctx context.Context, r progress.Reporter) (*Image, error) {
	if i := s.sameRecipe(); i != nil {
		return i, nil
	}
	return s.locked(ctx, DefaultRef, r, upToDate, s.build)
}

// HasDefault reports whether the default image of this bawn is in the cache, whole.
func (s *Store) HasDefault() bool {
	if s.sameRecipe() != nil {
		return true
	}
	_, err := s.cached(DefaultRef, upToDate)
	return err == nil
}

// sameRecipe returns the image that this bawn's recipe made, where the default image is
// another bawn's by now: two versions that are used in turn do not build it anew each time.
// It returns nil if there is none, or if the default image is this bawn's.
func (s *Store) sameRecipe() *Image {
	var p pointer
	if err := s.cache.Pointer(kind, pointerName(DefaultRef), &p); err != nil || upToDate(p) {
		return nil
	}
	keys, err := s.cache.Keys(kind)
	if err != nil {
		return nil
	}
	var newest *Image
	for _, k := range keys {
		e, err := s.cache.Peek(kind, k)
		var m meta
		if err != nil || json.Unmarshal(e.Meta, &m) != nil || m.Ref != DefaultRef || m.Source != recipeDigest() {
			continue
		}
		if newest != nil && !m.Created.After(newest.Created) {
			continue
		}
		if e, err = s.cache.Lookup(kind, k); err == nil {
			newest, _ = fromEntry(e)
		}
	}
	return newest
}

// upToDate reports whether this bawn would build the same default image.
func upToDate(p pointer) bool { return p.Source == recipeDigest() }

// maker makes the image of ref in the scratch folder dir, as the file imageFile, and
// returns its metadata.
type maker func(ctx context.Context, dir, ref string, r progress.Reporter) (*meta, error)

// locked returns the image that ref points to when want accepts the pointer and the image
// is whole, else makes it under the reference's lock. A nil want accepts none.
func (s *Store) locked(ctx context.Context, ref string, r progress.Reporter, want func(pointer) bool, mk maker) (*Image, error) {
	name := pointerName(ref)
	present := func() (*Image, error) { return s.cached(ref, want) }
	return cache.Once(ctx, s.cache, kind+"-"+name, r, present, func(dir string) (*Image, error) {
		m, err := mk(ctx, dir, ref, r)
		if err != nil {
			return nil, err
		}
		task := r.Start("Saving the image to the cache", 0, progress.Steps)
		e, err := s.cache.CommitByContent(kind, dir, imageFile, m)
		task.Done(err)
		if err != nil {
			return nil, err
		}
		if err := s.cache.Point(kind, name, pointer{Ref: ref, Key: e.Key, Source: m.Source}); err != nil {
			return nil, err
		}
		return fromEntry(e)
	})
}

func (s *Store) cached(ref string, want func(pointer) bool) (*Image, error) {
	var p pointer
	if err := s.cache.Pointer(kind, pointerName(ref), &p); err != nil {
		return nil, err
	}
	if want == nil || !want(p) {
		return nil, cache.ErrAbsent
	}
	e, err := s.cache.Lookup(kind, p.Key)
	if err != nil {
		return nil, err
	}
	i, err := fromEntry(e)
	if err == nil {
		i.Ref = ref // the same content may have come under another name
	}
	return i, err
}

// byDigest returns the image with that content. A damaged one is made again from its
// reference, which is an error when the result is another image.
func (s *Store) byDigest(ctx context.Context, digest string, r progress.Reporter) (*Image, error) {
	key := strings.TrimPrefix(digest, digestPrefix)
	e, err := s.cache.Lookup(kind, key)
	if err == nil {
		return fromEntry(e)
	}
	if !errors.Is(err, cache.ErrAbsent) && !errors.Is(err, cache.ErrDamaged) {
		return nil, err
	}
	why := err
	var m meta
	if e, err := s.cache.Peek(kind, key); err == nil {
		_ = json.Unmarshal(e.Meta, &m)
	}
	if m.Ref == "" {
		m.Ref = s.refOf(key)
	}
	if m.Ref == "" {
		return nil, fmt.Errorf("%s: %w (%w)", digest, ErrGone, why)
	}
	i, err := s.Get(ctx, m.Ref, r)
	if err != nil {
		return nil, err
	}
	if i.Digest != digest {
		return nil, fmt.Errorf("%s: %w, and %s now means another image (%w)", digest, ErrGone, m.Ref, why)
	}
	return i, nil
}

// refOf returns the reference that points to a key, or "".
func (s *Store) refOf(key string) string {
	names, err := s.cache.Pointers(kind)
	if err != nil {
		return ""
	}
	for _, n := range names {
		var p pointer
		if s.cache.Pointer(kind, n, &p) == nil && p.Key == key {
			return p.Ref
		}
	}
	return ""
}

func fromEntry(e *cache.Entry) (*Image, error) {
	var m meta
	if err := json.Unmarshal(e.Meta, &m); err != nil {
		return nil, fmt.Errorf("image in the cache: %w", err)
	}
	return &Image{
		Ref: m.Ref, Digest: digestPrefix + e.Key, Path: e.File(imageFile), Size: e.Files[imageFile].Size,
		Env: m.Env, WorkingDir: m.WorkingDir, User: m.User, Created: m.Created,
	}, nil
}
