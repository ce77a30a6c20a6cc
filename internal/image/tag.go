package image

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"bawn.dev/bawn/internal/cache"
)

// Theory of operation. An image that was made on this host has the reference local:NAME. A
// person may leave the prefix out: NAME then means that image as long as there is one, and only
// otherwise one of a registry. One that is damaged is an error: nothing is fetched in its place,
// since anybody may have published that name.

// BaseTag is the name that the default image has in builds. No image can be saved under it.
const BaseTag = "bawn/default"

// latest is the tag that a reference without one has.
const latest = ":latest"

// maxTag bounds a tag, in bytes, as Docker's references are bounded.
const maxTag = 255

// TagRef returns the reference of an image that is built under a tag, which is written as
// Docker's are: NAME, NAME:VERSION or HOST/NAME:VERSION.
func TagRef(tag string) (ref string, err error) {
	short := strings.TrimSuffix(strings.TrimPrefix(tag, LocalPrefix), latest)
	bad := func(why error) (string, error) {
		return "", fmt.Errorf("invalid image name %q: %w; write a name in lower case, such as web, web:1.2 or example.org/web:1.2", tag, why)
	}
	first, _, _ := strings.Cut(short, ":")
	reserved := []string{archivePrefix, layoutPrefix, LocalPrefix, digestPrefix}
	switch {
	case short == "" || strings.ContainsRune("/.-_", rune(short[0])):
		return bad(errors.New("it does not begin with a name"))
	case len(short) > maxTag:
		return bad(fmt.Errorf("it has more than %d bytes", maxTag))
	case short == DefaultRef || first == BaseTag || slices.Contains(reserved, first+":"):
		return bad(errors.New("bawn gives this name another meaning"))
	}
	if _, err := name.NewTag(short); err != nil {
		return bad(errors.New("it is not the name of an image"))
	}
	return LocalPrefix + short, nil
}

// meaning returns the reference that ref stands for: that of an image made on this host, if
// there is one of the name, else ref itself.
func (s *Store) meaning(ref string) string {
	local, err := TagRef(ref)
	if err != nil {
		return ref
	}
	var p pointer
	if err := s.cache.Pointer(kind, pointerName(local), &p); errors.Is(err, cache.ErrAbsent) {
		return ref
	}
	return local
}
