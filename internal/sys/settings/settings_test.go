package settings

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/sys/fileid"
	"bawn.dev/bawn/internal/sys/proc"
)

// TestAttackSettingsThatAGuestWrites: a file in a shared directory is not read as the user's, nor by a link to it.
func TestAttackSettingsThatAGuestWrites(t *testing.T) {
	home, shared := t.TempDir(), t.TempDir()
	own, evil, link := filepath.Join(home, "own"), filepath.Join(shared, "evil"), filepath.Join(home, "link")
	for _, f := range []string{own, evil} {
		if err := os.WriteFile(f, []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(evil, link); err != nil {
		t.Fatal(err)
	}
	proc.Distrust(func() ([]proc.Writable, error) {
		id, err := fileid.Of(shared)
		return []proc.Writable{{ID: id, Why: "a guest can write to " + shared}}, err
	})
	defer proc.Distrust(nil)
	if text, err := Read(own, 4); string(text) != "text" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	if text, err := Read(os.DevNull, 4); len(text) > 0 || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	for _, f := range []string{evil, link} {
		if text, err := Read(f, 4); text != nil || err == nil || !strings.Contains(err.Error(), "is not used: ") {
			t.Errorf("%s: %q, %v", f, text, err)
		}
	}
	if _, err := Read(filepath.Join(shared, "none"), 4); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
