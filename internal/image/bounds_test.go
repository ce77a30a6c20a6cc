package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"bawn.dev/bawn/internal/progress"
)

// headers returns n headers of one kind.
func headers(n int, header func(i int) tar.Header) []tar.Header {
	var list []tar.Header
	for i := range n {
		h := header(i)
		h.Format = tar.FormatPAX
		list = append(list, h)
	}
	return list
}

// rawLayer is a layer of any bytes.
func rawLayer(t *testing.T, b []byte) v1.Layer {
	t.Helper()
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// pullLayers makes an image of layers, the lowest first, and pulls it from a layout.
func pullLayers(t *testing.T, s *Store, layers ...v1.Layer) (*Image, error) {
	t.Helper()
	img, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = p.AppendImage(img)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s.Get(t.Context(), "oci:"+dir, progress.Silent)
}

// TestAHostileImageIsRefused is an attack by whoever makes an image, or stands in for its
// registry: what it makes this host keep is bounded, and the error names the bound.
func TestAHostileImageIsRefused(t *testing.T) {
	long := func(n int) string { return strings.Repeat("d/", n) }
	some := layer(t, headers(60, func(i int) tar.Header { return file(fmt.Sprint("f", i), "") })...)
	for name, c := range map[string]struct {
		layers []v1.Layer
		bound  string
	}{
		"links with long names": {[]v1.Layer{layer(t, headers(50, func(i int) tar.Header {
			return tar.Header{Typeflag: tar.TypeLink, Name: fmt.Sprintf("%s%03d", strings.Repeat("n", 250), i), Linkname: "f"}
		})...)}, "bytes in its paths"},
		"links with long targets": {[]v1.Layer{layer(t, headers(50, func(i int) tar.Header {
			return tar.Header{Typeflag: tar.TypeSymlink, Name: fmt.Sprint(i), Linkname: strings.Repeat("t", 250)}
		})...)}, "bytes in its paths"},
		"long names of what is left out": {[]v1.Layer{layer(t, headers(50, func(i int) tar.Header {
			return tar.Header{Typeflag: tar.TypeChar, Name: fmt.Sprintf("%s%03d", strings.Repeat("n", 250), i)}
		})...)}, "bytes in its paths"},
		"long names that remove": {[]v1.Layer{layer(t, headers(50, func(i int) tar.Header {
			return file(fmt.Sprintf(".wh.%s%03d", strings.Repeat("n", 240), i), "")
		})...)}, "bytes in its paths"},
		"extended attributes of all": {[]v1.Layer{layer(t, headers(50, func(i int) tar.Header {
			h := file(fmt.Sprint(i), "")
			h.PAXRecords = map[string]string{"SCHILY.xattr.user.x": strings.Repeat("v", 300)}
			return h
		})...)}, "bytes in its paths"},
		"extended attributes of one": {[]v1.Layer{layer(t, tar.Header{Typeflag: tar.TypeReg, Name: "f", Format: tar.FormatPAX,
			PAXRecords: map[string]string{"SCHILY.xattr.user.x": strings.Repeat("v", 100<<10)}})}, "bytes of extended attributes"},
		"a long path":   {[]v1.Layer{layer(t, tar.Header{Typeflag: tar.TypeReg, Name: strings.Repeat("d", 5000), Format: tar.FormatPAX})}, "bytes in a path"},
		"a long target": {[]v1.Layer{layer(t, tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: strings.Repeat("d", 5000), Format: tar.FormatPAX})}, "bytes in a path"},
		"a deep path":   {[]v1.Layer{layer(t, tar.Header{Typeflag: tar.TypeReg, Name: long(300) + "f", Format: tar.FormatPAX})}, "directories above a file"},
		"directories that are only named": {[]v1.Layer{layer(t, headers(2, func(i int) tar.Header {
			return file(fmt.Sprint(i, "/", long(80), "f"), "")
		})...)}, "entries"},
		"entries":                 {[]v1.Layer{layer(t, headers(101, func(int) tar.Header { return file("f", "") })...)}, "100 entries"},
		"entries of two layers":   {[]v1.Layer{some, some}, "100 entries"},
		"entries that remove":     {[]v1.Layer{layer(t, headers(101, func(i int) tar.Header { return file(fmt.Sprint(".wh.", i), "") })...)}, "100 entries"},
		"entries of the root":     {[]v1.Layer{layer(t, headers(101, func(int) tar.Header { return tar.Header{Typeflag: tar.TypeDir, Name: "./"} })...)}, "100 entries"},
		"a large file":            {[]v1.Layer{layer(t, file("f", strings.Repeat("x", 300<<10)))}, "bytes in a file"},
		"many files":              {[]v1.Layer{layer(t, headers(10, func(i int) tar.Header { return file(fmt.Sprint(i), strings.Repeat("x", 200<<10)) })...)}, "bytes in"},
		"data that is hidden":     {[]v1.Layer{layer(t, headers(10, func(int) tar.Header { return file("f", strings.Repeat("x", 200<<10)) })...)}, "bytes in"},
		"bytes after the end":     {[]v1.Layer{rawLayer(t, make([]byte, 2<<20))}, "bytes in a layer"},
		"layers":                  {[]v1.Layer{some, some, some, some, some, some}, "5 layers"},
		"records of no use alone": {[]v1.Layer{layer(t, tar.Header{Typeflag: tar.TypeReg, Name: "f", Format: tar.FormatPAX, PAXRecords: map[string]string{"ATTACK.x": strings.Repeat("v", 100<<10)}})}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := Open(t.TempDir())
			s.limits.Bytes, s.limits.FileBytes, s.limits.Entries, s.limits.Names, s.limits.Layers = 1<<20, 256<<10, 100, 10_000, 5
			_, err := pullLayers(t, s, c.layers...)
			switch {
			case c.bound == "" && err != nil:
				t.Error(err)
			case c.bound != "" && (!errors.Is(err, errTooLarge) || !strings.Contains(err.Error(), c.bound)):
				t.Errorf("it ended with %v, want the bound of %s", err, c.bound)
			}
		})
	}
	s := Open(t.TempDir())
	s.limits.Config = 10
	if _, err := pullLayers(t, s, some); err == nil || !strings.Contains(err.Error(), "bytes in its configuration") {
		t.Errorf("a large configuration: %v", err)
	}
}

// TestAHostileImageTakesLittleMemory is the attack that took 1.1 GiB for 3 MB: hard links
// with long names, of which every part of the way keeps something.
func TestAHostileImageTakesLittleMemory(t *testing.T) {
	const names = 16 << 20
	s := Open(t.TempDir())
	s.limits.Names = names
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	pr, pw := io.Pipe()
	w := tar.NewWriter(pw)
	most := uint64(0)
	var writing sync.WaitGroup
	writing.Go(func() {
		for i := 0; ; i++ {
			h := tar.Header{Typeflag: tar.TypeLink, Name: fmt.Sprintf("%s%08d", strings.Repeat(strings.Repeat("n", 200)+"/", 19), i), Linkname: "f", Format: tar.FormatPAX}
			if err := w.WriteHeader(&h); err != nil {
				return
			}
			if i%500 == 0 {
				runtime.GC()
				runtime.ReadMemStats(&now)
				most = max(most, now.HeapAlloc)
			}
		}
	})
	err := s.clean(pr, io.Discard)
	pr.Close()
	writing.Wait()
	if !errors.Is(err, errTooLarge) {
		t.Errorf("it ended with %v", err)
	}
	if most > before.HeapAlloc+4*names {
		t.Errorf("%d MiB for %d MiB of names", (most-before.HeapAlloc)>>20, names>>20)
	}
}

// TestLayersAreOneTree: what higher layers remove, replace and keep.
func TestLayersAreOneTree(t *testing.T) {
	dir := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755} }
	i, err := pullLayers(t, Open(t.TempDir()),
		layer(t, dir("a/"), file("a/low", "low"), file("a/gone", "gone"), dir("b/"), file("b/low", "low"), dir("c/"), file("c/low", "low"),
			file("d", "file"), dir("e/"), file("e/low", "low"), file("g/low", "low")),
		layer(t, file("a/.wh.gone", ""), file("b/.wh..wh..opq", ""), file("b/high", "high"), file("c", "now a file"),
			file(".wh.e", ""), file("e/high", "high"), file("./a/low2", "dotted"), file(".wh.g", "")),
		layer(t, file("a/high", "high"), dir("e/"), tar.Header{Typeflag: tar.TypeLink, Name: "hard", Linkname: "a/low"},
			tar.Header{Typeflag: tar.TypeLink, Name: "lost", Linkname: "g/low"}))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/a/low": "low", "/a/low2": "dotted", "/a/high": "high", "/b/high": "high", "/c": "now a file", "/d": "file", "/e/high": "high", "/hard": "low",
	} {
		if got := inspect(t, i.Path, "cat "+path); !strings.HasSuffix(got, want) {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	for _, path := range []string{"/a/gone", "/a/.wh.gone", "/b/low", "/b/.wh..wh..opq", "/e/low", "/g", "/lost"} {
		if got := inspect(t, i.Path, "stat "+path); !strings.Contains(got, "not found") {
			t.Errorf("%s is there: %s", path, got)
		}
	}
}
