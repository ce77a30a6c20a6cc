package packages

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/progress"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/proxyenv"
	"bawn.dev/bawn/internal/sys/reserve"
)

// Bounds of one Fill, whatever lock files and registry say.
const (
	maxWants    = 20_000    // files that lock files of a kind name
	maxFill     = 4 << 30   // bytes that are fetched
	maxPackage  = 512 << 20 // bytes of a package: Go's own limit is 500 MiB (golang.org/x/mod/zip)
	maxSmall    = 16 << 20  // bytes of a go.mod: Go's own limit
	maxFailures = 20        // packages that could not be fetched, after which the rest is not tried
	maxHops     = 5         // redirects

	fetchers   = 8
	fetchLimit = 10 * time.Minute // for one package
	stallLimit = 30 * time.Second // until the registry's answer begins or goes on
)

// want is a file that the store is to have.
type want struct {
	name   string                 // of the package, for people
	url    string                 // of the file at the registry
	file   string                 // in the folder of the kind
	limit  int64                  // bytes
	verify func(f *os.File) error // finds the file at its beginning
	beside beside
}

// beside is a small file that the store has beside another one. It has no name if there is none.
type beside struct{ file, text string }

// source is a registry.
type source struct {
	base string // URL, with a slash at the end
	// wants returns what a lock file names. What it cannot be trusted to name is left out.
	wants func(text []byte) ([]want, error)
}

// Request says what to fetch.
type Request struct {
	Project string // directory of the host
	Kinds   []sandbox.Cache
	// Allowed returns an error unless the guest may itself request the URL.
	Allowed  func(url string) error
	Progress progress.Reporter
}

// Result is what a Fill did for a kind.
type Result struct {
	Kind  sandbox.Cache `json:"kind"`
	Locks int           `json:"locks"`         // lock files that were found
	Named int           `json:"named"`         // files that they name
	Added int           `json:"added"`         // of them, those that were fetched
	Bytes int64         `json:"bytes"`         // that were fetched
	Left  int           `json:"left"`          // files that the store does not have
	Why   string        `json:"why,omitempty"` // what was wrong first; it may have any characters
}

// Fill fetches the packages that the project's lock files name and that the store does not have.
// An error is about the store as a whole; what is wrong with a lock file, a registry or a package
// is in the results. The caller holds the Lock.
func (s *Store) Fill(ctx context.Context, r Request) (results []Result, err error) {
	locks, err := findLocks(r.Project)
	if err != nil {
		return nil, err
	}
	client := newClient()
	for _, kind := range r.Kinds {
		if err := s.Make(kind); err != nil {
			return results, err
		}
		f := filler{store: s, kind: kind, request: &r, client: client, result: Result{Kind: kind, Locks: len(locks[kind])}}
		err := f.fill(ctx, locks[kind])
		if results = append(results, f.result); err != nil {
			return results, errors.Join(err, s.trim())
		}
	}
	return results, s.trim()
}

// newClient returns a client that goes the way of the host's other requests.
func newClient() *http.Client {
	t := proxyenv.Transport(http.DefaultTransport.(*http.Transport))
	t.ResponseHeaderTimeout, t.DisableCompression = stallLimit, true
	return &http.Client{Transport: t, Timeout: fetchLimit, CheckRedirect: checkRedirect}
}

// checkRedirect lets a registry send the client to other paths of itself only.
func checkRedirect(to *http.Request, via []*http.Request) error {
	switch {
	case len(via) > maxHops:
		return errors.New("too many redirects")
	case to.URL.Scheme != via[0].URL.Scheme || to.URL.Host != via[0].URL.Host:
		return fmt.Errorf("the registry redirects to another host, %s", to.URL.Host)
	}
	return nil
}

// filler fetches the packages of one kind.
type filler struct {
	store   *Store
	kind    sandbox.Cache
	request *Request
	client  *http.Client

	mu       sync.Mutex
	result   Result
	failures int
}

// left records that files are not in the store, and why.
func (f *filler) left(n int, why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.result.Left += n; f.result.Why == "" {
		f.result.Why = why.Error()
	}
}

// fill fetches what the lock files name. The error ends the whole Fill.
func (f *filler) fill(ctx context.Context, locks []lock) error {
	src, err := sourceOf(f.kind)
	if err != nil {
		f.left(0, err)
		return nil
	}
	wants := f.collect(src, locks)
	f.result.Named = len(wants)
	var missing []want
	for _, w := range wants {
		if !f.store.has(f.kind, w) {
			missing = append(missing, w)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	task := f.request.Progress.Start("Fetching packages of "+string(f.kind), int64(len(missing)), progress.Steps)
	err = f.fetchAll(ctx, missing, task)
	task.Done(err)
	return err
}

// collect returns what the lock files name, each once.
func (f *filler) collect(src *source, locks []lock) (wants []want) {
	seen := map[string]bool{}
	for _, l := range locks {
		list, err := src.wants(l.text)
		if err != nil {
			f.left(0, fmt.Errorf("%s: %w", l.path, err))
		}
		for _, w := range list {
			// Of two packages with one hash, one may be a lie that keeps the other out.
			key := w.url + " " + w.file
			if seen[key] {
				continue
			}
			if len(wants) == maxWants {
				f.left(0, fmt.Errorf("the lock files name more than %d files: the others are not shared", maxWants))
				return wants
			}
			seen[key] = true
			wants = append(wants, w)
		}
	}
	return wants
}

// has reports whether the store has a file, which counts as named by a lock file now.
func (s *Store) has(kind sandbox.Cache, w want) bool {
	path := filepath.Join(s.Folder(kind), w.file)
	fi, err := os.Lstat(path)
	if err != nil || !fi.Mode().IsRegular() {
		return false
	}
	now := time.Now()
	_ = os.Chtimes(path, now, now) // else it is removed the earlier
	if w.beside.file != "" {
		_ = os.Chtimes(filepath.Join(s.Folder(kind), w.beside.file), now, now)
	}
	return true
}

// fetchAll fetches files. The error is one after which nothing more can be fetched.
func (f *filler) fetchAll(ctx context.Context, missing []want, task progress.Task) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(fetchers)
	for _, w := range missing {
		g.Go(func() error {
			defer task.Add(1)
			return f.fetchOne(gctx, w)
		})
	}
	err := g.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// fetchOne fetches a file unless that is not allowed or too much has gone wrong. The error ends the
// Fill.
func (f *filler) fetchOne(ctx context.Context, w want) error {
	if ctx.Err() != nil {
		return nil
	}
	if err := f.mayFetch(w); err != nil {
		f.left(1, err)
		return nil
	}
	n, err := f.store.fetch(ctx, f.client, f.kind, w)
	switch {
	case err == nil:
		f.mu.Lock()
		f.result.Added++
		f.result.Bytes += n
		f.mu.Unlock()
		return nil
	case errors.Is(err, errNoRoom), errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		f.left(1, err)
		return fmt.Errorf("packages are not kept: %w", err)
	case ctx.Err() != nil:
		return nil
	}
	f.left(1, fmt.Errorf("%s: %w", w.name, err))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failures++
	return nil
}

// mayFetch returns why a file is not fetched; nil if it is.
func (f *filler) mayFetch(w want) error {
	f.mu.Lock()
	failures, bytes := f.failures, f.result.Bytes
	f.mu.Unlock()
	switch {
	case failures >= maxFailures:
		return fmt.Errorf("%d packages could not be fetched: the rest was not tried", failures)
	case bytes >= maxFill:
		return fmt.Errorf("the packages that are missing are larger than %d bytes: the rest is fetched the next time", int64(maxFill))
	}
	return f.request.Allowed(w.url)
}

// errStalled means that a registry has sent nothing for too long.
var errStalled = errors.New("the registry stopped answering")

// watched is a body of an answer whose request is cancelled when nothing comes for too long.
type watched struct {
	body  io.Reader
	timer *time.Timer
	stall time.Duration
}

func watch(body io.Reader, stall time.Duration, cancel context.CancelCauseFunc) *watched {
	return &watched{body, time.AfterFunc(stall, func() { cancel(errStalled) }), stall}
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.body.Read(b)
	if w.timer.Stop(); err == nil {
		w.timer.Reset(w.stall)
	}
	return n, err
}

// errNoRoom means that the host's disk is nearly full.
var errNoRoom = errors.New("the host's disk is nearly full")

// fetch fetches a file, verifies it and puts it into its place. It returns its size.
func (s *Store) fetch(ctx context.Context, client *http.Client, kind sandbox.Cache, w want) (int64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url, http.NoBody)
	if err != nil {
		return 0, err
	}
	res, err := client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the URL may have a password
		}
		return 0, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("the registry answered %s", res.Status)
	}
	if res.ContentLength > w.limit {
		return 0, fmt.Errorf("it is larger than %d bytes", w.limit)
	}
	tmp, err := os.CreateTemp(filepath.Join(s.root, tmpFolder), "")
	if err != nil {
		return 0, err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	if err := checkRoom(tmp, max(res.ContentLength, 1<<20)); err != nil {
		return 0, err
	}
	n, err := io.Copy(tmp, io.LimitReader(watch(res.Body, s.stall, cancel), w.limit+1))
	switch {
	case err != nil && ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case err != nil:
		return 0, err
	case n > w.limit:
		return 0, fmt.Errorf("it is larger than %d bytes", w.limit)
	}
	if _, err := tmp.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	if err := w.verify(tmp); err != nil {
		return 0, err
	}
	if w.beside.file != "" {
		if err := s.placeText(kind, w.beside); err != nil {
			return 0, err
		}
	}
	return n, s.place(kind, w.file, tmp)
}

// checkRoom returns an error unless the file system of f has room for so many bytes beside its
// reserve.
func checkRoom(f *os.File, bytes int64) error {
	left, err := reserve.Left(int(f.Fd()))
	if err == nil && reserve.Bytes(&left) < uint64(bytes) {
		err = errNoRoom
	}
	return err
}

// place puts a verified file into its place.
func (s *Store) place(kind sandbox.Cache, file string, tmp *os.File) error {
	path := filepath.Join(s.Folder(kind), file)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := errors.Join(tmp.Chmod(0o600), tmp.Sync()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

func (s *Store) placeText(kind sandbox.Cache, b beside) error {
	tmp, err := os.CreateTemp(filepath.Join(s.root, tmpFolder), "")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	if _, err := tmp.WriteString(b.text); err != nil {
		return err
	}
	return s.place(kind, b.file, tmp)
}
