package cache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"bawn.dev/bawn/internal/progress"
)

func TestItems(t *testing.T) {
	d := Open(filepath.Join(t.TempDir(), "none"))
	if list, err := d.Items(); err != nil || len(list) != 0 {
		t.Fatalf("no cache: %v, %v", list, err)
	}
	d = Open(t.TempDir())
	for _, key := range []string{"a", "b"} {
		_, err := d.Ensure(t.Context(), "thing", key, progress.Silent, func(_ context.Context, dir string) (any, error) {
			return map[string]string{"name": key}, os.WriteFile(filepath.Join(dir, "file"), make([]byte, 100_000), 0o600)
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Point("thing", "to-"+key, map[string]string{"key": key}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(d.Path(), "other", "damaged"), 0o700); err != nil {
		t.Fatal(err)
	}
	list, err := d.Items()
	if err != nil || len(list) != 3 {
		t.Fatalf("%v, %v", list, err)
	}
	if i := list[1]; i.Kind != "thing" || i.Key != "a" || i.Size < 100_000 || i.Size > 200_000 || len(i.Meta) == 0 {
		t.Errorf("%+v", i)
	}
	if i := list[0]; i.Kind != "other" || i.Key != "damaged" || i.Meta != nil {
		t.Errorf("%+v", i)
	}
}

// TestTrim: the entries unused for the longest time are removed first.
func TestTrim(t *testing.T) {
	d := Open(t.TempDir())
	for i, key := range []string{"a", "b", "c", "d", "e"} {
		_, err := d.Ensure(t.Context(), "thing", key, progress.Silent, func(_ context.Context, dir string) (any, error) {
			return nil, os.WriteFile(filepath.Join(dir, "file"), []byte(key), 0o600)
		})
		if err != nil {
			t.Fatal(err)
		}
		then := time.Now().Add(time.Duration(i-10) * time.Hour)
		if err := os.Chtimes(d.entryPath("thing", key), then, then); err != nil {
			t.Fatal(err)
		}
	}
	e, err := d.Lookup("thing", "b")
	if err != nil {
		t.Fatal(err)
	}
	e.Used()
	if err := d.Trim("thing", 3); err != nil {
		t.Fatal(err)
	}
	if keys, err := d.Keys("thing"); err != nil || !slices.Equal(keys, []string{"b", "d", "e"}) {
		t.Errorf("%q stay, %v", keys, err)
	}
	if err := errors.Join(d.Trim("thing", 3), d.Trim("other", 1)); err != nil {
		t.Error(err)
	}
	if _, err := d.Lookup("thing", "b"); err != nil {
		t.Error(err)
	}
}
