package image

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// allocated returns how many bytes f takes of memory, all together.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestAttackLargeManifests: a registry answers to a question for a manifest, or at the place to which it sends the
// client then, with a large one. Of the smallest layers it would take some fifty times its bytes in memory.
func TestAttackLargeManifests(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir()) // no credential helpers of the person
	many := func(w http.ResponseWriter, kind string, size int) {
		w.Header().Set("Content-Type", kind)
		_, _ = io.WriteString(w, `{"schemaVersion":2,"mediaType":"`+kind+`","layers":[{}`)
		chunk := strings.Repeat(",{}", 1<<15)
		for n := 0; n < size; n += len(chunk) {
			if _, err := io.WriteString(w, chunk); err != nil {
				return
			}
		}
		_, _ = io.WriteString(w, "]}")
	}
	const manifest, index = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"
	mux := http.NewServeMux()
	mux.HandleFunc("/v2/", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/v2/a/manifests/plain", func(w http.ResponseWriter, _ *http.Request) { many(w, manifest, 90<<20) })
	mux.HandleFunc("/v2/a/manifests/index", func(w http.ResponseWriter, _ *http.Request) { many(w, index, 90<<20) })
	mux.HandleFunc("/v2/a/blobs/manifests/latest", func(w http.ResponseWriter, _ *http.Request) { many(w, manifest, 90<<20) })
	mux.Handle("/v2/a/manifests/moved", http.RedirectHandler("/v2/a/blobs/there", http.StatusTemporaryRedirect))
	mux.HandleFunc("/v2/a/blobs/there", func(w http.ResponseWriter, _ *http.Request) { many(w, manifest, 90<<20) })
	server := httptest.NewServer(mux)
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	for _, ref := range []string{"/a:plain", "/a:index", "/a/blobs:latest", "/a:moved"} {
		artifact, err := ParseArtifact(host + ref)
		if err != nil {
			t.Fatal(err)
		}
		for what, get := range map[string]func() error{
			"an image":    func() error { _, err := open(t.Context(), host+ref); return err },
			"a digest":    func() error { _, err := ArtifactDigest(t.Context(), artifact); return err },
			"an artifact": func() error { _, err := FetchArtifact(t.Context(), artifact, 32<<20); return err },
		} {
			var err error
			took := allocated(func() { err = get() })
			if !errors.Is(err, errTooLarge) {
				t.Errorf("%s of %s: %.200v", what, ref, err)
			}
			if took > 16*maxManifest {
				t.Errorf("%s of %s: it takes %d bytes of memory", what, ref, took)
			}
		}
	}
}

// TestLargeBlobs: a blob may be larger than a manifest, also where the registry keeps it elsewhere.
func TestLargeBlobs(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	const size = maxManifest + 1
	mux := http.NewServeMux()
	mux.Handle("/v2/a/blobs/moved", http.RedirectHandler("/manifests/there", http.StatusTemporaryRedirect))
	send := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, size)) }
	mux.HandleFunc("/v2/a/blobs/plain", send)
	mux.HandleFunc("/manifests/there", send)
	server := httptest.NewServer(mux)
	defer server.Close()
	client := &http.Client{Transport: &manifestTransport{remote.DefaultTransport, maxManifest}}
	for _, path := range []string{"plain", "moved"} {
		answer, err := client.Get(server.URL + "/v2/a/blobs/" + path)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		if n != size || err != nil {
			t.Errorf("%s: %d bytes, %v", path, n, err)
		}
	}
	if _, err := name.ParseReference("a/blobs:latest"); err != nil {
		t.Error(err)
	}
}
