package initramfs

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/u-root/u-root/pkg/cpio"
)

func modules(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	var paths []string
	for _, n := range []string{"00-zz.ko", "01-aa.ko"} {
		p := filepath.Join(dir, n)
		if err := os.WriteFile(p, []byte("module "+n), 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, p)
	}
	return paths
}

func TestBuild(t *testing.T) {
	mods := modules(t)
	extra := map[string][]byte{"etc/bawn/b": []byte("two"), "etc/bawn/a": []byte("one")}
	var b bytes.Buffer
	if err := Build(&b, mods, []byte("the agent"), extra); err != nil {
		t.Fatal(err)
	}
	type got struct {
		mode    uint64
		content string
	}
	files := map[string]got{}
	var order []string
	r := cpio.Newc.Reader(bytes.NewReader(b.Bytes()))
	if err := cpio.ForEachRecord(r, func(rec cpio.Record) error {
		var c bytes.Buffer
		if rec.ReaderAt != nil {
			buf := make([]byte, rec.FileSize)
			if _, err := rec.ReadAt(buf, 0); err != nil && rec.FileSize > 0 {
				return err
			}
			c.Write(buf)
		}
		files[rec.Name] = got{rec.Mode, c.String()}
		order = append(order, rec.Name)
		if rec.Name == "dev/console" && (rec.Rmajor != 5 || rec.Rminor != 1) {
			t.Errorf("dev/console is %d:%d", rec.Rmajor, rec.Rminor)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want := map[string]got{
		"dev":                       {cpio.S_IFDIR | 0o755, ""},
		"dev/console":               {cpio.S_IFCHR | 0o600, ""},
		"init":                      {cpio.S_IFREG | 0o755, "the agent"},
		"lib":                       {cpio.S_IFDIR | 0o755, ""},
		"lib/modules-boot":          {cpio.S_IFDIR | 0o755, ""},
		"lib/modules-boot/00-zz.ko": {cpio.S_IFREG | 0o644, "module 00-zz.ko"},
		"lib/modules-boot/01-aa.ko": {cpio.S_IFREG | 0o644, "module 01-aa.ko"},
		"etc":                       {cpio.S_IFDIR | 0o755, ""},
		"etc/bawn":                  {cpio.S_IFDIR | 0o755, ""},
		"etc/bawn/a":                {cpio.S_IFREG | 0o644, "one"},
		"etc/bawn/b":                {cpio.S_IFREG | 0o644, "two"},
	}
	for n, w := range want {
		if files[n] != w {
			t.Errorf("%s is %+v, want %+v", n, files[n], w)
		}
	}
	if len(order) != len(want) {
		t.Errorf("archive holds %q", order)
	}
	seen := map[string]bool{".": true}
	for _, n := range order {
		if !seen[filepath.Dir(n)] {
			t.Errorf("%s comes before its folder", n)
		}
		seen[n] = true
	}

	var again bytes.Buffer
	if err := Build(&again, mods, []byte("the agent"), extra); err != nil {
		t.Fatal(err)
	}
	if Digest(b.Bytes()) != Digest(again.Bytes()) {
		t.Error("a second build differs")
	}
}

func TestBuildRefuses(t *testing.T) {
	for _, name := range []string{"../up", "/abs", "a/../b", "."} {
		if err := Build(&bytes.Buffer{}, nil, nil, map[string][]byte{name: nil}); err == nil {
			t.Errorf("extra file %q was packed", name)
		}
	}
	if err := Build(&bytes.Buffer{}, []string{"/nowhere/x.ko"}, nil, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing module: %v", err)
	}
}

func TestCached(t *testing.T) {
	if _, err := Agent(); errors.Is(err, ErrNoAgent) {
		if _, err := Cached(t.Context(), t.TempDir(), nil); !errors.Is(err, ErrNoAgent) {
			t.Fatalf("without an agent: %v", err)
		}
		return
	}
	dir, mods := t.TempDir(), modules(t)
	first, err := Cached(t.Context(), dir, mods)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	// Damage is noticed and mended.
	if err := os.Chmod(first, 0o600); err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(whole)
	bad[len(bad)/2] ^= 1
	if err := os.WriteFile(first, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	second, err := Cached(t.Context(), dir, mods)
	if err != nil {
		t.Fatal(err)
	}
	mended, err := os.ReadFile(second)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(mended, whole) {
		t.Error("the damaged archive was not made again")
	}
	// Another module makes another archive.
	if err := os.WriteFile(mods[0], []byte("newer"), 0o600); err != nil {
		t.Fatal(err)
	}
	if third, err := Cached(t.Context(), dir, mods); err != nil || third == second {
		t.Errorf("with another module: %s, %v", third, err)
	}
}
