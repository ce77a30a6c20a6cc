package snapshot

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// FuzzMeta opens descriptions of snapshots: one that is not whole is ErrDamaged, and no name in
// it leads out of the snapshot's folder.
func FuzzMeta(f *testing.F) {
	for _, s := range []string{
		`{"format":2,"kind":"k","spec":{"name":"a","dir":"/a"},"files":{"machine.ram":{"size":3,"crc32c":1},"machine.state":{"size":0}}}`,
		`{"format":2,"spec":{},"files":{"../../stolen":{"size":6}}}`, `{"format":2,"spec":null}`, `{"format":2,"spec":{},"files":{"":{}}}`,
		`{"format":2,"spec":{},"disk":{"size":-1,"crc32c":4294967295},"shares":[{"plan":null}],"network":1}`, `{"format":1e9}`, `null`, `[]`, ``,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		top := t.TempDir()
		folder := filepath.Join(top, "snapshots")
		path := filepath.Join(folder, "one")
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{filepath.Join(path, ramFile), filepath.Join(path, stateFile), filepath.Join(path, diskFile), filepath.Join(top, "stolen")} {
			if err := os.WriteFile(name, []byte("secret"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(path, metaFile), b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(path)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("%v", err)
			}
			return
		}
		if s.Meta.Spec == nil {
			t.Fatal("no spec")
		}
		for name := range s.Meta.Files {
			if name != ramFile && name != stateFile {
				t.Errorf("a file %q", name)
			}
		}
		for _, err := range []error{s.Probe(), s.Verify(t.Context())} {
			if err != nil && !errors.Is(err, ErrDamaged) {
				t.Errorf("%v", err)
			}
		}
		if state, err := s.State(); err == nil {
			state.Close()
		}
		_ = s.Clone(filepath.Join(folder, "two"))
		for _, dir := range []string{top, folder} {
			list, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range list {
				if n := e.Name(); n != "snapshots" && n != "stolen" && n != "one" && n != "two" {
					t.Errorf("%s appeared in %s", n, dir)
				}
			}
		}
	})
}
