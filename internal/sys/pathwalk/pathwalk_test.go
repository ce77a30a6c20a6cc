package pathwalk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestWalk(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := func(p string) string { return filepath.Join(dir, p) }
	if err := errors.Join(
		os.MkdirAll(at("real/sub"), 0o755), os.WriteFile(at("real/sub/file"), nil, 0o600),
		os.Symlink("real", at("link")), os.Symlink(at("link/sub"), at("far")), os.Symlink("gone/file", at("dangling")),
		os.Symlink("loop", at("loop")),
	); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, end string
		seen      []string // below dir
		err       error
	}{
		{"real/sub/file", "real/sub/file", []string{"real", "real/sub", "real/sub/file"}, nil},
		{"link/sub/file", "real/sub/file", []string{"link", "real", "real/sub", "real/sub/file"}, nil},
		{"far/file", "real/sub/file", []string{"far", "link", "real", "real/sub", "real/sub/file"}, nil},
		{"far/../none/more", "real/none/more", []string{"far", "link", "real", "real/sub", "real"}, fs.ErrNotExist},
		{"dangling", "gone/file", []string{"dangling"}, fs.ErrNotExist},
		{"loop", "", nil, syscall.ELOOP},
	} {
		var seen []string
		end, err := Walk(dir+"/"+c.path, func(p string, _ fs.FileInfo) error {
			if rest, below := strings.CutPrefix(p, dir+"/"); below {
				seen = append(seen, rest)
			}
			return nil
		})
		if !errors.Is(err, c.err) || c.end != "" && (end != at(c.end) || !slices.Equal(seen, c.seen)) {
			t.Errorf("%s: %s, %v, %v", c.path, end, err, seen)
		}
	}
	stop := errors.New("stop")
	if end, err := Walk(at("far/file"), func(p string, _ fs.FileInfo) error {
		if p == at("link") {
			return stop
		}
		return nil
	}); !errors.Is(err, stop) || end != at("link") {
		t.Error(end, err)
	}
}

// TestEnter ends at the first directory that is asked for, and leaves what comes after it as it is.
func TestEnter(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := func(p string) string { return filepath.Join(dir, p) }
	if err := errors.Join(
		os.MkdirAll(at("share/sub"), 0o755), os.WriteFile(at("file"), nil, 0o600), os.Mkdir(at("beside"), 0o755),
		os.Symlink("share/link/x", at("in")), os.Symlink("/etc", at("share/link")), os.Symlink("share/../beside", at("past")),
		os.Symlink("share", at("whole")), os.Symlink("loop", at("loop")),
	); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"share": ".", "whole": ".", "share/sub/a": "sub/a", "in": "link/x", "in/../y": "link/x/../y", "share/sub/../../file": "sub/../../file",
		"past": "", "past/f": "", "beside": "", "file": "", "none/x": "",
	} {
		got, rest, entered, err := Enter(dir+"/"+path, func(p string, _ fs.FileInfo) bool { return p == at("share") })
		if err != nil || entered != (want != "") || rest != want || entered && got != at("share") {
			t.Errorf("%s: %q, %q, %v, %v", path, got, rest, entered, err)
		}
	}
	if _, _, _, err := Enter(at("loop"), func(string, fs.FileInfo) bool { return false }); !errors.Is(err, syscall.ELOOP) {
		t.Error(err)
	}
}
