package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"bawn.dev/bawn/internal/progress"
)

func layer(t *testing.T, headers ...tar.Header) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		content := h.Uname
		h.Uname = ""
		h.Size = int64(len(content))
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// file has its content in Uname, for brevity.
func file(name, content string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Uname: content}
}

func testImage(t *testing.T) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(empty.Image,
		layer(t, tar.Header{Typeflag: tar.TypeDir, Name: "etc/", Mode: 0o755}, file("etc/keep", "keep"), file("etc/gone", "gone"), file("etc/over", "old"),
			tar.Header{Typeflag: tar.TypeSymlink, Name: "link", Linkname: "../../etc/keep"}, file("../../../escape", "inside")),
		layer(t, file("etc/.wh.gone", ""), file("etc/over", "new"), tar.Header{Typeflag: tar.TypeLink, Name: "hard", Linkname: "etc/keep"},
			tar.Header{Typeflag: tar.TypeChar, Name: "dev/mem", Devmajor: 1, Devminor: 1}))
	if err != nil {
		t.Fatal(err)
	}
	cf, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cf = cf.DeepCopy()
	cf.Architecture, cf.OS = platform().Architecture, "linux"
	cf.Config.Env = []string{"A=b"}
	if img, err = mutate.ConfigFile(img, cf); err != nil {
		t.Fatal(err)
	}
	return img
}

// inspect reads a file of the ext4 image with e2fsprogs.
func inspect(t *testing.T, image, command string) string {
	t.Helper()
	out, err := exec.Command("/sbin/debugfs", "-R", command, image).CombinedOutput()
	if err != nil {
		t.Fatalf("debugfs: %v: %s", err, out)
	}
	return string(out)
}

func TestPull(t *testing.T) {
	img := testImage(t)
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	ref := strings.TrimPrefix(server.URL, "http://") + "/some/image:tag"
	n, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(n, img); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "saved.tar")
	tag, err := name.NewTag("some/image:tag")
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(archive, tag, img); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AppendImage(img); err != nil {
		t.Fatal(err)
	}
	s := Open(t.TempDir())
	digest := ""
	for _, r := range []string{ref, "docker-archive:" + archive, "oci:" + dir} {
		i, err := s.Get(t.Context(), r, progress.Silent)
		if err != nil {
			t.Fatalf("%s: %v", r, err)
		}
		if digest != "" && i.Digest != digest || len(i.Env) != 1 {
			t.Errorf("%s: %+v, not %s", r, i, digest)
		}
		digest = i.Digest
		for path, want := range map[string]string{"/etc/keep": "keep", "/etc/over": "new", "/hard": "keep"} {
			if got := inspect(t, i.Path, "cat "+path); !strings.HasSuffix(got, want) {
				t.Errorf("%s: %q, want %q", path, got, want)
			}
		}
		for _, path := range []string{"/etc/gone", "/dev/mem"} {
			if got := inspect(t, i.Path, "stat "+path); !strings.Contains(got, "not found") {
				t.Errorf("%s is there: %s", path, got)
			}
		}
	}
	server.Close() // what is in the cache needs no network
	if _, err := s.Get(t.Context(), ref, progress.Silent); err != nil {
		t.Error(err)
	}
	if _, err := s.Get(t.Context(), digest, progress.Silent); err != nil {
		t.Error(err)
	}
}

func TestPullErrors(t *testing.T) {
	s := Open(t.TempDir())
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	other := testImage(t)
	cf, err := other.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cf = cf.DeepCopy()
	cf.Architecture = "s390x"
	if other, err = mutate.ConfigFile(other, cf); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "other.tar")
	tag, _ := name.NewTag("other:tag")
	if err := tarball.WriteToFile(archive, tag, other); err != nil {
		t.Fatal(err)
	}
	for ref, say := range map[string]string{
		host + "/nobody/knows":      "this host can reach",
		"Not A Reference":           "image reference",
		"no-such.tar":               "write docker-archive:no-such.tar",
		"./no-such":                 "write docker-archive:./no-such",
		archive:                     "write docker-archive:" + archive,
		filepath.Dir(archive):       "write oci:" + filepath.Dir(archive),
		"docker-archive:/no/such":   "docker save",
		"oci:/no/such":              "no such file",
		"docker-archive:" + archive: "for linux/s390x",
	} {
		if _, err := s.Get(t.Context(), ref, progress.Silent); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("%s: %v, want it to say %q", ref, err, say)
		}
	}
	if list, err := s.List(); err != nil || len(list) != 0 {
		t.Errorf("left in the cache: %v, %v", list, err)
	}
}

func TestPullIsBounded(t *testing.T) {
	s := Open(t.TempDir())
	s.limits.Bytes, s.limits.Entries = 1<<20, 100
	var many []tar.Header
	for range 200 {
		many = append(many, file("f", ""))
	}
	for name, l := range map[string]v1.Layer{"bytes": layer(t, file("big", strings.Repeat("x", 2<<20))), "entries": layer(t, many...)} {
		img, err := mutate.AppendLayers(empty.Image, l)
		if err != nil {
			t.Fatal(err)
		}
		r, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.clean(r, io.Discard); !errors.Is(err, errTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
		_ = img
	}
}

func TestDamageIsNoticed(t *testing.T) {
	archive := filepath.Join(t.TempDir(), "saved.tar")
	tag, _ := name.NewTag("some/image:tag")
	if err := tarball.WriteToFile(archive, tag, testImage(t)); err != nil {
		t.Fatal(err)
	}
	s := Open(t.TempDir())
	i, err := s.Get(context.Background(), "docker-archive:"+archive, progress.Silent)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(i.Path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(i.Path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("damage"), 5000); err != nil {
		t.Fatal(err)
	}
	f.Close()
	again, err := s.Get(context.Background(), i.Digest, progress.Silent)
	if err != nil || again.Digest != i.Digest {
		t.Fatalf("%+v, %v", again, err)
	}
	if got := inspect(t, again.Path, "cat /etc/keep"); !strings.HasSuffix(got, "keep") {
		t.Errorf("%q", got)
	}
}

func FuzzClean(f *testing.F) {
	f.Add([]byte{})
	f.Fuzz(func(_ *testing.T, b []byte) {
		s := &Store{limits: DefaultLimits}
		s.limits.Bytes, s.limits.Entries = 1<<20, 100
		_ = s.clean(bytes.NewReader(b), io.Discard)
	})
}
