package engine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/sandbox"
)

// TestAnImageThatCannotBeBuiltFailsAtOnce: where the default image cannot be built, a first start says
// so before it asks a mirror for anything, such as the kernel.
func TestAnImageThatCannotBeBuiltFailsAtOnce(t *testing.T) {
	programs, asked := t.TempDir(), filepath.Join(t.TempDir(), "asked")
	apt := "#!/bin/sh\ncase $* in *update*) : >" + asked + " ;; esac\nexit 100\n"
	if err := os.WriteFile(filepath.Join(programs, "apt-get"), []byte(apt), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", programs) // which has no mmdebstrap
	t.Setenv("BAWN_DEBIAN_MIRROR", "http://localhost:1/debian")
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	e := &Engine{events: func(Event) {}}
	_, err := e.prepare(t.Context(), &sandbox.Spec{}, false)
	if err == nil || !strings.Contains(err.Error(), "apt-get install mmdebstrap") {
		t.Errorf("without mmdebstrap: %v", err)
	}
	if _, err := os.Stat(asked); !errors.Is(err, os.ErrNotExist) {
		t.Error("the mirror was asked first")
	}
}
