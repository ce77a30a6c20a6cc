// Package registry is a client of npm's package registry: it reads what a package is, and
// unpacks its archive. It runs nothing of a package.
//
// The registry is not trusted with the host: answers and archives are bounded, an archive is
// only kept if it has the SHA-512 that the registry's answer names, entries stay within the
// folder that they are unpacked to, and a server that sends nothing for StallLimit fails.
package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"bawn.dev/bawn/internal/sys/proxyenv"
	"bawn.dev/bawn/internal/sys/stall"
)

// Bounds of what a registry can make the host do.
const (
	maxAnswer   = 8 << 20 // bytes of a description of a package; the largest that are known are below 1 MiB
	maxArchive  = 1 << 30 // bytes of an archive
	maxUnpacked = 3 << 30 // bytes of all files of an archive
	maxEntries  = 50_000  // entries of an archive, and directories that they lie in
	maxPath     = 1024    // bytes of the path of an entry
	maxDepth    = 64      // directories that an entry lies in
	maxHops     = 5       // redirects

	// maxRatio bounds the unpacked bytes for each byte of an archive, once slackBytes are
	// unpacked: programs compress to a tenth at best, and DEFLATE to a thousandth.
	maxRatio   = 100
	slackBytes = 16 << 20
)

// Client fetches from one registry. It may be used by several goroutines at once.
type Client struct {
	base *url.URL
	http *http.Client
}

// StallLimit is how long a registry may send nothing, or next to nothing (stall.Transport).
const StallLimit = 30 * time.Second

// New returns a client of the registry at a URL. A request fails with ErrStalled if the registry sends too
// little for limit.
func New(base string, limit time.Duration) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return nil, fmt.Errorf("%q is not the URL of a registry of packages: write https://HOST/ (npm config set registry)", base)
	}
	u.Path = strings.TrimSuffix(u.Path, "/") + "/"
	t := proxyenv.Transport(http.DefaultTransport.(*http.Transport))
	t.DisableCompression = true
	return &Client{base: u, http: &http.Client{Transport: &stall.Transport{Next: t, Limit: limit}, CheckRedirect: checkRedirect}}, nil
}

// checkRedirect refuses a way from HTTPS to less, and loops.
func checkRedirect(to *http.Request, via []*http.Request) error {
	switch {
	case len(via) > maxHops:
		return errors.New("too many redirects")
	case via[0].URL.Scheme == "https" && to.URL.Scheme != "https":
		return fmt.Errorf("redirected from HTTPS to %s", to.URL.Scheme)
	}
	return nil
}

// Package is one version of a package.
type Package struct {
	Name         string            `json:"name"`
	Version      string            `json:"version"`
	Dependencies map[string]string `json:"dependencies"`
	Optional     map[string]string `json:"optionalDependencies"`
	Dist         struct {
		Tarball   string `json:"tarball"`
		Integrity string `json:"integrity"`
	} `json:"dist"`
}

// Package returns the version of a package: an exact version, or a tag such as "latest".
func (c *Client) Package(ctx context.Context, name, version string) (*Package, error) {
	p := &Package{}
	if err := c.read(ctx, strings.Replace(name, "/", "%2f", 1)+"/"+url.PathEscape(version), "application/json", p); err != nil {
		return nil, fmt.Errorf("package %s@%s: %w", name, version, err)
	}
	if p.Name != name || !validVersion(p.Version) {
		return nil, fmt.Errorf("package %s@%s: the registry answered with %q, version %q", name, version, p.Name, p.Version)
	}
	return p, nil
}

// Versions returns the versions of a package, in no order.
func (c *Client) Versions(ctx context.Context, name string) ([]string, error) {
	var all struct {
		Versions map[string]struct{} `json:"versions"`
	}
	if err := c.read(ctx, strings.Replace(name, "/", "%2f", 1), "application/vnd.npm.install-v1+json", &all); err != nil {
		return nil, fmt.Errorf("versions of package %s: %w", name, err)
	}
	var list []string
	for v := range all.Versions {
		if validVersion(v) {
			list = append(list, v)
		}
	}
	return list, nil
}

// validVersion reports whether v can be part of a path and a message.
func validVersion(v string) bool {
	return v != "" && len(v) <= 100 && v[0] >= '0' && v[0] <= '9' &&
		strings.Trim(v, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.+-") == ""
}

// read decodes a JSON answer.
func (c *Client) read(ctx context.Context, path, kind string, v any) error {
	body, _, err := c.get(ctx, c.base.String()+path, kind)
	if err != nil {
		return err
	}
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, maxAnswer+1))
	switch {
	case err != nil:
		return err
	case len(b) > maxAnswer:
		return fmt.Errorf("the registry's answer is larger than %d bytes", maxAnswer)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("the registry's answer is no description of a package: %w", err)
	}
	return nil
}

// ErrNotFound means that the registry has no such package or version.
var ErrNotFound = errors.New("the registry has no such package or version")

// ErrStalled means that the registry sent nothing for too long.
var ErrStalled = errors.New("the registry stopped answering: check the network and try again")

// get requests a URL. The body fails with ErrStalled when nothing comes for too long; the caller
// closes it. size is -1 where the server does not name it.
func (c *Client) get(ctx context.Context, address, kind string) (body io.ReadCloser, size int64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Accept", kind)
	res, err := c.http.Do(req)
	if err != nil {
		return nil, 0, why(ctx, err)
	}
	switch res.StatusCode {
	case http.StatusOK:
		return &answer{res.Body, ctx}, res.ContentLength, nil
	case http.StatusNotFound:
		err = ErrNotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		err = fmt.Errorf("the registry wants a login (%s), which bawn does not send: use a registry that needs none for this package", res.Status)
	default:
		err = fmt.Errorf("the registry answered %s", res.Status)
	}
	return nil, 0, errors.Join(err, res.Body.Close())
}

// why returns the cause of an error of a request: the stall or the caller's interruption, if it was one.
func why(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var stalled *stall.Error
	if errors.As(err, &stalled) {
		return ErrStalled
	}
	return err
}

// answer is the body of an answer.
type answer struct {
	io.ReadCloser
	ctx context.Context //nolint:containedctx // of the request: says why it was cancelled
}

// Read reads the body.
func (a *answer) Read(b []byte) (int, error) {
	n, err := a.ReadCloser.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		err = why(a.ctx, err)
	}
	return n, err
}
