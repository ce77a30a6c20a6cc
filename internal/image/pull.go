package image

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"bawn.dev/bawn/internal/progress"
	"bawn.dev/bawn/internal/sys/proc"
	"bawn.dev/bawn/internal/sys/proxyenv"
	"bawn.dev/bawn/internal/sys/stall"
)

// Prefixes of references to images on this host.
const (
	archivePrefix = "docker-archive:" // what docker save and podman save write
	layoutPrefix  = "oci:"            // an OCI image layout, a directory
)

// pulled returns an OCI image, from the cache if it was fetched before.
func (s *Store) pulled(ctx context.Context, ref string, r progress.Reporter) (*Image, error) {
	return s.locked(ctx, ref, r, func(pointer) bool { return true }, s.pull)
}

// pull fetches an OCI image and flattens it in dir.
func (s *Store) pull(ctx context.Context, dir, ref string, r progress.Reporter) (*meta, error) {
	img, err := s.open(ctx, ref)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(ref, archivePrefix) {
		return s.unpackOf(ctx, dir, ref, img, r)
	}
	if err := s.checkConfigSize(img); err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	digest, err := img.Digest()
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	return s.unpack(ctx, dir, ref, img, digest.String(), "Fetching "+ref, r)
}

// unpack flattens an OCI image in dir, as a task with that label. source is the image's
// identity at its origin.
func (s *Store) unpack(ctx context.Context, dir, ref string, img v1.Image, source, label string, r progress.Reporter) (_ *meta, err error) {
	config, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	if config.Architecture != "" && config.Architecture != runtime.GOARCH || config.OS != "" && config.OS != "linux" {
		return nil, fmt.Errorf("image %s is for %s/%s, but the guest needs linux/%s", ref, config.OS, config.Architecture, runtime.GOARCH)
	}
	if len(config.RootFS.DiffIDs) > s.limits.Layers { // each of which the library looks for in turn
		return nil, fmt.Errorf("image %s: %w", ref, beyond(s.limits.Layers, "layers"))
	}
	task := r.Start(label, 0, progress.Bytes)
	defer func() { task.Done(err) }()
	clean := func(w io.Writer) error { return s.cleanLayers(ctx, img, task, w) }
	if err := s.flatten(filepath.Join(dir, imageFile), clean); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	return &meta{
		Ref: ref, Source: source, Created: time.Now().UTC(),
		Env: config.Config.Env, WorkingDir: config.Config.WorkingDir, User: config.Config.User,
	}, nil
}

// checkConfigSize checks what the manifest says of the configuration's size, of which the
// library reads so many bytes into memory.
func (s *Store) checkConfigSize(img v1.Image) error {
	m, err := img.Manifest()
	if err != nil {
		return err
	}
	if m.Config.Size > s.limits.Config {
		return beyond(s.limits.Config, "bytes in its configuration")
	}
	return nil
}

// open returns the image that a reference names.
func (s *Store) open(ctx context.Context, ref string) (v1.Image, error) {
	if path, ok := strings.CutPrefix(ref, archivePrefix); ok {
		img, err := s.fromArchive(path)
		if err != nil {
			return nil, fmt.Errorf("image archive %s: %w (it must be an archive written by docker save)", path, err)
		}
		return img, nil
	}
	if path, ok := strings.CutPrefix(ref, layoutPrefix); ok {
		img, err := s.fromLayout(path)
		if err != nil {
			return nil, fmt.Errorf("image layout %s: %w", path, err)
		}
		return img, nil
	}
	return open(ctx, ref)
}

// ownPath returns a path of this host without symbolic links. A link that a guest can have made is an error: it would
// choose what the image is made of.
func ownPath(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	end, link, err := proc.Follow(abs)
	if err == nil && link != nil {
		err = fmt.Errorf("it leads to %s over the symbolic link %s, and %s: write the path that you mean", end, link.Link, link.Why)
	}
	return end, err
}

// open returns the image of a registry that a reference names.
func open(ctx context.Context, ref string) (v1.Image, error) {
	if local, ok := strings.CutPrefix(ref, LocalPrefix); ok {
		return nil, &NotMadeError{Name: local}
	}
	if err := checkNoFile(ref); err != nil {
		return nil, err
	}
	n, err := name.ParseReference(ref)
	if err != nil {
		return nil, fmt.Errorf("image reference %q: %w", ref, err)
	}
	options := remoteOptions(ctx, &manifestTransport{registryTransport(), maxManifest})
	img, err := remote.Image(n, append(options, remote.WithPlatform(platform()))...)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w (check the name, and that this host can reach %s)", ref, err, n.Context().RegistryStr())
	}
	return decodedImage{img}, nil
}

// remoteOptions are the options of requests to registries, with the person's login.
func remoteOptions(ctx context.Context, through http.RoundTripper) []remote.Option {
	return []remote.Option{remote.WithContext(ctx), remote.WithTransport(through), remote.WithAuthFromKeychain(keychain{})}
}

// stallLimit is how long a registry may send nothing: an unattended start waits for it.
const stallLimit = time.Minute

// registryTransport returns what reaches registries, through the host's proxies.
func registryTransport() http.RoundTripper {
	return &stall.Transport{Next: proxyenv.Transport(remote.DefaultTransport.(*http.Transport)), Limit: stallLimit}
}

// maxManifest bounds an index or a manifest, and all else that a registry answers but for blobs, in bytes. Those of
// images of 100 layers have some 20 KiB. The library reads 100 MiB of one, which take gigabytes of memory.
const maxManifest = 1 << 20

// manifestTransport bounds the body of each answer but those to requests for blobs, also where a registry sends the
// client elsewhere. Blobs are bounded by those who read them.
type manifestTransport struct {
	next  http.RoundTripper
	limit int64
}

// RoundTrip implements http.RoundTripper.
func (t *manifestTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	first := r
	for first.Response != nil && first.Response.Request != nil { // of a redirect, the answer that led here
		first = first.Response.Request
	}
	if path.Base(path.Dir(first.URL.Path)) == "blobs" {
		return t.next.RoundTrip(r)
	}
	return (&boundedTransport{t.next, t.limit}).RoundTrip(r)
}

// checkNoFile returns an error if a reference without a prefix was meant as a file or a
// directory of this host: it exists, or it is written like a path or like the name of an archive.
func checkNoFile(ref string) error {
	prefix := archivePrefix
	switch fi, err := os.Stat(ref); {
	case err == nil && fi.IsDir() && !strings.ContainsAny(ref, "./"):
		return nil // a directory that happens to have the name of an image
	case err == nil && fi.IsDir():
		prefix = layoutPrefix
	case err == nil || strings.HasSuffix(ref, ".tar") || strings.HasSuffix(ref, ".tar.gz") || strings.HasSuffix(ref, ".tgz"):
	case strings.HasPrefix(ref, "/") || strings.HasPrefix(ref, "./") || strings.HasPrefix(ref, "../"):
	default:
		return nil
	}
	return fmt.Errorf("image reference %q looks like a path of this host; write %s%s", ref, prefix, ref)
}

func platform() v1.Platform { return v1.Platform{OS: "linux", Architecture: runtime.GOARCH} }

// counted is a reader that adds the bytes it reads to a task.
type counted struct {
	r    io.Reader
	task progress.Task
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.task.Add(int64(n))
	return n, err
}
