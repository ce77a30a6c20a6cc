package engine_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/engine"
)

// TestForkNames: what is wrong with a name is said before anything is made. Names that
// are free fail only later, because the snapshot does not exist.
func TestForkNames(t *testing.T) {
	e, home, _ := userPlace(t)
	if err := os.Mkdir(home+"/shop-taken", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		names, says string
		reason      engine.Reason
		copies      bool
	}{
		{"x y", "", engine.SnapshotNotFound, false},
		{"", "", engine.SnapshotNotFound, true},
		{"x y x", "two forks cannot both be named x", "", false},
		{"x shop", "a sandbox named shop exists already", engine.Exists, false},
		{"x Y", "invalid sandbox name", "", false},
		{"taken", "", engine.SnapshotNotFound, false},
		{"x taken", "it would be the copy of the project", engine.ProjectCopyExists, true},
	} {
		made, err := e.Fork(t.Context(), engine.ForkRequest{Sandbox: "shop", Names: strings.Fields(c.names), From: "none", CopyProject: c.copies})
		if err == nil || engine.ReasonOf(err) != c.reason || !strings.Contains(err.Error(), c.says) || len(made) > 0 {
			t.Errorf("%s: %q, %v", c.names, made, err)
		}
	}
	if err := os.Mkdir(home+"/shop-shop-fork", 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := e.Fork(t.Context(), engine.ForkRequest{Sandbox: "shop", From: "none", CopyProject: true})
	var failed *engine.Error
	if !errors.As(err, &failed) || failed.Reason != engine.ProjectCopyExists || failed.Path != home+"/shop-shop-fork" {
		t.Errorf("the default name: %v", err)
	}
}
