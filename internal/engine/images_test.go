package engine_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"testing"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/image"
	"bawn.dev/bawn/internal/progress"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/sys/xdg"
)

// keepImage puts an image with one file in the cache as local:NAME.
func keepImage(t *testing.T, name, contents string) *engine.Image {
	t.Helper()
	cache, err := xdg.Cache()
	if err != nil {
		t.Fatal(err)
	}
	var tree bytes.Buffer
	w := tar.NewWriter(&tree)
	err = w.WriteHeader(&tar.Header{Name: "./file", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(contents))})
	if err == nil {
		_, err = w.Write([]byte(contents))
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	i, err := image.Open(cache).Save(t.Context(), name, &tree, nil, 1<<30, progress.Silent)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// digests are those of the images in the cache.
func digests(t *testing.T, e *engine.Engine) map[string]bool {
	t.Helper()
	list, err := e.Images()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, i := range list {
		all[i.Digest] = true
	}
	return all
}

// TestRemoveImages: what a sandbox uses and what is not there have reasons; the others go.
func TestRemoveImages(t *testing.T) {
	e, _, shop := userPlace(t)
	used, free := keepImage(t, "used", "1"), keepImage(t, "free", "2")
	if err := shop.WriteSpec(&sandbox.Spec{ID: "1", Name: "shop", Boot: sandbox.Boot{ImageDigest: used.Digest}}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		ref    string
		reason engine.Reason
	}{{"local:used", engine.ImageInUse}, {used.Digest[:20], engine.ImageInUse}, {"local:nope", engine.ImageNotRemoved}} {
		if err := e.RemoveImages([]string{c.ref}); engine.ReasonOf(err) != c.reason {
			t.Errorf("%s: %v", c.ref, err)
		}
	}
	if err := e.RemoveImages([]string{"local:used", free.Digest[:20]}); engine.ReasonOf(err) != engine.ImageInUse {
		t.Errorf("%v", err)
	}
	if left := digests(t, e); !left[used.Digest] || left[free.Digest] {
		t.Errorf("left: %v", left)
	}
}

// TestPruneImages: what was superseded goes, except what a sandbox uses; and nothing while
// it is not known what a sandbox uses.
func TestPruneImages(t *testing.T) {
	e, _, shop := userPlace(t)
	used, old, now := keepImage(t, "x", "1"), keepImage(t, "x", "2"), keepImage(t, "x", "3")
	if err := shop.WriteSpec(&sandbox.Spec{ID: "1", Name: "shop", Boot: sandbox.Boot{ImageDigest: used.Digest}}); err != nil {
		t.Fatal(err)
	}
	removed, err := e.PruneImages()
	if err != nil || len(removed) != 1 || removed[0].Digest != old.Digest {
		t.Errorf("%+v, %v", removed, err)
	}
	if left := digests(t, e); !left[used.Digest] || !left[now.Digest] || len(left) != 2 {
		t.Errorf("left: %v", left)
	}
	if err := os.WriteFile(shop.File("spec.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := shop.Spec(); err == nil || store.IsNotFound(err) {
		t.Fatalf("the test damages another file: %v", err)
	}
	if removed, err := e.PruneImages(); err == nil || len(removed) > 0 {
		t.Errorf("with a damaged sandbox: %+v, %v", removed, err)
	}
}
