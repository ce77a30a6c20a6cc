package mounttest

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLoop: a clone shares all its blocks, a copy none, and ext4 has no clones. Nothing stays
// attached.
func TestLoop(t *testing.T) {
	if !Own(t) {
		return
	}
	for _, typ := range append([]string{"ext4"}, Cloning...) {
		t.Run(typ, func(t *testing.T) {
			var image string
			t.Run("mounted", func(t *testing.T) {
				image = filepath.Dir(t.TempDir())
				dir := Loop(t, typ)
				if Loops(t, image) == "" {
					t.Error("it is not known to be attached")
				}
				one, two, three := filepath.Join(dir, "one"), filepath.Join(dir, "two"), filepath.Join(dir, "three")
				data := bytes.Repeat([]byte("data"), 1<<18)
				if err := errors.Join(os.WriteFile(one, data, 0o600), os.WriteFile(two, nil, 0o600), os.WriteFile(three, data, 0o600)); err != nil {
					t.Fatal(err)
				}
				if shared, all := Shared(t, three); shared != 0 || all < 1<<20 {
					t.Errorf("a copy shares %d bytes of %d", shared, all)
				}
				cloned := clone(t, two, one)
				if typ == "ext4" {
					if !errors.Is(cloned, unix.EOPNOTSUPP) {
						t.Errorf("a clone on ext4: %v", cloned)
					}
					return
				}
				if shared, all := Shared(t, two); cloned != nil || shared != all || all < 1<<20 {
					t.Errorf("a clone shares %d bytes of %d, %v", shared, all, cloned)
				}
			})
			for range 50 { // the kernel ends the mount a moment after it is detached
				if Loops(t, image) == "" {
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
			t.Errorf("still attached: %s", Loops(t, image))
		})
	}
}

func clone(t *testing.T, to, from string) error {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	return unix.IoctlFileClone(int(out.Fd()), int(in.Fd()))
}
