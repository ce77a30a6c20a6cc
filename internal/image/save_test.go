package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/cache"
	"bawn.dev/bawn/internal/progress"
)

// TestSave: a tree becomes an image under its name, and nothing does that is too
// large, empty, cut off or no tar stream.
func TestSave(t *testing.T) {
	s := &Store{cache: cache.Open(t.TempDir()), limits: DefaultLimits}
	var tree bytes.Buffer
	w := tar.NewWriter(&tree)
	text := strings.Repeat("x", 1<<20)
	err := errors.Join(
		w.WriteHeader(&tar.Header{Name: "./a", Typeflag: tar.TypeDir, Mode: 0o755}),
		w.WriteHeader(&tar.Header{Name: "./a/file", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))}))
	if err == nil {
		_, err = io.WriteString(w, text)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("the guest is gone")
	for name, c := range map[string]struct {
		in   io.Reader
		most int64
		say  string
	}{
		"A/b":   {&tree, 1 << 30, "invalid image name"},
		"empty": {strings.NewReader(""), 1 << 30, "no files"},
		"text":  {strings.NewReader("tar: not found\n"), 1 << 30, "EOF"},
		"large": {bytes.NewReader(tree.Bytes()), 1 << 19, "larger"},
		"cut":   {io.MultiReader(bytes.NewReader(tree.Bytes()[:5000]), failing{broken}), 1 << 30, "the guest is gone"},
	} {
		if _, err := s.Save(t.Context(), name, c.in, nil, c.most, progress.Silent); err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v, want it to say %q", name, err, c.say)
		}
	}
	if list, err := s.List(); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	made, err := s.Save(t.Context(), "good", &tree, []string{"A=b"}, 1<<30, progress.Silent)
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Get(t.Context(), LocalPrefix+"good", progress.Silent)
	if err != nil || got.Digest != made.Digest || len(got.Env) != 1 || got.Created.IsZero() {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := s.Get(t.Context(), LocalPrefix+"bad", progress.Silent); err == nil || !strings.Contains(err.Error(), "there is no image local:bad") {
		t.Error(err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
