package image

import (
	"errors"
	"fmt"
	"strings"

	"bawn.dev/bawn/internal/cache"
)

// ErrInUse means that the disk of a sandbox is an overlay over the image.
var ErrInUse = errors.New("a sandbox uses the image")

// Remove removes a reference, or all references to a digest, and deletes the image when
// no reference to it is left. A digest may be shortened to a beginning that no other
// has. An image that is in use stays: the error wraps ErrInUse.
func (s *Store) Remove(ref string, inUse func(digest string) bool) error {
	if ref = s.meaning(ref); ref == "" {
		ref = DefaultRef
	}
	key, isDigest, err := s.keyOf(ref)
	if err != nil {
		return err
	}
	if inUse != nil && inUse(digestPrefix+key) {
		return fmt.Errorf("%s: %w", ref, ErrInUse)
	}
	left, err := s.unpoint(key, func(of string) bool { return isDigest || of == ref })
	if left > 0 || err != nil {
		return err
	}
	return s.cache.Remove(kind, key)
}

// keyOf returns the key of the image that a reference or a digest stands for.
func (s *Store) keyOf(ref string) (key string, isDigest bool, err error) {
	if part, ok := strings.CutPrefix(ref, digestPrefix); ok {
		key, err = s.begins(part)
		return key, true, err
	}
	var p pointer
	err = s.cache.Pointer(kind, pointerName(ref), &p)
	if errors.Is(err, cache.ErrAbsent) {
		err = fmt.Errorf("image %s is not in the cache", ref)
	}
	return p.Key, false, err
}

// unpoint removes the pointers to a key of those references that remove accepts, and
// returns how many pointers to it are left.
func (s *Store) unpoint(key string, remove func(ref string) bool) (left int, err error) {
	names, err := s.cache.Pointers(kind)
	if err != nil {
		return 0, err
	}
	for _, n := range names {
		var p pointer
		switch {
		case s.cache.Pointer(kind, n, &p) != nil || p.Key != key:
		case remove(p.Ref):
			err = errors.Join(err, s.cache.Unpoint(kind, n))
		default:
			left++
		}
	}
	return left, err
}

// begins returns the one key in the cache that begins with part.
func (s *Store) begins(part string) (key string, err error) {
	keys, err := s.cache.Keys(kind)
	if err != nil {
		return "", err
	}
	for _, k := range keys {
		switch {
		case !strings.HasPrefix(k, part):
		case key != "":
			return "", fmt.Errorf("%s%s: more than one image has a digest that begins with this", digestPrefix, part)
		default:
			key = k
		}
	}
	if key == "" {
		return "", fmt.Errorf("image %s%s is not in the cache", digestPrefix, part)
	}
	return key, nil
}
