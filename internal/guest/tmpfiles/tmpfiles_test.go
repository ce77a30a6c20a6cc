package tmpfiles

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// image makes a file system with the fragments.
func image(t *testing.T, fragments map[string]string) string {
	t.Helper()
	root := t.TempDir()
	put := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(root+path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(root+path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("/etc/passwd", fmt.Sprintf("root:x:0:0::/:\nme:x:%d:%d::/:\n", os.Getuid(), os.Getgid()))
	put("/etc/group", fmt.Sprintf("root:x:0:\nours:x:%d:\n", os.Getgid()))
	for path, text := range fragments {
		put(path, text)
	}
	return root
}

func TestLines(t *testing.T) {
	for _, c := range []struct {
		line, path string
		mode       fs.FileMode // type and permissions; 0: nothing is made
		text       string      // contents, or a link's target
	}{
		{"d /run/screen 1777 me ours", "/run/screen", fs.ModeDir | fs.ModeSticky | 0o777, ""},
		{"D! /var/run/old 2750 me ours -", "/run/old", fs.ModeDir | fs.ModeSetgid | 0o750, ""},
		{"q %t/a/b - me ours 10d", "/run/a/b", fs.ModeDir | 0o755, ""},
		{`d "/run/with blank" 0700 me ours`, "/run/with blank", fs.ModeDir | 0o700, ""},
		{"d /run/100%% 0700 me ours", "/run/100%", fs.ModeDir | 0o700, ""},
		{`f /run/f 0640 me ours - a\nb c`, "/run/f", 0o640, "a\nb c"},
		{"f+ /run/g - me ours", "/run/g", 0o644, ""},
		{"L /run/l - me ours - ../etc/target", "/run/l", fs.ModeSymlink, "../etc/target"},
		{"L? /run/l - me ours - /none", "/run/l", 0, ""},
		{"p /run/p 0600 me ours", "/run/p", fs.ModeNamedPipe | 0o600, ""},
		{"d /run/systemd/system 0755 me ours", "/run/systemd", 0, ""},
		{"F! /run/nologin 0644 me ours - booting", "/run/nologin", 0, ""},
		{"d /run/../etc/x 0755 me ours", "/etc/x", 0, ""},
		{"d /etc/y 0755 me ours", "/etc/y", 0, ""},
		{"d /run 0777 me ours", "/run", 0, ""},
		{"d run/z 0755 me ours", "/run/z", 0, ""},
		{"d /run/%b 0755 me ours", "/run/%b", 0, ""},
		{"d /run/x% 0755 me ours", "/run/x%", 0, ""},
		{"d /run/m 99 me ours", "/run/m", 0, ""},
		{"# d /run/c", "/run/c", 0, ""},
		{`d "/run/q`, "/run/q", 0, ""},
		{"R /run/r", "/run/r", 0, ""},
		{"d", "/run/d", 0, ""},
		{"d /run/n 0755 nobody-here ours", "/run/n", 0, ""},
	} {
		root := image(t, map[string]string{"/usr/lib/tmpfiles.d/a.conf": c.line + "\n"})
		for range 2 {
			Apply(root)
			fi, err := os.Lstat(root + c.path)
			if c.mode == 0 {
				if err == nil {
					t.Errorf("%s: made %v", c.line, fi.Mode())
				}
				continue
			}
			if err != nil || fi.Mode()&^0o777 != c.mode&^0o777 || c.mode&fs.ModeSymlink == 0 && fi.Mode() != c.mode {
				t.Errorf("%s: %v, %v; want %v", c.line, fi, err, c.mode)
				continue
			}
			text := ""
			switch {
			case c.mode.IsRegular():
				b, err := os.ReadFile(root + c.path)
				if text = string(b); err != nil {
					t.Error(err)
				}
			case c.mode&fs.ModeSymlink != 0:
				text, _ = os.Readlink(root + c.path)
			}
			if text != c.text {
				t.Errorf("%s: %q", c.line, text)
			}
		}
	}
}

// TestPrecedence: a file of /etc stands for the one of the same name, in whole, and a link
// to /dev/null for none.
func TestPrecedence(t *testing.T) {
	root := image(t, map[string]string{
		"/usr/lib/tmpfiles.d/a.conf": "d /run/vendor - me ours\n",
		"/etc/tmpfiles.d/a.conf":     "d /run/local - me ours\n",
		"/usr/lib/tmpfiles.d/b.conf": "d /run/masked - me ours\n",
		"/usr/lib/tmpfiles.d/c.txt":  "d /run/text - me ours\n",
		"/usr/lib/tmpfiles.d/d.conf": "d /run/bad - nobody-here ours\nd /run/good - me ours\n",
	})
	if err := os.Symlink("/dev/null", root+"/etc/tmpfiles.d/b.conf"); err != nil {
		t.Fatal(err)
	}
	if failed := Apply(root); len(failed) != 1 || !strings.Contains(failed[0].Error(), "nobody-here") {
		t.Errorf("failures: %v", failed)
	}
	entries, err := os.ReadDir(root + "/run")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); got != "good local" {
		t.Errorf("/run has %s", got)
	}
}

// TestLinkIsNotFollowed: a line changes what a link of somebody else's leads to neither in
// contents nor in mode.
func TestLinkIsNotFollowed(t *testing.T) {
	root := image(t, map[string]string{
		"/usr/lib/tmpfiles.d/a.conf": "d /run/d 0777 me ours\nf /run/f 0777 me ours - new\nF /run/g 0777 me ours - new\n",
		"/etc/secret":                "old", "/etc/dir/x": "", "/run/x": "",
	})
	for link, target := range map[string]string{"d": "/etc/dir", "f": "/etc/secret", "g": "/etc/secret"} {
		if err := os.Symlink(root+target, root+"/run/"+link); err != nil {
			t.Fatal(err)
		}
	}
	Apply(root)
	b, err := os.ReadFile(root + "/etc/secret")
	file, err1 := os.Stat(root + "/etc/secret")
	dir, err2 := os.Stat(root + "/etc/dir")
	if err != nil || err1 != nil || err2 != nil || string(b) != "old" || file.Mode().Perm() != 0o644 || dir.Mode().Perm() != 0o755 {
		t.Errorf("%q, %v, %v; %v %v %v", b, file, dir, err, err1, err2)
	}
}
