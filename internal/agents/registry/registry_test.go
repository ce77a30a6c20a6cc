package registry

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bawn.dev/bawn/internal/progress"
)

// zeros is an endless file.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// pack returns an archive that write fills.
func pack(t *testing.T, write func(w *tar.Writer) error) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := errors.Join(write(w), w.Close()); err != nil {
		t.Fatal(err)
	}
	return compress(t, b.Bytes())
}

// header returns the block of a tar archive that begins an entry.
func header(t *testing.T, h *tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(h); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// sameEntry returns an archive in which one directory is there many times. A gzip file may have
// several members (RFC 1952, section 2.2), so that what repeats is compressed once.
func sameEntry(t *testing.T, thousands int) []byte {
	t.Helper()
	return bytes.Repeat(compress(t, bytes.Repeat(header(t, &tar.Header{Name: "package/d", Typeflag: tar.TypeDir}), 1000)), thousands)
}

// zeroFile returns an archive with one file of zeros.
func zeroFile(t *testing.T, mebibytes int) []byte {
	t.Helper()
	h := header(t, &tar.Header{Name: "package/zeros", Mode: 0o644, Size: int64(mebibytes) << 20, Typeflag: tar.TypeReg})
	return append(compress(t, h), bytes.Repeat(compress(t, make([]byte, 1<<20)), mebibytes)...)
}

func compress(t *testing.T, tar []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed) // the race detector makes it slow
	if err != nil {
		t.Fatal(err)
	}
	_, err = z.Write(tar)
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// integrity is the checksum of an archive as a registry names it.
func integrity(b []byte) string {
	sum := sha512.Sum512(b)
	return "sha512-" + base64.StdEncoding.EncodeToString(sum[:])
}

// describe makes the description of a package whose archive is at an address.
func describe(address string, archive []byte) *Package {
	p := &Package{Name: "tool", Version: "1.0.0"}
	p.Dist.Tarball, p.Dist.Integrity = address, integrity(archive)
	return p
}

// oneFile returns an archive with one file, which holds the text.
func oneFile(t *testing.T, text string) []byte {
	t.Helper()
	return pack(t, func(w *tar.Writer) error {
		err := w.WriteHeader(&tar.Header{Name: "package/tool", Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg})
		_, werr := io.WriteString(w, text)
		return errors.Join(err, werr)
	})
}

// TestAttackBombs: an archive that grows without measure, in bytes, entries or directories, is given
// up early.
func TestAttackBombs(t *testing.T) {
	for name, c := range map[string]struct {
		body []byte
		want string
	}{
		"bytes":   {zeroFile(t, 2*slackBytes>>20), "the unpacked archive is larger than allowed"},
		"entries": {sameEntry(t, maxEntries/1000+1), "more than 50000 entries"},
		"directories": {pack(t, func(w *tar.Writer) error {
			return w.WriteHeader(&tar.Header{Name: "package" + strings.Repeat("/d", 400) + "/f", Mode: 0o644, Typeflag: tar.TypeReg})
		}), "deeper than 64 directories"},
	} {
		t.Run(name, func(t *testing.T) {
			body := c.body
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }))
			defer s.Close()
			client, err := New(s.URL, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			if err := client.Unpack(t.Context(), describe(s.URL+"/a", body), dir, nil, progress.Silent); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if n := bytesBelow(t, dir); n > slackBytes+maxRatio*int64(len(body))+readSize {
				t.Errorf("%d bytes were written of an archive of %d", n, len(body))
			}
		})
	}
}

// TestDirectoriesCount: the directories that an entry lies in are entries, too.
func TestDirectoriesCount(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	u := &unpacking{root: root, made: map[string]bool{".": true}, entries: maxEntries - 3}
	if err := errors.Join(u.mkdir("a/b"), u.mkdir("a/b"), u.mkdir("a/c")); err != nil {
		t.Error(err)
	}
	if err := u.mkdir("a/d"); err == nil || !strings.Contains(err.Error(), "more than 50000 entries") {
		t.Errorf("%v", err)
	}
}

func bytesBelow(t *testing.T, dir string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		fi, err := e.Info()
		if err == nil {
			n += fi.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestRedirects: an archive may lie on another host, and is checked like any other; a way from
// HTTPS to less, into a circle or to something else is refused.
func TestRedirects(t *testing.T) {
	body := oneFile(t, "x")
	elsewhere := http.NewServeMux()
	elsewhere.HandleFunc("/good", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) })
	elsewhere.HandleFunc("/other", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("something else")) })
	elsewhere.HandleFunc("/exchanged", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(oneFile(t, "y")) })
	plain, secure := httptest.NewServer(elsewhere), httptest.NewTLSServer(elsewhere)
	defer plain.Close()
	defer secure.Close()
	mux := http.NewServeMux()
	registry := httptest.NewTLSServer(mux)
	defer registry.Close()
	for path, to := range map[string]string{
		"/secure": secure.URL + "/good", "/plain": plain.URL + "/good", "/other": secure.URL + "/other", "/exchanged": secure.URL + "/exchanged",
		"/circle": registry.URL + "/circle", "/file": "file:///etc/passwd", "/nowhere": "https://127.0.0.1:1/x",
	} {
		mux.Handle(path, http.RedirectHandler(to, http.StatusFound))
	}
	for path, want := range map[string]string{
		"/secure": "", "/plain": "redirected from HTTPS to http", "/other": "not in gzip format", "/exchanged": "does not have the checksum",
		"/circle": "too many redirects", "/file": "redirected from HTTPS to file", "/nowhere": "connection refused",
	} {
		client, err := New(registry.URL, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		client.http.Transport = registry.Client().Transport // httptest's servers have one certificate
		switch err := client.Unpack(t.Context(), describe(registry.URL+path, body), t.TempDir(), nil, progress.Silent); {
		case want == "" && err != nil, want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

// TestADripIsAStall: a registry that sends a byte now and then has stopped answering.
func TestADripIsAStall(t *testing.T) {
	body := pack(t, func(w *tar.Writer) error {
		const size = 1 << 20
		err := w.WriteHeader(&tar.Header{Name: "package/tool", Mode: 0o644, Size: size, Typeflag: tar.TypeReg})
		_, cerr := io.CopyN(w, zeros{}, size)
		return errors.Join(err, cerr)
	})
	const stall = 200 * time.Millisecond
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for i := range body {
			_, err := w.Write(body[i : i+1])
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(stall / 20):
			}
			if err != nil {
				return
			}
		}
	}))
	defer s.Close()
	client, err := New(s.URL, stall)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Unpack(t.Context(), describe(s.URL, body), t.TempDir(), nil, progress.Silent); !errors.Is(err, ErrStalled) {
		t.Errorf("%v", err)
	}
}

// TestAnswersAreBounded: a description that does not end is given up.
func TestAnswersAreBounded(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"name": "tool", "x": "`)
		_, _ = io.CopyN(w, zeros{}, 2*maxAnswer)
	}))
	defer s.Close()
	client, err := New(s.URL, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Package(t.Context(), "tool", "latest"); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("%v", err)
	}
}
