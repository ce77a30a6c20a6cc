package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"bawn.dev/bawn/internal/sys/bounded"
)

// An artifact is a file in a registry, as the one layer of what looks like an image. It is fetched as
// images are: with the person's login, through the host's proxies, and checked against the digests.

// artifactLimit is how long a registry may take for one artifact.
const artifactLimit = 5 * time.Minute

// ArtifactRef is a reference to an artifact.
type ArtifactRef struct{ ref name.Reference }

// ParseArtifact reads REGISTRY/REPOSITORY, with a tag or a digest. Without one it is the tag latest. Unlike
// for images there is no usual registry.
func ParseArtifact(s string) (ArtifactRef, error) {
	host, _, found := strings.Cut(s, "/")
	if !found || host != "localhost" && !strings.ContainsAny(host, ".:") {
		return ArtifactRef{}, fmt.Errorf("%q is not a reference in a registry: write REGISTRY/REPOSITORY:VERSION", s)
	}
	ref, err := name.ParseReference(s)
	if err != nil {
		return ArtifactRef{}, fmt.Errorf("%q is not a reference in a registry: %w", s, err)
	}
	return ArtifactRef{ref}, nil
}

// Registry returns the host of the registry, with its port.
func (r ArtifactRef) Registry() string { return r.ref.Context().RegistryStr() }

// Name returns REGISTRY/REPOSITORY.
func (r ArtifactRef) Name() string { return r.ref.Context().Name() }

// Version returns the tag, or the digest.
func (r ArtifactRef) Version() string { return r.ref.Identifier() }

// At returns the reference to the artifact of the same name with that digest.
func (r ArtifactRef) At(digest string) string { return r.Name() + "@" + digest }

// ArtifactDigest asks the registry for the digest that a reference stands for.
func ArtifactDigest(ctx context.Context, r ArtifactRef) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, artifactLimit)
	defer cancel()
	d, err := remote.Get(r.ref, artifactOptions(ctx, maxManifest)...)
	if err != nil {
		return "", fmt.Errorf("%s: %w (check the name, and that this host can reach %s)", r.ref, err, r.Registry())
	}
	return d.Digest.String(), nil
}

// FetchArtifact returns the file of an artifact, which has at most limit bytes.
func FetchArtifact(ctx context.Context, r ArtifactRef, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, artifactLimit)
	defer cancel()
	file, err := fetchArtifact(ctx, r.ref, limit)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.ref, err)
	}
	return file, nil
}

func fetchArtifact(ctx context.Context, ref name.Reference, limit int64) ([]byte, error) {
	options := artifactOptions(ctx, max(limit, maxManifest))
	d, err := remote.Get(ref, options...)
	if err != nil {
		return nil, err
	}
	if !d.MediaType.IsImage() {
		return nil, fmt.Errorf("it is no artifact of one file, but of the type %.100q", string(d.MediaType))
	}
	img, err := d.Image()
	if err != nil {
		return nil, err
	}
	m, err := img.Manifest()
	switch {
	case err != nil:
		return nil, err
	case len(m.Layers) != 1 || m.Layers[0].MediaType == types.DockerForeignLayer || len(m.Layers[0].URLs) > 0:
		return nil, errors.New("it is no artifact of one file")
	case m.Layers[0].Size > limit:
		return nil, beyond(limit, "bytes")
	}
	layer, err := img.LayerByDigest(m.Layers[0].Digest)
	if err != nil {
		return nil, err
	}
	r, err := layer.Compressed()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(&bounded.Reader{R: r, Left: limit, Err: beyond(limit, "bytes")}) // to the end, where the digest is checked
}

// artifactOptions are the options of requests whose answers have at most limit bytes, and maxManifest if they are no
// blobs.
func artifactOptions(ctx context.Context, limit int64) []remote.Option {
	return remoteOptions(ctx, &manifestTransport{&boundedTransport{registryTransport(), limit}, maxManifest})
}

// boundedTransport bounds the body of each answer.
type boundedTransport struct {
	next  http.RoundTripper
	limit int64
}

// RoundTrip implements http.RoundTripper.
func (t *boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := t.next.RoundTrip(r)
	if err == nil {
		answer.Body = struct {
			io.Reader
			io.Closer
		}{&bounded.Reader{R: answer.Body, Left: t.limit, Err: beyond(t.limit, "bytes in an answer of the registry")}, answer.Body}
	}
	return answer, err
}
