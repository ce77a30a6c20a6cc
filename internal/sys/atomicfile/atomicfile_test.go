package atomicfile

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// alone fails the test if the folder of path holds anything but path.
func alone(t *testing.T, path string) {
	t.Helper()
	des, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, de := range des {
		if de.Name() != filepath.Base(path) {
			t.Errorf("%s was left behind", de.Name())
		}
	}
}

func TestModes(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o77))
	write := func(p string) error { return Write(p, []byte("new")) }
	writeMode := func(p string) error { return WriteMode(p, []byte("new"), 0o444) }
	replace := func(p string) error { return Replace(p, []byte("new"), 0o640) }
	for _, c := range []struct {
		what string
		do   func(string) error
		old  fs.FileMode // 0: no file
		want fs.FileMode
	}{
		{"Write", write, 0, 0o600},
		{"Write over a file", write, 0o644, 0o600},
		{"WriteMode", writeMode, 0, 0o444},
		{"WriteMode over a file", writeMode, 0o600, 0o444},
		{"Replace without a file", replace, 0, 0o640},
		{"Replace keeps the mode", replace, 0o664, 0o664},
		{"Replace of a file that cannot be written", replace, 0o400, 0o400},
	} {
		path := filepath.Join(t.TempDir(), "f")
		if c.old != 0 {
			if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, c.old); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.do(path); err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		b, err := os.ReadFile(path)
		fi, serr := os.Stat(path)
		if err != nil || serr != nil || string(b) != "new" || fi.Mode().Perm() != c.want {
			t.Errorf("%s: %q, %v, %v, %v", c.what, b, err, fi.Mode(), serr)
		}
		alone(t, path)
	}
}

func TestReplaceKeepsTheOwner(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give files away")
	}
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, 1234, 5678); err != nil {
		t.Fatal(err)
	}
	if err := Replace(path, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st := fi.Sys().(*syscall.Stat_t); st.Uid != 1234 || st.Gid != 5678 {
		t.Errorf("the owner is %d:%d", st.Uid, st.Gid)
	}
}

func TestFailureLeavesTheOldFile(t *testing.T) {
	// A limit on the size of files makes the write fail on the way, as a full disk does.
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 1 << 16, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	err := Write(path, make([]byte, 1<<20))
	if rerr := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); rerr != nil {
		t.Fatal(rerr)
	}
	if err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("the error is %v", err)
	}
	if b, err := os.ReadFile(path); string(b) != "old" || err != nil {
		t.Errorf("the file holds %d bytes, %v", len(b), err)
	}
	alone(t, path)
}

func TestNoFolder(t *testing.T) {
	if err := Write(filepath.Join(t.TempDir(), "none", "f"), nil); err == nil {
		t.Error("a file in a folder that does not exist")
	}
}

func TestSymbolicLinkIsReplaced(t *testing.T) {
	dir := t.TempDir()
	target, path := filepath.Join(dir, "target"), filepath.Join(dir, "f")
	if err := os.WriteFile(target, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, write := range []func(string, []byte, fs.FileMode) error{WriteMode, Replace} {
		_ = os.Remove(path)
		if err := os.Symlink("target", path); err != nil {
			t.Fatal(err)
		}
		if err := write(path, []byte("new"), 0o600); err != nil {
			t.Fatal(err)
		}
		fi, err := os.Lstat(path)
		b, rerr := os.ReadFile(target)
		if err != nil || rerr != nil || !fi.Mode().IsRegular() || string(b) != "old" {
			t.Errorf("%v, %v; the target holds %q, %v", fi.Mode(), err, b, rerr)
		}
	}
}

func TestWriteJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := WriteJSON(path, map[string]int{"a": 1}); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); string(b) != "{\n  \"a\": 1\n}\n" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if err := WriteJSON(path, func() {}); err == nil {
		t.Error("a function as JSON")
	}
}
