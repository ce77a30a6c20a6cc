package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"bawn.dev/bawn/internal/progress"
	"bawn.dev/bawn/internal/sys/fileid"
	"bawn.dev/bawn/internal/sys/proc"
)

// layoutOf writes testImage as an OCI image layout, and returns its manifest.
func layoutOf(t *testing.T, dir string) *v1.Manifest {
	t.Helper()
	img := testImage(t)
	p, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = p.AppendImage(img)
	}
	if err != nil {
		t.Fatal(err)
	}
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestAttackLayouts: a layout in a project, whose blobs are links to files of the host, of another size than they say,
// of another content, or no files.
func TestAttackLayouts(t *testing.T) {
	backup := filepath.Join(t.TempDir(), "backup.tar.gz") // of the person, outside of the project
	l, err := testImage(t).Layers()
	if err != nil {
		t.Fatal(err)
	}
	stream, err := l[0].Compressed()
	if err != nil {
		t.Fatal(err)
	}
	private, err := io.ReadAll(stream)
	if err := errors.Join(err, os.WriteFile(backup, private, 0o600)); err != nil {
		t.Fatal(err)
	}
	sparse := func(path string, size int64) error {
		return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size))
	}
	for name, c := range map[string]struct {
		change func(dir string, blob func(v1.Hash) string, m *v1.Manifest) error
		want   string
	}{
		"as it is": {func(string, func(v1.Hash) string, *v1.Manifest) error { return nil }, ""},
		"a layer that is a link": {func(_ string, blob func(v1.Hash) string, m *v1.Manifest) error {
			return errors.Join(os.Remove(blob(m.Layers[0].Digest)), os.Symlink(backup, blob(m.Layers[0].Digest)))
		}, "too many levels of symbolic links"},
		"blobs behind a link": {func(dir string, _ func(v1.Hash) string, _ *v1.Manifest) error {
			away := filepath.Join(filepath.Dir(backup), "blobs")
			return errors.Join(os.Rename(filepath.Join(dir, "blobs"), away), os.Symlink(away, filepath.Join(dir, "blobs")))
		}, "too many levels of symbolic links"},
		"another layer": {func(_ string, blob func(v1.Hash) string, m *v1.Manifest) error {
			return errors.Join(os.Chmod(blob(m.Layers[1].Digest), 0o600), os.WriteFile(blob(m.Layers[1].Digest), private, 0o600))
		}, "has another digest"},
		"another configuration": {func(_ string, blob func(v1.Hash) string, m *v1.Manifest) error {
			return errors.Join(os.Chmod(blob(m.Config.Digest), 0o600), os.WriteFile(blob(m.Config.Digest), []byte("{}"), 0o600))
		}, "has another digest"},
		"a large configuration": {func(_ string, blob func(v1.Hash) string, m *v1.Manifest) error {
			return errors.Join(os.Chmod(blob(m.Config.Digest), 0o600), sparse(blob(m.Config.Digest), 1<<40))
		}, "bytes in its configuration"},
		"a layer that is a pipe": {func(_ string, blob func(v1.Hash) string, m *v1.Manifest) error {
			return errors.Join(os.Remove(blob(m.Layers[0].Digest)), syscall.Mkfifo(blob(m.Layers[0].Digest), 0o600))
		}, "not a regular file"},
		"a large index": {func(dir string, _ func(v1.Hash) string, _ *v1.Manifest) error {
			return sparse(filepath.Join(dir, indexFile), 1<<40)
		}, "bytes in its index"},
		"an index that is a link": {func(dir string, _ func(v1.Hash) string, _ *v1.Manifest) error {
			index := filepath.Join(dir, indexFile)
			return errors.Join(os.Remove(index), os.Symlink("/etc/passwd", index))
		}, "too many levels of symbolic links"},
		"indexes in each other": {func(dir string, blob func(v1.Hash) string, _ *v1.Manifest) error {
			text := []byte(`{}`)
			for range maxNesting + 3 {
				sum, _, err := v1.SHA256(bytes.NewReader(text))
				if err == nil {
					err = os.WriteFile(blob(sum), text, 0o600)
				}
				if err == nil {
					text, err = json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{{MediaType: types.OCIImageIndex, Digest: sum}}})
				}
				if err != nil {
					return err
				}
			}
			return os.WriteFile(filepath.Join(dir, indexFile), text, 0o600)
		}, "it has no image for"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			m := layoutOf(t, dir)
			blob := func(h v1.Hash) string { return filepath.Join(dir, "blobs", h.Algorithm, h.Hex) }
			if err := c.change(dir, blob, m); err != nil {
				t.Fatal(err)
			}
			_, err := Open(t.TempDir()).Get(t.Context(), layoutPrefix+dir, progress.Silent)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// TestAttackArchives: an archive in a project, which is named for a new sandbox.
func TestAttackArchives(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	config := func(size int) []byte {
		return entries(t, "c", strings.Repeat(" ", size), manifestFile, `[{"Config":"c","Layers":["l"]}]`)
	}
	s := Open(t.TempDir())
	s.limits.Config, s.limits.Bytes, s.limits.Layers = 1<<12, 1<<20, 20
	layers := func(name string, times int) []byte {
		return entries(t, "l", strings.Repeat("x", 100<<10), "c", "{}", manifestFile, fmt.Sprintf(`[{"Config":"c","Layers":[%s]}]`, strings.TrimSuffix(strings.Repeat(`"`+name+`",`, times), ",")))
	}
	var linked bytes.Buffer
	w := tar.NewWriter(&linked)
	if err := errors.Join(w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "to", Linkname: "l"}), w.Flush()); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"good": savedArchive(t), "config": config(1 << 13), "manifest": entries(t, manifestFile, strings.Repeat(" ", maxManifest+1)),
		"layers": layers("l", 21), "often": layers("l", 11), "links": append(linked.Bytes(), layers("to", 11)...)} {
		if err := os.WriteFile(at(name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(syscall.Mkfifo(at("pipe"), 0o600), os.Symlink("good", at("link"))); err != nil {
		t.Fatal(err)
	}
	check := func(want map[string]string) {
		t.Helper()
		for name, say := range want {
			_, err := s.open(t.Context(), archivePrefix+at(name))
			if (err == nil) != (say == "") || err != nil && !strings.Contains(err.Error(), say) {
				t.Errorf("%s: %v, want %q", name, err, say)
			}
		}
	}
	check(map[string]string{
		"good": "", "link": "", "pipe": "not a regular file", "config": "bytes in its configuration", "manifest": "bytes in its manifest",
		"layers": "20 layers", "often": "bytes in its layers", "links": "bytes in its layers",
	})
	id, err := fileid.Of(dir)
	if err != nil {
		t.Fatal(err)
	}
	proc.Distrust(func() ([]proc.Writable, error) { return []proc.Writable{{ID: id, Why: "a guest can write to it"}}, nil })
	t.Cleanup(func() { proc.Distrust(nil) })
	check(map[string]string{"good": "", "link": "write the path that you mean"})
	if err := os.Rename(at("link"), at("layout")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.open(t.Context(), layoutPrefix+at("layout")); err == nil || !strings.Contains(err.Error(), "write the path that you mean") {
		t.Error(err)
	}
}
