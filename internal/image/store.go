// Package image turns a reference into the read-only disk image that sandboxes
// boot from, and makes the disks that they write to.
//
// There are two sources. The default image is a Debian built on this host by
// mmdebstrap; any OCI image is fetched and flattened. Both end as one ext4 file,
// named by its own SHA-256 and shared by all sandboxes, in bawn's cache (see
// package cache for how that survives crashes, damage and a second bawn). A
// pointer says which file a reference stands for at present. Everything works
// without rights: ext4 is written directly, never mounted.
//
// Not safe: an OCI image's contents are hostile, and stay so: flattening only
// makes sure that they end up in the file system and nowhere else, within
// limits. What the image runs, it runs inside the sandbox.
package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
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
var ErrGone = errors.New("the image is not in the cache any more")

// Image is a root file system to boot from.
type Image struct {
	Ref    string `json:"ref"`    // what it was asked for as
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

// meta is what the cache keeps beside the file.
type meta struct {
	Ref        string    `json:"ref"`
	Source     string    `json:"source"` // what identifies it where it came from
	Env        []string  `json:"env,omitempty"`
	WorkingDir string    `json:"workingDir,omitempty"`
	User       string    `json:"user,omitempty"`
	Created    time.Time `json:"created"`
}

// pointer says what a reference stands for.
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

// Open names the store in bawn's cache folder.
func Open(path string) *Store {
	return &Store{cache: cache.Open(path), limits: DefaultLimits}
}

// pointerName is a file name for a reference: readable for the default image, a
// hash for what a user typed.
func pointerName(ref string) string {
	if ref == DefaultRef {
		return ref + "-" + debian.Arch()
	}
	sum := sha256.Sum256([]byte(ref))
	return "ref-" + hex.EncodeToString(sum[:16])
}

// Get returns the image that a reference stands for: "" and "default" are the
// default image, "sha256:HEX" is one in the cache, "oci:PATH" and
// "docker-archive:PATH" are on this host, and anything else is in a registry.
// What is in the cache is used without the network.
//
// The error for a digest that is not in the cache is ErrGone.
func (s *Store) Get(ctx context.Context, ref string, r progress.Reporter) (*Image, error) {
	switch {
	case ref == "" || ref == DefaultRef:
		return s.Default(ctx, r)
	case strings.HasPrefix(ref, digestPrefix):
		return s.byDigest(ctx, ref, r)
	default:
		return s.pulled(ctx, ref, r)
	}
}

// Refresh builds or fetches the image that ref stands for anew. Sandboxes made
// from the one before keep that: it stays in the cache until Remove.
func (s *Store) Refresh(ctx context.Context, ref string, r progress.Reporter) (*Image, error) {
	switch {
	case ref == "" || ref == DefaultRef:
		return s.locked(ctx, DefaultRef, r, nil, s.build)
	case strings.HasPrefix(ref, digestPrefix):
		return nil, fmt.Errorf("%s names one image for ever: there is no newer one", ref)
	default:
		return s.locked(ctx, ref, r, nil, s.pull)
	}
}

// Default returns the default image, building it at first use.
func (s *Store) Default(ctx context.Context, r progress.Reporter) (*Image, error) {
	return s.locked(ctx, DefaultRef, r, upToDate, s.build)
}

// HasDefault says whether the default image of this bawn is in the cache, whole.
func (s *Store) HasDefault() bool {
	_, err := s.cached(DefaultRef, upToDate)
	return err == nil
}

// upToDate says of a default image whether this bawn would build the same.
func upToDate(p pointer) bool { return p.Source == recipeDigest() }

// make builds what ref stands for in the scratch folder dir: the file imageFile
// and what to keep beside it.
type maker func(ctx context.Context, dir, ref string, r progress.Reporter) (*meta, error)

// locked returns the image that ref points to when want agrees and it is whole,
// else makes it under the reference's lock. A nil want always makes.
func (s *Store) locked(ctx context.Context, ref string, r progress.Reporter, want func(pointer) bool, mk maker) (*Image, error) {
	if i, err := s.cached(ref, want); err == nil {
		return i, nil
	}
	name := pointerName(ref)
	l, err := s.cache.Lock(ctx, kind+"-"+name, r)
	if err != nil {
		return nil, err
	}
	defer l.Unlock()
	if i, err := s.cached(ref, want); err == nil {
		return i, nil // another bawn made it meanwhile
	}
	dir, err := l.Scratch()
	if err != nil {
		return nil, err
	}
	defer cache.RemoveAll(dir)
	m, err := mk(ctx, dir, ref, r)
	if err != nil {
		return nil, err
	}
	task := r.Start("Keeping the image", 0, progress.Steps)
	e, err := s.cache.CommitByContent(kind, dir, imageFile, m)
	task.Done(err)
	if err != nil {
		return nil, err
	}
	if err := s.cache.Point(kind, name, pointer{Ref: ref, Key: e.Key, Source: m.Source}); err != nil {
		return nil, err
	}
	return fromEntry(e)
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

// byDigest finds an image by its content. One that was damaged is made again
// from where it came from, which serves if the result is the same.
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
		return nil, fmt.Errorf("%s: %w, and %s is another image now (%w)", digest, ErrGone, m.Ref, why)
	}
	return i, nil
}

// refOf is the reference that points to a key, or empty.
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

// List returns the images in the cache: for each reference its present image,
// then those that no reference means any more. Damaged ones are left out.
func (s *Store) List() ([]Image, error) {
	refs := map[string][]string{} // key to references
	names, err := s.cache.Pointers(kind)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		var p pointer
		if s.cache.Pointer(kind, n, &p) == nil {
			refs[p.Key] = append(refs[p.Key], p.Ref)
		}
	}
	keys, err := s.cache.Keys(kind)
	if err != nil {
		return nil, err
	}
	var list []Image
	for _, k := range keys {
		e, err := s.cache.Peek(kind, k)
		if err != nil {
			continue
		}
		i, err := fromEntry(e)
		if err != nil {
			continue
		}
		if len(refs[k]) == 0 {
			i.Superseded = true
			list = append(list, *i)
		}
		for _, r := range refs[k] {
			named := *i
			named.Ref = r
			list = append(list, named)
		}
	}
	sort.Slice(list, func(a, b int) bool {
		x, y := &list[a], &list[b]
		if x.Superseded != y.Superseded {
			return y.Superseded
		}
		if x.Ref != y.Ref {
			return x.Ref < y.Ref
		}
		return x.Digest < y.Digest
	})
	return list, nil
}

// ErrInUse means that a sandbox's disk is laid over the image.
var ErrInUse = errors.New("a sandbox uses the image")

// Remove forgets a reference or digest, and deletes the image when nothing else
// refers to it. Of a digest the beginning is enough, if no other has it. An image
// that is in use is an error, ErrInUse, and stays.
func (s *Store) Remove(ref string, inUse func(digest string) bool) error {
	if ref == "" {
		ref = DefaultRef
	}
	key, isDigest := strings.CutPrefix(ref, digestPrefix)
	if !isDigest {
		var p pointer
		if err := s.cache.Pointer(kind, pointerName(ref), &p); errors.Is(err, cache.ErrAbsent) {
			return fmt.Errorf("no image %s is in the cache", ref)
		} else if err != nil {
			return err
		}
		key = p.Key
	} else {
		var err error
		if key, err = s.begins(key); err != nil {
			return err
		}
	}
	if inUse != nil && inUse(digestPrefix+key) {
		return fmt.Errorf("%s: %w", ref, ErrInUse)
	}
	others := 0
	names, err := s.cache.Pointers(kind)
	if err != nil {
		return err
	}
	for _, n := range names {
		var p pointer
		if s.cache.Pointer(kind, n, &p) != nil || p.Key != key {
			continue
		}
		if isDigest || p.Ref == ref {
			err = errors.Join(err, s.cache.Unpoint(kind, n))
		} else {
			others++
		}
	}
	if others > 0 || err != nil {
		return err
	}
	return s.cache.Remove(kind, key)
}

// begins finds the one key in the cache that begins so.
func (s *Store) begins(part string) (key string, err error) {
	keys, err := s.cache.Keys(kind)
	if err != nil {
		return "", err
	}
	for _, k := range keys {
		switch {
		case !strings.HasPrefix(k, part):
		case key != "":
			return "", fmt.Errorf("%s%s: more than one image begins so", digestPrefix, part)
		default:
			key = k
		}
	}
	if key == "" {
		return "", fmt.Errorf("no image %s%s is in the cache", digestPrefix, part)
	}
	return key, nil
}
