package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"bawn.dev/bawn/internal/cache"
	"bawn.dev/bawn/internal/progress"
)

// savedArchive returns testImage as docker save writes it.
func savedArchive(t *testing.T) []byte {
	t.Helper()
	img := testImage(t)
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.Config.WorkingDir = "/srv"
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag("built:1")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "saved.tar")
	if err := tarball.WriteToFile(file, tag, img); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// entries returns an archive of regular files, given as pairs of name and content.
func entries(t *testing.T, pairs ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(pairs); i += 2 {
		err := w.WriteHeader(&tar.Header{Name: pairs[i], Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(pairs[i+1]))})
		if _, werr := io.WriteString(w, pairs[i+1]); errors.Join(err, werr) != nil {
			t.Fatal(err, werr)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestABuiltImageGoesBeforeARegistrys: an image of that name is never fetched, also not when
// the built one is damaged.
func TestABuiltImageGoesBeforeARegistrys(t *testing.T) {
	dir := t.TempDir()
	s := &Store{cache: cache.Open(dir), limits: DefaultLimits}
	ref, err := TagRef("127.0.0.1:1/built:1")
	if err != nil {
		t.Fatal(err)
	}
	made, err := s.SaveArchive(t.Context(), ref, bytes.NewReader(savedArchive(t)), 1<<30, progress.Silent)
	if err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(made.Path), "*.tar")); len(left) > 0 || made.WorkingDir != "/srv" {
		t.Errorf("%+v, left %q", made, left)
	}
	for _, as := range []string{"127.0.0.1:1/built:1", ref, made.Digest} {
		if got, err := s.Get(t.Context(), as, progress.Silent); err != nil || got.Digest != made.Digest {
			t.Errorf("%s: %+v, %v", as, got, err)
		}
	}
	if _, err := s.Refresh(t.Context(), "127.0.0.1:1/built:1", progress.Silent); err == nil || !strings.Contains(err.Error(), "made on this host") {
		t.Error(err)
	}
	if err := os.Chmod(made.Path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(made.Path, 10); err != nil {
		t.Fatal(err)
	}
	var gone *NotMadeError
	if _, err := s.Get(t.Context(), "127.0.0.1:1/built:1", progress.Silent); !errors.As(err, &gone) {
		t.Errorf("a damaged one: %v", err)
	}
	if err := s.Remove("127.0.0.1:1/built:1", nil); err != nil {
		t.Error(err)
	}
	if _, err := s.Get(t.Context(), "127.0.0.1:1/built:1", progress.Silent); err == nil || errors.As(err, &gone) {
		t.Errorf("one that is not there: %v", err)
	}
}

// TestAHostileArchiveIsRefused: what a machine sends in place of docker save's archive.
func TestAHostileArchiveIsRefused(t *testing.T) {
	limits := DefaultLimits
	limits.Config = 1 << 12
	s := &Store{cache: cache.Open(t.TempDir()), limits: limits}
	manifest := func(config string) string { return fmt.Sprintf(`[{"Config":%q,"Layers":["l"]}]`, config) }
	diffs := strings.Repeat(`"sha256:`+strings.Repeat("0", 64)+`",`, 20)
	few := *s
	few.limits.Layers, few.limits.Config = 10, DefaultLimits.Config
	var many []string
	for i := range maxArchiveEntries + 1 {
		many = append(many, fmt.Sprint(i), "")
	}
	good := savedArchive(t)
	for what, c := range map[string]struct {
		store *Store
		in    io.Reader
		most  int64
		say   string
	}{
		"nothing":           {s, strings.NewReader(""), 1 << 30, "has 0 images"},
		"text":              {s, strings.NewReader("docker: not found\n"), 1 << 30, "its archive"},
		"cut off":           {s, bytes.NewReader(good[:len(good)/2]), 1 << 30, "its archive"},
		"the machine ends":  {s, io.MultiReader(bytes.NewReader(good[:2000]), failing{errors.New("the guest is gone")}), 1 << 30, "the guest is gone"},
		"endless":           {s, bytes.NewReader(good), 1000, "more than 1000 bytes in its archive"},
		"many entries":      {s, bytes.NewReader(entries(t, many...)), 1 << 30, "entries in its archive"},
		"a large manifest":  {s, bytes.NewReader(entries(t, manifestFile, strings.Repeat(" ", maxManifest+1))), 1 << 30, "bytes in its manifest"},
		"a broken manifest": {s, bytes.NewReader(entries(t, manifestFile, "{")), 1 << 30, "the manifest"},
		"two images":        {s, bytes.NewReader(entries(t, manifestFile, `[{},{}]`)), 1 << 30, "has 2 images"},
		"a large config":    {s, bytes.NewReader(entries(t, "c", strings.Repeat(" ", 1<<13), manifestFile, manifest("c"))), 1 << 30, "bytes in its configuration"},
		"a second config":   {s, bytes.NewReader(entries(t, "./c", strings.Repeat(" ", 1<<13), "c", "{}", manifestFile, manifest("c"))), 1 << 30, "bytes in its configuration"},
		"no config":         {s, bytes.NewReader(entries(t, manifestFile, manifest("/etc/passwd"))), 1 << 30, "no configuration"},
		"many layers":       {&few, bytes.NewReader(entries(t, "l", "", "c", `{"rootfs":{"diff_ids":[`+strings.TrimSuffix(diffs, ",")+`]}}`, manifestFile, manifest("c"))), 1 << 30, "more than 10 layers"},
		"another machine's": {&few, bytes.NewReader(entries(t, "l", "", "c", `{"os":"plan9","architecture":"`+runtime.GOARCH+`"}`, manifestFile, manifest("c"))), 1 << 30, "is for plan9"},
	} {
		if _, err := c.store.SaveArchive(t.Context(), LocalPrefix+"x", c.in, c.most, progress.Silent); err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v, want it to say %q", what, err, c.say)
		}
	}
	if list, err := s.List(); err != nil || len(list) != 0 {
		t.Errorf("kept: %v, %v", list, err)
	}
}

func TestTagRef(t *testing.T) {
	for tag, want := range map[string]string{
		"web": "local:web", "web:latest": "local:web", "local:web": "local:web", "web:1.2": "local:web:1.2",
		"example.org/team/web:x": "local:example.org/team/web:x", "localhost:5000/web": "local:localhost:5000/web",
	} {
		if got, err := TagRef(tag); err != nil || got != want {
			t.Errorf("%s: %q, %v", tag, got, err)
		}
	}
	for _, tag := range []string{
		"", ":latest", "local:", "Web", "a b", "web:", "web:a/b:c", "../web", "/web", "web@sha256:" + strings.Repeat("0", 64), "sha256:00",
		"oci:web", "docker-archive:web", "local:oci:web", "default", "bawn/default", "bawn/default:1", "-web", "web\n", "web:\x1b[0m", strings.Repeat("a", 300),
	} {
		if got, err := TagRef(tag); err == nil || !strings.Contains(err.Error(), "invalid image name") {
			t.Errorf("%q: %q, %v", tag, got, err)
		}
	}
}
