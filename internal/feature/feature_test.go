package feature

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bawn.dev/bawn/internal/sys/regular/regulartest"
)

// archive makes an archive of entries, each with its content in Uname.
func archive(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		content := h.Uname
		h.Uname, h.Size = "", int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func entry(name, content string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Uname: content}
}

func compressed(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestUnpack: an archive as tools write it, compressed or not, and the folder that it was made of have the
// same contents.
func TestUnpack(t *testing.T) {
	script := entry("./install.sh", "#!/bin/sh\n")
	script.Mode = 0o755
	b := archive(t, tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o700}, script, entry("./sub/a", "1"), entry("./devcontainer-feature.json", "{}"))
	dir := t.TempDir()
	for name, content := range map[string]string{"f/install.sh": "#!/bin/sh\n", "f/sub/a": "1", "f/devcontainer-feature.json": "{}"} {
		write(t, filepath.Join(dir, name), content)
	}
	if err := os.Chmod(filepath.Join(dir, "f/install.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	plain, err := Unpack(b)
	if err != nil {
		t.Fatal(err)
	}
	packed, err := Unpack(compressed(t, b))
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	local, err := Read(root, "f")
	if err != nil {
		t.Fatal(err)
	}
	again, err := Unpack(plain.Tar())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*Contents{"compressed": packed, "of a folder": local, "again": again} {
		if c.Digest() != plain.Digest() {
			t.Errorf("%s: another digest", name)
		}
		if text, ok := c.File("sub/a"); !ok || string(text) != "1" {
			t.Errorf("%s: %q", name, text)
		}
		if _, ok := c.File("sub"); ok {
			t.Errorf("%s: a directory is a file", name)
		}
	}
	write(t, filepath.Join(dir, "f/sub/a"), "2")
	if changed, err := Read(root, "f"); err != nil || changed.Digest() == local.Digest() {
		t.Errorf("a change: %v", err)
	}
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestHostileArchives: nothing that leads out of the feature, that is no plain file, or that grows.
func TestHostileArchives(t *testing.T) {
	link := func(kind byte, name, to string) tar.Header {
		return tar.Header{Typeflag: kind, Name: name, Linkname: to, Mode: 0o777}
	}
	var many []tar.Header
	for i := range maxEntries + 1 {
		many = append(many, entry(strings.Repeat("x", 1+i%400)+string(rune('a'+i/400)), ""))
	}
	for name, c := range map[string]struct {
		archive []byte
		want    string
	}{
		"a path upwards":        {archive(t, entry("../escape", "x")), "does not lie in it"},
		"a path upwards inside": {archive(t, entry("a/../../escape", "x")), "does not lie in it"},
		"an absolute path":      {archive(t, entry("/etc/passwd", "x")), "does not lie in it"},
		"a symbolic link":       {archive(t, link(tar.TypeSymlink, "install.sh", "/etc/passwd")), "neither a regular file"},
		"a hard link":           {archive(t, link(tar.TypeLink, "install.sh", "/etc/passwd")), "neither a regular file"},
		"a device":              {archive(t, link(tar.TypeChar, "null", "")), "neither a regular file"},
		"a pipe":                {archive(t, link(tar.TypeFifo, "pipe", "")), "neither a regular file"},
		"a file twice":          {archive(t, entry("a", "1"), entry("./a", "2")), "is there twice"},
		"a file in a file":      {archive(t, entry("a/b", "1"), entry("a", "2")), "lies in a file"},
		"a file over one":       {archive(t, entry("a", "1"), entry("a/b", "2")), "lies in a file"},
		"too many files":        {archive(t, many...), "more than 4096 files"},
		"a long path":           {archive(t, entry(strings.Repeat("x", maxPath+1), "")), "a path of more than"},
		"a deep path":           {archive(t, entry(strings.Repeat("x/", maxDepth)+"x", "")), "a path of more than"},
		"a bomb": {compressed(t, archive(t, entry("a", strings.Repeat("\x00", maxBytes)), entry("b", "x"))),
			"its files have more than"},
		"a bomb after the end": {compressed(t, append(archive(t, entry("a", "")), make([]byte, 1<<20)...)), ""},
		"no archive":           {[]byte("<html>"), "its archive"},
		"cut":                  {archive(t, entry("a", strings.Repeat("x", 2000)))[:1000], "its archive"},
		"no compression":       {[]byte{0x1f, 0x8b, 0xff}, "its archive"},
	} {
		contents, err := Unpack(c.archive)
		if c.want == "" && err == nil {
			continue
		}
		if contents != nil || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

// TestHostileFolders: the guest writes them.
func TestHostileFolders(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	outside := filepath.Join(t.TempDir(), "secret")
	write(t, outside, "secret")
	for name, make := range map[string]func(string) error{
		"link":    func(n string) error { return os.Symlink(outside, n) },
		"linkdir": func(n string) error { return os.Symlink(filepath.Dir(outside), n) },
		"pipe":    func(n string) error { return syscall.Mkfifo(n, 0o644) },
		"big": func(n string) error {
			f, err := os.Create(n)
			if err == nil {
				err = f.Truncate(maxBytes + 1)
				f.Close()
			}
			return err
		},
		"deep": func(n string) error { return os.MkdirAll(filepath.Join(n, strings.Repeat("d/", maxDepth+1)), 0o755) },
	} {
		write(t, at(name+"/install.sh"), "")
		if err := make(at(name + "/x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink(filepath.Dir(outside), at("away")), os.Symlink("link", at("inside"))); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for name, want := range map[string]string{
		"link": "neither a regular file", "linkdir": "neither a regular file", "pipe": "neither a regular file",
		"big": "more than 33554432 bytes", "deep": "a path of more than", "away": "is a symbolic link", "inside": "is a symbolic link", "away/x": "is a symbolic link", "none": "no such file", "../x": "does not lie in the project",
	} {
		if c, err := Read(root, name); c != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
}

// FuzzUnpack: what is taken stays within limits and keeps its digest.
func FuzzUnpack(f *testing.F) {
	for _, name := range []string{"install.sh", "a/b", "../x"} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		_ = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: 1})
		_, _ = w.Write([]byte("x"))
		_ = w.Close()
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Unpack(b)
		if err != nil {
			return
		}
		again, err := Unpack(c.Tar())
		if err != nil || again.Digest() != c.Digest() {
			t.Fatalf("%v", err)
		}
		for name := range c.files {
			if !filepath.IsLocal(name) || len(name) > maxPath {
				t.Fatalf("%q", name)
			}
		}
	})
}

// TestAttackLinksDuringTheRead: while the folder of a feature is read, the guest exchanges a file of it for a link to
// a hidden file of the project, and a directory for a link to a hidden one, again and again.
func TestAttackLinksDuringTheRead(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write(t, at("f/install.sh"), "#!/bin/sh\n")
	write(t, at("f/data"), "plain")
	write(t, at("f/sub/key"), "plain")
	write(t, at("hidden/key"), "secret")
	if err := errors.Join(os.Symlink("../hidden/key", at("link")), os.Symlink("../hidden", at("links"))); err != nil {
		t.Fatal(err)
	}
	regulartest.Exchange(t, [2]string{at("f/data"), at("link")}, [2]string{at("f/sub"), at("links")})
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	whole := 0
	for range 20_000 {
		c, err := Read(root, "f")
		if err != nil {
			continue // a link was seen, or an exchange
		}
		whole++
		for _, name := range c.Names() {
			if text, _ := c.File(name); strings.Contains(string(text), "secret") {
				t.Fatalf("%s has what is hidden", name)
			}
		}
	}
	if whole == 0 {
		t.Error("the folder was never read")
	}
}
