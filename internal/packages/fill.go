package packages

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/progress"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/proxyenv"
	"bawn.dev/bawn/internal/sys/regular"
	"bawn.dev/bawn/internal/sys/reserve"
	"bawn.dev/bawn/internal/sys/stall"
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

// chosenTitle is the first line of a list of chosen files, which may name none.
const chosenTitle = "chosen\n"

// maxChosenText bounds a list of chosen files, in bytes.
const maxChosenText = 64 << 10

// want is a file that the store is to have.
type want struct {
	name   string                 // of the package, for people
	url    string                 // of the file at the registry
	locate locator                // finds the URL if only the registry knows it; then url is "" and file names the package
	file   string                 // in the folder of the kind
	sum    string                 // what the lock file says of the contents: wants with different ones are different files
	limit  int64                  // bytes
	verify func(f *os.File) error // finds the file at its beginning
	beside beside
	links  []string // other names of the file, in the folder of the kind: symbolic links to it
	// expand, when set, asks the registry which files are wanted. The want itself is then a file of the
	// store that lists them; only name and file are set.
	expand func(ctx context.Context, ask asker) ([]want, error)
	// serves reports whether a file that the store has is what is wanted; nil if each one is.
	serves func(path string) bool
	// rewrite, when set, gives the verified file the form that the package manager's cache has. etag is
	// the registry's, and may be anything.
	rewrite func(f *os.File, etag string) error
}

// locator asks a registry for the URL of a file.
type locator func(ctx context.Context, ask asker) (string, error)

// asker requests a small file of a registry, if the guest may itself request it. An answer with more
// bytes than limit is an error.
type asker func(ctx context.Context, url, accept string, limit int64) ([]byte, error)

// beside is a small file that the store has beside another one. It has no name if there is none.
type beside struct{ file, text string }

// source is a registry.
type source struct {
	base string // URL, with a slash at the end
	// wants returns what a lock file of that name has. What it cannot be trusted to name is left out.
	wants func(file string, text []byte) ([]want, error)
}

// Request says what to fetch.
type Request struct {
	Project string // directory of the host
	Kinds   []sandbox.Cache
	Python  string // version of the guest's Python, such as 3.12.4; "" if it is not known
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
	client := s.newClient()
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
func (s *Store) newClient() *http.Client {
	t := proxyenv.Transport(http.DefaultTransport.(*http.Transport))
	t.DisableCompression = true
	return &http.Client{Transport: &stall.Transport{Next: t, Limit: s.stall}, Timeout: fetchLimit, CheckRedirect: checkRedirect}
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
	asked    int64 // bytes of answers about where files are
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
	src, err := sourceOf(f.kind, f.request)
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
		list, err := src.wants(filepath.Base(l.path), l.text)
		if err != nil {
			f.left(0, fmt.Errorf("%s: %w", l.path, err))
		}
		for _, w := range list {
			// Of two packages with one hash, and of two hashes of one package, one may be a lie that
			// keeps the other out.
			key := w.url + " " + w.file + " " + w.sum
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
	if err != nil || !fi.Mode().IsRegular() || w.serves != nil && !w.serves(path) {
		return false
	}
	if b := w.beside; b.file != "" && !hasText(filepath.Join(s.Folder(kind), b.file), b.text) {
		return false // of another registry, or of a registry that has changed the package
	}
	if !s.linked(kind, w) || w.expand != nil && !s.hasChosen(kind, path) {
		return false
	}
	now := time.Now()
	_ = os.Chtimes(path, now, now) // else it is removed the earlier
	if w.beside.file != "" {
		_ = os.Chtimes(filepath.Join(s.Folder(kind), w.beside.file), now, now)
	}
	return true
}

// linked reports whether the store has the other names of a file.
func (s *Store) linked(kind sandbox.Cache, w want) bool {
	for _, link := range w.links {
		if to, err := os.Readlink(filepath.Join(s.Folder(kind), link)); err != nil || to != linkTo(link, w.file) {
			return false
		}
	}
	return true
}

// linkTo returns what a link contains that leads to a file. Both are in the folder of a kind.
func linkTo(link, file string) string { return strings.Repeat("../", strings.Count(link, "/")) + file }

// hasChosen reports whether the store has the files that were chosen for a want. All count as named by a
// lock file now.
func (s *Store) hasChosen(kind sandbox.Cache, path string) bool {
	text, err := regular.Read(path, maxChosenText, 0)
	lines, ok := strings.CutPrefix(string(text), chosenTitle)
	if err != nil || !ok {
		return false
	}
	now := time.Now()
	for line := range strings.Lines(lines) {
		if os.Chtimes(filepath.Join(s.Folder(kind), strings.TrimSuffix(line, "\n")), now, now) != nil {
			return false
		}
	}
	return true
}

// hasText reports whether a file has a text.
func hasText(path, text string) bool {
	b, err := regular.Read(path, int64(len(text)), 0)
	return err == nil && string(b) == text
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
	if err := f.mayFetch(); err != nil {
		f.left(1, err)
		return nil
	}
	err := f.fetch(ctx, w)
	var denied *deniedError
	switch {
	case errors.As(err, &denied):
		f.left(1, denied.why) // a request that is not made is no failure
		return nil
	case err == nil:
		f.mu.Lock()
		f.result.Added++
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

// deniedError means that the guest may not request what would have to be requested.
type deniedError struct{ why error }

func (e *deniedError) Error() string { return e.why.Error() }

// allowed returns a deniedError unless the guest may itself request the URL.
func (f *filler) allowed(url string) error {
	if err := f.request.Allowed(url); err != nil {
		return &deniedError{err}
	}
	return nil
}

// fetch fetches a file from where it is, if the guest may.
func (f *filler) fetch(ctx context.Context, w want) error {
	if w.expand != nil {
		return f.fetchChosen(ctx, w)
	}
	if w.locate != nil {
		var err error
		if w.url, err = w.locate(ctx, f.ask); err != nil {
			return err
		}
	}
	if err := f.allowed(w.url); err != nil {
		return err
	}
	n, err := f.store.fetch(ctx, f.client, f.kind, w)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		f.result.Bytes += n
	}
	return err
}

// fetchChosen fetches the files of which the registry says that they are wanted, and notes which they are.
func (f *filler) fetchChosen(ctx context.Context, w want) error {
	files, err := w.expand(ctx, f.ask)
	if err != nil {
		return err
	}
	chosen := bytes.NewBufferString(chosenTitle)
	for _, file := range files {
		if !f.store.has(f.kind, file) {
			err := f.mayFetch()
			if err == nil {
				err = f.fetch(ctx, file)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", file.name, err)
			}
		}
		fmt.Fprintf(chosen, "%s\n%s\n", file.file, file.beside.file)
	}
	return f.store.placeText(f.kind, beside{w.file, chosen.String()})
}

// ask is an asker.
func (f *filler) ask(ctx context.Context, url, accept string, limit int64) ([]byte, error) {
	if err := f.allowed(url); err != nil {
		return nil, err
	}
	a, err := request(ctx, f.client, url, accept)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	var b bytes.Buffer
	n, err := a.copyTo(&b, limit)
	f.mu.Lock()
	f.asked += n
	f.mu.Unlock()
	return b.Bytes(), err
}

// mayFetch returns why no more files are fetched; nil if they are.
func (f *filler) mayFetch() error {
	f.mu.Lock()
	failures, bytes := f.failures, f.result.Bytes+f.asked
	f.mu.Unlock()
	switch {
	case failures >= maxFailures:
		return fmt.Errorf("%d packages could not be fetched: the rest was not tried", failures)
	case bytes >= maxFill:
		return fmt.Errorf("the packages that are missing are larger than %d bytes: the rest is fetched the next time", int64(maxFill))
	}
	return nil
}

// errStalled means that a registry has sent nothing for too long.
var errStalled = errors.New("the registry stopped answering")

// errNoRoom means that the host's disk is nearly full.
var errNoRoom = errors.New("the host's disk is nearly full")

// answer is an answer of a registry to a request that it accepts. The caller closes it.
type answer struct {
	*http.Response
	ctx context.Context //nolint:containedctx // of the request: says why it was cancelled
}

// request requests a URL.
func request(ctx context.Context, client *http.Client, address, accept string) (*answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return nil, withoutURL(err)
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	a := &answer{ctx: ctx}
	if a.Response, err = client.Do(req); err != nil { //nolint:bodyclose // Close closes it
		return nil, withoutURL(err)
	}
	if a.StatusCode != http.StatusOK {
		a.Close()
		return nil, fmt.Errorf("the registry answered %s", a.Status)
	}
	return a, nil
}

// withoutURL returns errStalled for a stall, and otherwise an error of a request without the URL, which may have a password.
func withoutURL(err error) error {
	var stalled *stall.Error
	var u *url.Error
	switch {
	case errors.As(err, &stalled):
		return errStalled
	case errors.As(err, &u):
		return u.Err
	}
	return err
}

// Close ends the request.
func (a *answer) Close() { a.Body.Close() }

// copyTo copies the body, which must not have more bytes than limit.
func (a *answer) copyTo(w io.Writer, limit int64) (int64, error) {
	if a.ContentLength > limit {
		return 0, fmt.Errorf("it is larger than %d bytes", limit)
	}
	n, err := io.Copy(w, io.LimitReader(a.Body, limit+1))
	switch {
	case err != nil && a.ctx.Err() != nil:
		return 0, context.Cause(a.ctx)
	case err != nil:
		return 0, withoutURL(err)
	case n > limit:
		return 0, fmt.Errorf("it is larger than %d bytes", limit)
	}
	return n, nil
}

// fetch fetches a file, verifies it and puts it into its place. It returns how many bytes came.
func (s *Store) fetch(ctx context.Context, client *http.Client, kind sandbox.Cache, w want) (int64, error) {
	a, err := request(ctx, client, w.url, "")
	if err != nil {
		return 0, err
	}
	defer a.Close()
	if a.ContentLength > w.limit {
		return 0, fmt.Errorf("it is larger than %d bytes", w.limit)
	}
	tmp, err := os.CreateTemp(filepath.Join(s.root, tmpFolder), "")
	if err != nil {
		return 0, err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	if err := checkRoom(tmp, max(a.ContentLength, 1<<20)); err != nil {
		return 0, err
	}
	n, err := a.copyTo(tmp, w.limit)
	if err != nil {
		return 0, err
	}
	if err := verified(tmp, w, a.Header.Get("ETag")); err != nil {
		return 0, err
	}
	return n, s.placeBoth(kind, w, tmp)
}

// verified verifies what was fetched, and gives it the form that it has in the store.
func verified(tmp *os.File, w want, etag string) error {
	if _, err := tmp.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := w.verify(tmp); err != nil || w.rewrite == nil {
		return err
	}
	return w.rewrite(tmp, etag)
}

// placeBoth puts a verified file, and what is beside it, into their places. A file is never beside the
// hash of another one: one that is replaced goes first.
func (s *Store) placeBoth(kind sandbox.Cache, w want, tmp *os.File) error {
	if w.beside.file == "" {
		return s.place(kind, w.file, tmp)
	}
	if len(w.links) > 0 {
		return s.placeLinked(kind, w, tmp)
	}
	s.placing.Lock()
	defer s.placing.Unlock()
	if !hasText(filepath.Join(s.Folder(kind), w.beside.file), w.beside.text) {
		if err := os.Remove(filepath.Join(s.Folder(kind), w.file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := s.placeText(kind, w.beside); err != nil {
			return err
		}
	}
	return s.place(kind, w.file, tmp)
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

// placeLinked puts a file that has other names into its place, and then these.
func (s *Store) placeLinked(kind sandbox.Cache, w want, tmp *os.File) error {
	if err := s.place(kind, w.file, tmp); err != nil {
		return err
	}
	for i, link := range w.links {
		path, beside := filepath.Join(s.Folder(kind), link), fmt.Sprint(tmp.Name(), ".", i)
		err := os.MkdirAll(filepath.Dir(path), 0o700)
		if err == nil {
			err = os.Symlink(linkTo(link, w.file), beside)
		}
		if err == nil {
			err = os.Rename(beside, path)
		}
		if err != nil {
			return err
		}
	}
	return s.placeText(kind, w.beside)
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
