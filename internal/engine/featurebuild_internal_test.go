package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/devcontainer"
	"bawn.dev/bawn/internal/feature"
	"bawn.dev/bawn/internal/share/guard"
)

// TestAttackAFeatureWithHiddenFiles: a guest that names a folder with files that are hidden from it as a feature
// does not get them in its image, by the rules of bawn, of a person, or of the way to the folder.
func TestAttackAFeatureWithHiddenFiles(t *testing.T) {
	b := buildPlace(t)
	for _, name := range []string{"own/install.sh", "own/notes", "env/.env", "env/install.sh", "keys/deep/.aws/x", "secret/f/install.sh"} {
		at := filepath.Join(b.dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, at, "1")
	}
	root, err := os.OpenRoot(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, c := range []struct {
		folder string
		o      guard.Options
		hidden string // empty: it is taken
	}{
		{"own", guard.Options{}, ""},
		{"own", guard.Options{Hide: []string{"own/notes"}}, "own/notes"},
		{"env", guard.Options{}, "env/.env"},
		{"env", guard.Options{Show: []string{".env"}}, ""},
		{"keys", guard.Options{}, "keys/deep/.aws/x"},
		{"secret/f", guard.Options{Hide: []string{"/secret/"}}, "secret/f/install.sh"},
		{".", guard.Options{}, "env/.env"},
	} {
		contents, err := feature.Read(root, c.folder)
		if err != nil {
			t.Fatal(err)
		}
		f := &featureBuild{builtImage: b.builtImage, patterns: c.o, features: []devcontainer.Installed{{ID: "./" + c.folder, Path: c.folder, Digest: contents.Digest()}}}
		got, err := f.contents(t.Context())
		switch {
		case c.hidden == "" && (err != nil || len(got) != 1):
			t.Errorf("%s, %+v: %v", c.folder, c.o, err)
		case c.hidden != "" && (err == nil || !strings.Contains(err.Error(), `"`+c.hidden+`", which is hidden`)):
			t.Errorf("%s, %+v: %v, want %s", c.folder, c.o, err, c.hidden)
		}
	}
}
