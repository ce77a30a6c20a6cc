package image

import (
	"bytes"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// artifact is an artifact with these files, as layers.
func artifact(t *testing.T, files ...string) v1.Image {
	t.Helper()
	img := mutate.ConfigMediaType(empty.Image, "application/vnd.devcontainers")
	for _, f := range files {
		var err error
		if img, err = mutate.AppendLayers(img, static.NewLayer([]byte(f), "application/vnd.devcontainers.layer.v1+tar")); err != nil {
			t.Fatal(err)
		}
	}
	return img
}

// TestArtifacts: what a registry has, within limits, and as its digests say.
func TestArtifacts(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir()) // no credential helpers of the person
	lie := map[string][]byte{}             // by the end of the path
	serve := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for end, body := range lie {
			if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, end) {
				w.Header().Set("Content-Type", string(types.DockerManifestSchema2))
				_, _ = w.Write(body)
				return
			}
		}
		serve.ServeHTTP(w, r)
	}))
	defer server.Close()
	host := server.Listener.Addr().String()
	push := func(to string, img v1.Image) string {
		t.Helper()
		ref, err := name.ParseReference(host + "/" + to)
		if err == nil {
			err = remote.Write(ref, img)
		}
		if err != nil {
			t.Fatal(err)
		}
		d, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return d.String()
	}
	fetch := func(ref string, limit int64) (string, error) {
		t.Helper()
		a, err := ParseArtifact(host + "/" + ref)
		if err != nil {
			t.Fatal(err)
		}
		b, err := FetchArtifact(t.Context(), a, limit)
		return string(b), err
	}

	one := artifact(t, "hello")
	digest := push("tools/a:1", one)
	a, err := ParseArtifact(host + "/tools/a:1")
	if err != nil || a.Name() != host+"/tools/a" || a.Version() != "1" || a.Registry() != host {
		t.Fatalf("%+v, %v", a, err)
	}
	if got, err := ArtifactDigest(t.Context(), a); err != nil || got != digest {
		t.Errorf("%s, %v; want %s", got, err, digest)
	}
	if got, err := fetch("tools/a@"+digest, 5); err != nil || got != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: one})
	ref, err := name.ParseReference(host + "/tools/index:1")
	if err == nil {
		err = remote.WriteIndex(ref, index)
	}
	if err != nil {
		t.Fatal(err)
	}
	push("tools/two:1", artifact(t, "a", "b"))
	push("tools/none:1", artifact(t))
	for ref, want := range map[string]string{
		"tools/a:2": "MANIFEST_UNKNOWN", "tools/index:1": "no artifact of one file", "tools/two:1": "no artifact of one file", "tools/none:1": "no artifact of one file",
	} {
		if got, err := fetch(ref, 100); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %q, %v", ref, got, err)
		}
	}
	if got, err := fetch("tools/a:1", 4); err == nil || !strings.Contains(err.Error(), "more than 4 bytes") {
		t.Errorf("more than the limit: %q, %v", got, err)
	}

	layers, err := one.Layers()
	if err != nil {
		t.Fatal(err)
	}
	blob, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	for body, what := range map[string]string{"hullo": "other bytes", "hello, and more": "more bytes", "hell": "fewer bytes"} {
		lie[blob.String()] = []byte(body)
		if got, err := fetch("tools/a@"+digest, 1000); err == nil {
			t.Errorf("%s: %q", what, got)
		}
	}
	clear(lie)
	other, err := artifact(t, "evil").RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	for what, body := range map[string][]byte{"another manifest": other, "a manifest without end": bytes.Repeat([]byte(" "), maxManifest+1)} {
		lie[digest] = body
		if got, err := fetch("tools/a@"+digest, 1000); err == nil {
			t.Errorf("%s: %q", what, got)
		}
	}
}

func TestParseArtifact(t *testing.T) {
	for ref, want := range map[string]string{
		"registry.example/a/b:1": "registry.example/a/b 1", "localhost/a": "localhost/a latest", "127.0.0.1:5000/a/b": "127.0.0.1:5000/a/b latest",
		"a/b:1": "", "go": "", "https://registry.example/a.tgz": "", "registry.example/A:1": "", "registry.example/": "", "registry.example/a@sha256:0": "", "/a/b": "",
	} {
		a, err := ParseArtifact(ref)
		if err == nil != (want != "") || err == nil && a.Name()+" "+a.Version() != want {
			t.Errorf("%s: %+v, %v", ref, a, err)
		}
	}
}
