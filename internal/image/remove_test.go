package image

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/cache"
)

// keep puts an image with the contents in the cache, under a reference.
func keep(t *testing.T, s *Store, ref, contents string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, imageFile), []byte(contents), 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := s.cache.CommitByContent(kind, dir, imageFile, meta{Ref: ref})
	if err == nil {
		err = s.cache.Point(kind, pointerName(ref), pointer{Ref: ref, Key: e.Key})
	}
	if err != nil {
		t.Fatal(err)
	}
	return digestPrefix + e.Key
}

// TestRemove: by reference, by digest or by the beginning of one, and never what is in
// use.
func TestRemove(t *testing.T) {
	s := &Store{cache: cache.Open(t.TempDir()), limits: DefaultLimits}
	old := keep(t, s, "a.test/x", "one")
	newer := keep(t, s, "a.test/x", "two")
	other := keep(t, s, "a.test/y", "three")
	left := func(want ...string) {
		t.Helper()
		list, err := s.List()
		var got []string
		for _, i := range list {
			got = append(got, i.Digest)
			if i.Superseded != (i.Digest == old) {
				t.Errorf("%s: superseded %v", i.Digest, i.Superseded)
			}
		}
		if err != nil || len(got) != len(want) || strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	left(newer, other, old)
	if err := s.Remove(old[:19], func(d string) bool { return d == old }); !errors.Is(err, ErrInUse) {
		t.Error(err)
	}
	for ref, say := range map[string]string{"sha256:": "more than one", "sha256:zz": "is not in the cache", "a.test/z": "is not in the cache"} {
		if err := s.Remove(ref, nil); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if err := s.Remove(old[:19], nil); err != nil {
		t.Error(err)
	}
	left(newer, other)
	if err := errors.Join(s.Remove("a.test/x", nil), s.Remove(other, nil)); err != nil {
		t.Error(err)
	}
	left()
}

// TestTwoVersions: an image that this bawn's recipe made is the default image, also after
// another bawn made its own.
func TestTwoVersions(t *testing.T) {
	s := &Store{cache: cache.Open(t.TempDir()), limits: DefaultLimits}
	put := func(source, contents string) string {
		t.Helper()
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, imageFile), []byte(contents), 0o600); err != nil {
			t.Fatal(err)
		}
		e, err := s.cache.CommitByContent(kind, dir, imageFile, meta{Ref: DefaultRef, Source: source})
		if err == nil {
			err = s.cache.Point(kind, pointerName(DefaultRef), pointer{Ref: DefaultRef, Key: e.Key, Source: source})
		}
		if err != nil {
			t.Fatal(err)
		}
		return digestPrefix + e.Key
	}
	put("recipe:another", "other")
	if s.HasDefault() {
		t.Error("another recipe's image is the default one")
	}
	ours := put(recipeDigest(), "ours")
	put("recipe:another", "other, newer")
	i, err := s.Default(t.Context(), &recorder{})
	if err != nil || i.Digest != ours || !s.HasDefault() {
		t.Errorf("%+v, %v; want %s", i, err, ours)
	}
}
