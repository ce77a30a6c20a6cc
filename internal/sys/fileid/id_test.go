package fileid

import (
	"os"
	"path/filepath"
	"testing"
)

// TestIDFollowsARename: an identity stays with a directory, and is not that of the next one
// at its place.
func TestIDFollowsARename(t *testing.T) {
	dir := t.TempDir()
	a, b, link := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "link")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(a, 0o700))
	must(os.Symlink(a, link))
	id, err := Of(link)
	must(err)
	at := func(path string) bool {
		t.Helper()
		fi, err := os.Lstat(path)
		must(err)
		return id.At(path, fi)
	}
	if !at(a) || at(link) || at(dir) {
		t.Errorf("%+v: %v %v %v", id, at(a), at(link), at(dir))
	}
	must(os.Rename(a, b))
	must(os.Mkdir(a, 0o700))
	if at(a) || !at(b) {
		t.Errorf("after the rename: %v %v", at(a), at(b))
	}
	if _, err := Of(filepath.Join(dir, "none")); !os.IsNotExist(err) {
		t.Errorf("nothing there: %v", err)
	}
}

func TestSameID(t *testing.T) {
	for name, c := range map[string]struct {
		a, b ID
		want bool
	}{
		"itself":                          {ID{1, 2, 3}, ID{1, 2, 3}, true},
		"the host restarted":              {ID{1, 2, 3}, ID{1, 2, 4}, true},
		"the inode number was used again": {ID{1, 2, 3}, ID{1, 5, 3}, false},
		"another inode":                   {ID{1, 2, 3}, ID{9, 2, 3}, false},
		"no time of birth":                {ID{1, 0, 3}, ID{1, 0, 3}, true},
		"no time of birth, another disk":  {ID{1, 0, 3}, ID{1, 0, 4}, false},
		"only one has a time of birth":    {ID{1, 2, 3}, ID{1, 0, 3}, true},
		"nothing":                         {ID{}, ID{}, false},
	} {
		if c.a.Same(c.b) != c.want || c.b.Same(c.a) != c.want {
			t.Errorf("%s: not %v", name, c.want)
		}
	}
}
