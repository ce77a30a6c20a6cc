package packages

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"

	"bawn.dev/bawn/internal/progress"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/proc/proctest"
	"bawn.dev/bawn/internal/sys/proxyenv/proxyenvtest"
)

// registryOf is a registry that serves files by their paths, and notes what it was asked for.
type registryOf struct {
	*httptest.Server
	mu    sync.Mutex
	asked []string
}

func serve(t *testing.T, files map[string][]byte) *registryOf {
	t.Helper()
	r := &registryOf{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.mu.Lock()
		r.asked = append(r.asked, q.URL.Path)
		r.mu.Unlock()
		b, ok := files[q.URL.Path]
		if !ok {
			http.NotFound(w, q)
			return
		}
		_, _ = w.Write(b)
	}))
	t.Cleanup(r.Close)
	proxyenvtest.Set(t)
	t.Setenv("NPM_CONFIG_USERCONFIG", "/dev/null")
	t.Setenv("npm_config_registry", r.URL+"/")
	t.Setenv("GOENV", "/dev/null")
	t.Setenv("GOPROXY", r.URL+"|direct")
	cargoFrom(t, r.URL)
	for _, v := range []string{"GONOPROXY", "GOPRIVATE"} {
		t.Setenv(v, "")
	}
	return r
}

func (r *registryOf) requests() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := slices.Clone(r.asked)
	slices.Sort(list)
	return list
}

func anything(string) error { return nil }

func fill(t *testing.T, s *Store, project string, allowed func(string) error, kinds ...sandbox.Cache) []Result {
	t.Helper()
	results, err := lockAndFill(t.Context(), s, Request{Project: project, Kinds: kinds, Allowed: allowed, Progress: progress.Silent})
	if err != nil {
		t.Fatal(err)
	}
	return results
}

func lockAndFill(ctx context.Context, s *Store, r Request) ([]Result, error) {
	l, err := s.Lock(ctx)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return s.Fill(ctx, r)
}

// stored returns the files of a kind with their contents.
func stored(t *testing.T, s *Store, kind sandbox.Cache) map[string]string {
	t.Helper()
	files, err := s.files(kind)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, f := range files {
		b, err := os.ReadFile(f.path)
		if err != nil {
			t.Fatal(err)
		}
		name, _ := filepath.Rel(s.Folder(kind), f.path)
		all[name] = string(b)
	}
	if left, err := os.ReadDir(filepath.Join(s.root, tmpFolder)); err != nil || len(left) > 0 {
		t.Errorf("left in tmp: %v, %v", left, err)
	}
	return all
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func integrity(content string) string {
	sum := sha512.Sum512([]byte(content))
	return "sha512-" + base64.StdEncoding.EncodeToString(sum[:])
}

// npmPlace is where cacache keeps a content.
func npmPlace(content string) string {
	sum := sha512.Sum512([]byte(content))
	h := hex.EncodeToString(sum[:])
	return filepath.Join("_cacache/content-v2/sha512", h[:2], h[2:4], h[4:])
}

type npmEntry struct {
	Name      string `json:"name,omitempty"`
	Version   string `json:"version"`
	Resolved  string `json:"resolved,omitempty"`
	Integrity string `json:"integrity,omitempty"`
}

func npmLockOf(t *testing.T, entries map[string]npmEntry) string {
	t.Helper()
	b, err := json.Marshal(map[string]any{"lockfileVersion": 3, "packages": entries})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestPoisonedNPMLock: whatever a lock file says, the store gets only what the registry serves for
// that very package, under its own hash.
func TestPoisonedNPMLock(t *testing.T) {
	evil := serve(t, map[string][]byte{"/good/-/good-1.0.0.tgz": []byte("evil"), "/stolen": []byte("evil")})
	r := serve(t, map[string][]byte{
		"/good/-/good-1.0.0.tgz":            []byte("good"),
		"/@a/scoped/-/scoped-2.0.0-b.1.tgz": []byte("scoped"),
		"/real/-/real-3.0.0.tgz":            []byte("real"),
		"/changed/-/changed-1.0.0.tgz":      []byte("what the registry serves now"),
		"/a-victim/-/a-victim-1.0.0.tgz":    []byte("victim"),
		"/x":                                []byte("x"),
	})
	at := func(path string) string { return r.URL + path }
	lock := npmLockOf(t, map[string]npmEntry{
		"":                         {Version: "1.0.0"},
		"node_modules/good":        {Version: "1.0.0", Resolved: at("/good/-/good-1.0.0.tgz"), Integrity: integrity("good")},
		"a/node_modules/@a/scoped": {Version: "2.0.0-b.1", Resolved: at("/@a/scoped/-/scoped-2.0.0-b.1.tgz"), Integrity: "sha1-AAAA " + integrity("scoped")},
		"node_modules/alias":       {Name: "real", Version: "3.0.0", Resolved: at("/real/-/real-3.0.0.tgz"), Integrity: integrity("real")},
		"node_modules/changed":     {Version: "1.0.0", Resolved: at("/changed/-/changed-1.0.0.tgz"), Integrity: integrity("what it served before")},
		"node_modules/a-victim":    {Version: "1.0.0", Resolved: at("/a-victim/-/a-victim-1.0.0.tgz"), Integrity: integrity("good")}, // another's content
		"node_modules/elsewhere":   {Version: "1.0.0", Resolved: evil.URL + "/good/-/good-1.0.0.tgz", Integrity: integrity("evil")},
		"b/node_modules/good":      {Version: "1.0.0", Resolved: evil.URL + "/good/-/good-1.0.0.tgz", Integrity: integrity("evil")},
		"node_modules/path":        {Version: "1.0.0", Resolved: at("/x"), Integrity: integrity("x")},
		"node_modules/../../x":     {Version: "1.0.0", Resolved: at("/../../x/-/x-1.0.0.tgz"), Integrity: integrity("x")},
		"node_modules/..":          {Version: "1.0.0", Resolved: at("/../-/..-1.0.0.tgz"), Integrity: integrity("x")},
		"node_modules/v":           {Version: "1.0.0/../../x", Resolved: at("/v/-/v-1.0.0/../../x.tgz"), Integrity: integrity("x")},
		"node_modules/query":       {Name: "x?y=", Version: "1.0.0", Resolved: at("/x?y=/-/x?y=-1.0.0.tgz"), Integrity: integrity("x")},
		"node_modules/weak":        {Version: "1.0.0", Resolved: at("/weak/-/weak-1.0.0.tgz"), Integrity: "sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk="},
		"node_modules/shortened":   {Version: "1.0.0", Resolved: at("/good/-/good-1.0.0.tgz"), Integrity: "sha512-AAAA"},
		"node_modules/unhashed":    {Version: "1.0.0", Resolved: at("/unhashed/-/unhashed-1.0.0.tgz")},
		"node_modules/git":         {Version: "1.0.0", Resolved: "git+ssh://git@host/x.git#abc", Integrity: integrity("x")},
	})
	project := t.TempDir()
	write(t, filepath.Join(project, "package-lock.json"), lock)
	s := Open(filepath.Join(t.TempDir(), "packages"))
	res := fill(t, s, project, anything, sandbox.CacheNPM)[0]
	want := map[string]string{npmPlace("good"): "good", npmPlace("scoped"): "scoped", npmPlace("real"): "real"}
	if got := stored(t, s, sandbox.CacheNPM); !maps.Equal(got, want) {
		t.Errorf("the store has %q, want %q", got, want)
	}
	// a-victim names the content of good, and does not keep it out.
	if res.Named != 5 || res.Added != 3 || res.Left != 2 || !strings.HasSuffix(res.Why, "@1.0.0: "+errHash.Error()) {
		t.Errorf("result: %+v", res)
	}
	for _, p := range r.requests() {
		if !strings.Contains(p, "/-/") || strings.Contains(p, "..") {
			t.Errorf("the registry was asked for %s", p)
		}
	}
	if n := evil.requests(); len(n) > 0 {
		t.Errorf("the other host was asked for %q", n)
	}
	before := len(r.requests())
	if res = fill(t, s, project, anything, sandbox.CacheNPM)[0]; res.Added != 0 || res.Left != 1 || len(r.requests()) != before+1 {
		t.Errorf("the second time: %+v, %q", res, r.requests()[before:])
	}
}

// TestContentOfAnotherPackage: a lock file that gives one package the hash of another does not make
// the store keep the first one's content, or any content under a wrong hash.
func TestContentOfAnotherPackage(t *testing.T) {
	r := serve(t, map[string][]byte{"/victim/-/victim-1.0.0.tgz": []byte("victim"), "/evil/-/evil-1.0.0.tgz": []byte("evil")})
	project := t.TempDir()
	write(t, filepath.Join(project, "package-lock.json"), npmLockOf(t, map[string]npmEntry{
		"node_modules/victim": {Version: "1.0.0", Resolved: r.URL + "/victim/-/victim-1.0.0.tgz", Integrity: integrity("evil")},
	}))
	s := Open(t.TempDir())
	if res := fill(t, s, project, anything, sandbox.CacheNPM)[0]; res.Left != 1 || len(stored(t, s, sandbox.CacheNPM)) != 0 {
		t.Errorf("%+v, %q", res, stored(t, s, sandbox.CacheNPM))
	}
}

// TestRulesDecide: nothing is asked of a registry that the guest may not ask.
func TestRulesDecide(t *testing.T) {
	r := serve(t, map[string][]byte{"/good/-/good-1.0.0.tgz": []byte("good")})
	project := t.TempDir()
	write(t, filepath.Join(project, "package-lock.json"), npmLockOf(t, map[string]npmEntry{
		"node_modules/good": {Version: "1.0.0", Resolved: r.URL + "/good/-/good-1.0.0.tgz", Integrity: integrity("good")},
	}))
	s := Open(t.TempDir())
	var about string
	res := fill(t, s, project, func(url string) error { about = url; return errors.New("denied by a rule") }, sandbox.CacheNPM)[0]
	if res.Added != 0 || res.Left != 1 || res.Why != "denied by a rule" || about != r.URL+"/good/-/good-1.0.0.tgz" || len(r.requests()) != 0 {
		t.Errorf("%+v about %s, requests %q", res, about, r.requests())
	}
}

// TestHostileProject: the search for lock files follows no link, opens no pipe and ends.
func TestHostileProject(t *testing.T) {
	serve(t, nil)
	outside := t.TempDir()
	write(t, filepath.Join(outside, "package-lock.json"), "secret")
	project := t.TempDir()
	for _, err := range []error{
		os.Symlink(filepath.Join(outside, "package-lock.json"), filepath.Join(project, "package-lock.json")),
		os.Symlink(outside, filepath.Join(project, "dir")),
		syscall.Mkfifo(filepath.Join(project, "go.sum"), 0o600),
		os.Mkdir(filepath.Join(project, "go.work.sum"), 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(project, "node_modules/x/package-lock.json"), "{}")
	write(t, filepath.Join(project, "1/2/3/4/go.sum"), "deep enough h1:x\n")
	write(t, filepath.Join(project, "1/2/3/4/5/go.sum"), "too deep h1:x\n")
	write(t, filepath.Join(project, "big/go.sum"), strings.Repeat("x", maxLock+1))
	for i := range maxLocks + 5 {
		write(t, filepath.Join(project, fmt.Sprint("z", i), "package-lock.json"), "{")
	}
	locks, err := findLocks(project)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range slices.Concat(locks[sandbox.CacheNPM], locks[sandbox.CacheGo]) {
		if string(l.text) == "secret" || strings.Contains(l.path, "/5/") || strings.Contains(l.path, "node_modules") || strings.HasPrefix(l.path, "big") {
			t.Errorf("found %s", l.path)
		}
	}
	if n := len(locks[sandbox.CacheNPM]) + len(locks[sandbox.CacheGo]); n != maxLocks {
		t.Errorf("found %d lock files", n)
	}
	s := Open(t.TempDir())
	if res := fill(t, s, project, anything, sandbox.CacheNPM)[0]; res.Named != 0 || !strings.Contains(res.Why, "it is not a lock file of npm") {
		t.Errorf("%+v", res)
	}
}

// TestHostileRegistry: an answer that is too large, a redirect to another host, and a registry that
// fails leave nothing in the store; a registry that fails again and again is not asked for ever.
func TestHostileRegistry(t *testing.T) {
	other := serve(t, map[string][]byte{"/a": []byte("good")})
	endless := func(w http.ResponseWriter) {
		for b := make([]byte, 1<<16); ; {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	}
	var asked atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		asked.Add(1)
		switch q.URL.Path {
		case "/announced":
			w.Header().Set("Content-Length", "1000000000000")
		case "/endless":
			endless(w)
		case "/elsewhere":
			http.Redirect(w, q, other.URL+"/a", http.StatusFound)
		case "/loop":
			http.Redirect(w, q, "/loop", http.StatusFound)
		case "/stalls":
			w.Header().Set("Content-Length", "100")
			w.(http.Flusher).Flush()
			<-q.Context().Done()
		case "/short":
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("good"))
		case "/here":
			http.Redirect(w, q, "/ok", http.StatusFound)
		case "/ok":
			_, _ = w.Write([]byte("good"))
		default:
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	t.Cleanup(srv.Close)
	s := Open(t.TempDir())
	s.stall = 2 * time.Second // long enough for the answers of a busy host
	l, err := s.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sum := sha512.Sum512([]byte("good"))
	get := func(path string, limit int64) error {
		w := npmWant("x", srv.URL+path, sum[:])
		w.limit = limit
		_, err := s.fetch(t.Context(), s.newClient(), sandbox.CacheNPM, w)
		return err
	}
	for path, want := range map[string]string{
		"/announced": "larger than 100000 bytes", "/endless": "larger than 100000 bytes", "/elsewhere": "redirects to another host",
		"/loop": "too many redirects", "/short": "unexpected EOF", "/missing": "500", "/stalls": errStalled.Error(),
	} {
		if err := get(path, 100_000); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	if err := get("/announced", 1<<60); !errors.Is(err, errNoRoom) {
		t.Errorf("more than the disk has room for: %v", err)
	}
	if got := stored(t, s, sandbox.CacheNPM); len(got) != 0 || len(other.requests()) != 0 {
		t.Errorf("the store has %q, the other host was asked for %q", got, other.requests())
	}
	if err := get("/here", 100); err != nil || stored(t, s, sandbox.CacheNPM)[npmPlace("good")] != "good" {
		t.Errorf("a redirect to another path: %v", err)
	}
	var missing []want
	for i := range 10 * maxFailures {
		w := npmWant("x", srv.URL+"/missing", sum[:])
		w.file = fmt.Sprint("f", i)
		missing = append(missing, w)
	}
	f := filler{store: s, kind: sandbox.CacheNPM, request: &Request{Allowed: anything}, client: s.newClient()}
	asked.Store(0)
	if err := f.fetchAll(t.Context(), missing, progress.Silent.Start("", 0, progress.Steps)); err != nil || f.result.Left != len(missing) || f.failures > maxFailures+fetchers {
		t.Errorf("%v, %+v, %d failures", err, f.result, f.failures)
	}
	if n := asked.Load(); n > maxFailures+fetchers {
		t.Errorf("asked %d times", n)
	}
}

// goModule returns the zip of a module with these files, and its hash.
func goModule(t *testing.T, m module.Version, files map[string]string) (archive []byte, sum string) {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, text := range files {
		w, err := z.Create(m.Path + "@" + m.Version + "/" + name)
		if err == nil {
			_, err = io.WriteString(w, text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "zip")
	write(t, path, b.String())
	sum, err := dirhash.HashZip(path, dirhash.Hash1)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), sum
}

func modSum(t *testing.T, text string) string {
	t.Helper()
	sum, err := dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil })
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// TestGoModules: the modules of a go.sum are in the store as Go's own cache has them, and Go builds
// with them without a network. What does not have the hash of the go.sum is not.
func TestGoModules(t *testing.T) {
	m, other := module.Version{Path: "example.org/Big/m", Version: "v1.2.3"}, module.Version{Path: "example.org/other", Version: "v1.0.0"}
	const mod = "module example.org/Big/m\n"
	archive, sum := goModule(t, m, map[string]string{"go.mod": mod, "m.go": "package m\n\nconst Word = \"word\"\n"})
	evil, evilSum := goModule(t, m, map[string]string{"go.mod": mod, "m.go": "package m\n\nconst Word = \"evil\"\n"})
	otherZip, otherSum := goModule(t, other, map[string]string{"go.mod": "module example.org/other\n"})
	info := func(v string) []byte { return []byte(`{"Version":"` + v + `","Time":"2020-01-01T00:00:00Z"}`) }
	const dir, at = "/example.org/!big/m/@v/v1.2.3", "example.org/!big/m/@v/v1.2.3"
	r := serve(t, map[string][]byte{
		dir + ".zip": archive, dir + ".mod": []byte(mod), dir + ".info": info("v1.2.3"),
		"/example.org/changed/@v/v1.0.0.zip": evil, "/example.org/changed/@v/v1.0.0.mod": []byte("module evil\n"), "/example.org/changed/@v/v1.0.0.info": info("v9.9.9"),
		"/example.org/wrong/@v/v1.0.0.zip": otherZip, "/example.org/notzip/@v/v1.0.0.zip": []byte("PK no"),
	})
	lines := []string{
		m.Path + " v1.2.3 " + sum, m.Path + " v1.2.3/go.mod " + modSum(t, mod),
		"example.org/changed v1.0.0 " + sum, "example.org/changed v1.0.0/go.mod " + modSum(t, mod),
		"example.org/wrong v1.0.0 " + otherSum, // the zip of another module
		"example.org/notzip v1.0.0 " + otherSum,
		"example.org/twice v1.0.0 " + sum, "example.org/twice v1.0.0 " + evilSum,
		"private.example.org/x v1.0.0 " + sum,
		"../../etc/passwd v1.0.0 " + sum, "example.org/../x v1.0.0 " + sum, "/abs v1.0.0 " + sum,
		"example.org/v v1.0.0/../../../x " + sum, "example.org/v latest " + sum, "example.org/q?x v1.0.0 " + sum,
		"example.org/nohash v1.0.0 sha256:x", "garbage",
	}
	t.Setenv("GOPRIVATE", "private.example.org")
	project := t.TempDir()
	write(t, filepath.Join(project, "go.sum"), strings.Join(lines, "\n")+"\n")
	write(t, filepath.Join(project, "go.mod"), "module t\n\ngo 1.20\n\nrequire "+m.Path+" v1.2.3\n")
	write(t, filepath.Join(project, "main.go"), "package main\n\nimport m \"example.org/Big/m\"\n\nfunc main() { println(m.Word) }\n")
	s := Open(t.TempDir())
	res := fill(t, s, project, anything, sandbox.CacheGo)[0]
	want := map[string]string{at + ".zip": string(archive), at + ".ziphash": sum, at + ".mod": mod, at + ".info": string(info("v1.2.3"))}
	if got := stored(t, s, sandbox.CacheGo); !maps.Equal(got, want) {
		t.Errorf("the store has %q", slices.Collect(maps.Keys(got)))
	}
	if res.Added != 3 || res.Left == 0 {
		t.Errorf("%+v", res)
	}
	for _, p := range r.requests() {
		if strings.Contains(p, "..") || strings.Contains(p, "private") || strings.Contains(p, "twice") {
			t.Errorf("the proxy was asked for %s", p)
		}
	}
	// A store below Go's own cache, as a guest has it, is all that Go needs.
	cache := t.TempDir()
	if err := os.CopyFS(filepath.Join(cache, "cache/download"), os.DirFS(s.Folder(sandbox.CacheGo))); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-o", "/dev/null", ".")
	cmd.Dir = project
	cmd.Env = append(os.Environ(), "GOMODCACHE="+cache, "GOPROXY=off", "GOFLAGS=-modcacherw", "GOTOOLCHAIN=local", "GOWORK=off", "GONOSUMDB=", "GOPRIVATE=")
	write(t, filepath.Join(project, "go.sum"), strings.Join(lines[:2], "\n")+"\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("go build: %v\n%s", err, out)
	}
}

// npmArchive returns a package of one file.
func npmArchive(t *testing.T, packageJSON string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	err := w.WriteHeader(&tar.Header{Name: "package/package.json", Mode: 0o644, Size: int64(len(packageJSON))})
	if err == nil {
		_, err = io.WriteString(w, packageJSON)
	}
	if err := errors.Join(err, w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestNPMUsesTheStore: npm installs from a store below its cache, without a network.
func TestNPMUsesTheStore(t *testing.T) {
	npm, err := exec.LookPath("npm")
	if err != nil {
		t.Skip("npm is not installed")
	}
	tgz := npmArchive(t, `{"name":"left","version":"1.0.0"}`)
	r := serve(t, map[string][]byte{"/left/-/left-1.0.0.tgz": tgz})
	project := t.TempDir()
	write(t, filepath.Join(project, "package.json"), `{"name":"p","version":"1.0.0","dependencies":{"left":"1.0.0"}}`)
	write(t, filepath.Join(project, "package-lock.json"), npmLockOf(t, map[string]npmEntry{
		"node_modules/left": {Version: "1.0.0", Resolved: r.URL + "/left/-/left-1.0.0.tgz", Integrity: integrity(string(tgz))},
	}))
	// npm compares the root of the lock file with package.json.
	lock, err := os.ReadFile(filepath.Join(project, "package-lock.json"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(project, "package-lock.json"), strings.Replace(string(lock), `"packages":{`, `"packages":{"":{"name":"p","version":"1.0.0","dependencies":{"left":"1.0.0"}},`, 1))
	s := Open(t.TempDir())
	if res := fill(t, s, project, anything, sandbox.CacheNPM)[0]; res.Added != 1 {
		t.Fatalf("%+v", res)
	}
	r.Close()
	cache := t.TempDir()
	if err := os.CopyFS(cache, os.DirFS(s.Folder(sandbox.CacheNPM))); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(npm, "ci", "--no-audit", "--no-fund", "--cache", cache, "--fetch-retries=0")
	cmd.Dir = project
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(project, "node_modules/left/package.json")); err != nil {
		t.Error(err)
	}
}

// TestTrimAndPrune: what no lock file has named for the longest time goes first; what a killed
// process has left in tmp goes, too.
func TestTrimAndPrune(t *testing.T) {
	r := serve(t, map[string][]byte{"/a/-/a-1.0.0.tgz": []byte("aaaa"), "/b/-/b-1.0.0.tgz": []byte("bbbb"), "/c/-/c-1.0.0.tgz": []byte("cccc")})
	entry := func(name string) npmEntry {
		return npmEntry{Version: "1.0.0", Resolved: r.URL + "/" + name + "/-/" + name + "-1.0.0.tgz", Integrity: integrity(strings.Repeat(name, 4))}
	}
	s := Open(t.TempDir())
	s.max = 2 * onDisk(1)
	project := t.TempDir()
	named := func(names ...string) {
		entries := map[string]npmEntry{}
		for _, n := range names {
			entries["node_modules/"+n] = entry(n)
		}
		write(t, filepath.Join(project, "package-lock.json"), npmLockOf(t, entries))
		write(t, filepath.Join(s.root, tmpFolder, "left"), "of a killed process")
		fill(t, s, project, anything, sandbox.CacheNPM)
	}
	old := func(content string, hours time.Duration) {
		then := time.Now().Add(-hours * time.Hour)
		if err := os.Chtimes(filepath.Join(s.Folder(sandbox.CacheNPM), npmPlace(content)), then, then); err != nil {
			t.Fatal(err)
		}
	}
	named("a", "b")
	old("aaaa", 2)
	old("bbbb", 1)
	named("a") // named again: b is the oldest now
	named("c")
	got := stored(t, s, sandbox.CacheNPM)
	if !maps.Equal(got, map[string]string{npmPlace("aaaa"): "aaaa", npmPlace("cccc"): "cccc"}) {
		t.Errorf("the store has %q", got)
	}
	old("aaaa", 48)
	freed, err := s.Prune(time.Now().Add(-24 * time.Hour))
	if got := stored(t, s, sandbox.CacheNPM); err != nil || freed != onDisk(4) || !maps.Equal(got, map[string]string{npmPlace("cccc"): "cccc"}) {
		t.Errorf("pruned %d, %v: the store has %q", freed, err, got)
	}
	u, err := s.Usage()
	i := slices.Index(sandbox.Caches, sandbox.CacheNPM)
	if err != nil || len(u) != len(sandbox.Caches) || u[i].Kind != sandbox.CacheNPM || u[i].Files != 1 || u[i].Bytes != onDisk(4) {
		t.Errorf("%+v, %v", u, err)
	}
}

// TestTheHashOfAModuleStaysWithIt: the file beside a module's archive, of which Go takes the hash, is
// named by the same lock files, so it is not removed before the archive.
func TestTheHashOfAModuleStaysWithIt(t *testing.T) {
	m := module.Version{Path: "example.org/m", Version: "v1.0.0"}
	archive, sum := goModule(t, m, map[string]string{"go.mod": "module example.org/m\n"})
	const at = "example.org/m/@v/v1.0.0"
	serve(t, map[string][]byte{"/" + at + ".zip": archive, "/" + at + ".info": []byte(`{"Version":"v1.0.0"}`)})
	project, s := t.TempDir(), Open(t.TempDir())
	write(t, filepath.Join(project, "go.sum"), m.Path+" v1.0.0 "+sum+"\n")
	fill(t, s, project, anything, sandbox.CacheGo)
	then := time.Now().Add(-48 * time.Hour)
	for name := range stored(t, s, sandbox.CacheGo) {
		if err := os.Chtimes(filepath.Join(s.Folder(sandbox.CacheGo), name), then, then); err != nil {
			t.Fatal(err)
		}
	}
	fill(t, s, project, anything, sandbox.CacheGo)
	if _, err := s.Prune(time.Now().Add(-24 * time.Hour)); err != nil {
		t.Fatal(err)
	}
	names := slices.Sorted(maps.Keys(stored(t, s, sandbox.CacheGo)))
	if !slices.Equal(names, []string{at + ".info", at + ".zip", at + ".ziphash"}) {
		t.Errorf("the store has %q", names)
	}
}

// TestAttackLieAboutAModule: a go.sum with another hash of a module neither keeps the module out for the
// other go.sum of a project, whichever is read first, nor leaves its own hash beside the archive, from
// which Go would take it.
func TestAttackLieAboutAModule(t *testing.T) {
	m := module.Version{Path: "example.org/m", Version: "v1.0.0"}
	archive, sum := goModule(t, m, map[string]string{"go.mod": "module example.org/m\n"})
	const at = "example.org/m/@v/v1.0.0"
	files := map[string][]byte{"/" + at + ".zip": archive, "/" + at + ".info": []byte(`{"Version":"v1.0.0"}`)}
	serve(t, files)
	project, s := t.TempDir(), Open(t.TempDir())
	lie := "h1:" + base64.StdEncoding.EncodeToString(make([]byte, 32))
	for dir, h := range map[string]string{"a": lie, "b": sum, "c": lie} {
		write(t, filepath.Join(project, dir, "go.sum"), m.Path+" v1.0.0 "+h+"\n")
	}
	check := func(when, content, hash string) {
		t.Helper()
		got := stored(t, s, sandbox.CacheGo)
		if got[at+".zip"] != content || got[at+".ziphash"] != hash {
			t.Errorf("%s: the hash is %s, the archive has %d bytes", when, got[at+".ziphash"], len(got[at+".zip"]))
		}
	}
	if res := fill(t, s, project, anything, sandbox.CacheGo)[0]; res.Named != 3 || res.Added != 2 || res.Left != 1 {
		t.Errorf("%+v", res)
	}
	check("with a lie", string(archive), sum)
	// The proxy of the host's settings is another one now, with another module of that name.
	other, otherSum := goModule(t, m, map[string]string{"go.mod": "module example.org/m\n", "x.go": "package m\n"})
	files["/"+at+".zip"] = other
	write(t, filepath.Join(project, "b/go.sum"), m.Path+" v1.0.0 "+otherSum+"\n")
	fill(t, s, project, anything, sandbox.CacheGo)
	check("from another proxy", string(other), otherSum)
}

// TestAttackManySmallFiles: files count by the blocks that they take on the disk, so that small ones
// without end do not fill it.
func TestAttackManySmallFiles(t *testing.T) {
	const count = 40
	path := func(name string) string { return "/" + name + "/-/" + name + "-1.0.0.tgz" }
	files, entries := map[string][]byte{}, map[string]npmEntry{}
	for i := range count {
		name := fmt.Sprint("p", i)
		files[path(name)] = []byte(name)
	}
	r := serve(t, files)
	for i := range count {
		name := fmt.Sprint("p", i)
		entries["node_modules/"+name] = npmEntry{Version: "1.0.0", Resolved: r.URL + path(name), Integrity: integrity(name)}
	}
	project, s := t.TempDir(), Open(t.TempDir())
	s.max = 10 * 4096
	write(t, filepath.Join(project, "package-lock.json"), npmLockOf(t, entries))
	fill(t, s, project, anything, sandbox.CacheNPM)
	if n := len(stored(t, s, sandbox.CacheNPM)); n != 10 {
		t.Errorf("%d files of some bytes are in a store of 10 blocks", n)
	}
}

// TestAttackLargeLocks: lock files that are each as large as one may be do not fill the host's memory
// together.
func TestAttackLargeLocks(t *testing.T) {
	project := t.TempDir()
	large := strings.Repeat("x", maxLock)
	for i := range maxText/maxLock + 3 {
		write(t, filepath.Join(project, fmt.Sprint(i), "go.sum"), large)
	}
	locks, err := findLocks(project)
	if n := len(locks[sandbox.CacheGo]); err != nil || n != maxText/maxLock {
		t.Errorf("%d lock files, %v", n, err)
	}
}

// TestAttackSettingsInTheProject: a file of the project, which is the working directory of
// bawn cache fill, does not name Go's proxy, whatever the person's GOENV is.
func TestAttackSettingsInTheProject(t *testing.T) {
	project := t.TempDir()
	t.Chdir(project)
	t.Setenv("GOPROXY", "")
	for _, name := range []string{"off", "env"} {
		write(t, filepath.Join(project, name), "GOPROXY=https://evil.example\n")
		t.Setenv("GOENV", name)
		if v := goSetting(readGoSettings(t), "GOPROXY"); v != "" {
			t.Errorf("GOENV=%s: GOPROXY is %s", name, v)
		}
	}
	t.Setenv("GOENV", filepath.Join(project, "env"))
	if v := goSetting(readGoSettings(t), "GOPROXY"); v != "https://evil.example" {
		t.Errorf("the person's own file: %q", v)
	}
}

// TestTwoFills: two at once, as of two sandboxes, wait for each other.
func TestTwoFills(t *testing.T) {
	r := serve(t, map[string][]byte{"/a/-/a-1.0.0.tgz": []byte("aaaa")})
	project := t.TempDir()
	write(t, filepath.Join(project, "package-lock.json"), npmLockOf(t, map[string]npmEntry{
		"node_modules/a": {Version: "1.0.0", Resolved: r.URL + "/a/-/a-1.0.0.tgz", Integrity: integrity("aaaa")},
	}))
	s := Open(t.TempDir())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := lockAndFill(t.Context(), s, Request{Project: project, Kinds: []sandbox.Cache{sandbox.CacheNPM}, Allowed: anything, Progress: progress.Silent}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(r.requests()); n != 1 {
		t.Errorf("fetched %d times", n)
	}
}

// killedEnv is set in a process that fills the store whose folder is its value, and is killed.
const killedEnv = "BAWN_TEST_FILL"

// TestKilledFill: a process that is killed while it fetches leaves whole packages only, and the next
// one goes on.
func TestKilledFill(t *testing.T) {
	if root := os.Getenv(killedEnv); root != "" {
		fill(t, Open(root), os.Getenv(killedEnv+"_PROJECT"), anything, sandbox.CacheNPM)
		return
	}
	big := bytes.Repeat([]byte("big"), 1<<20)
	halfway, goOn := make(chan struct{}), make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/small/-/small-1.0.0.tgz" {
			_, _ = w.Write([]byte("small"))
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(big)))
		_, _ = w.Write(big[:len(big)/2])
		w.(http.Flusher).Flush()
		select {
		case halfway <- struct{}{}:
			<-q.Context().Done()
		case <-goOn:
			_, _ = w.Write(big[len(big)/2:])
		}
	}))
	t.Cleanup(srv.Close)
	proxyenvtest.Set(t)
	t.Setenv("npm_config_registry", srv.URL)
	project, s := t.TempDir(), Open(t.TempDir())
	write(t, filepath.Join(project, "package-lock.json"), npmLockOf(t, map[string]npmEntry{
		"node_modules/big":   {Version: "1.0.0", Resolved: srv.URL + "/big/-/big-1.0.0.tgz", Integrity: integrity(string(big))},
		"node_modules/small": {Version: "1.0.0", Resolved: srv.URL + "/small/-/small-1.0.0.tgz", Integrity: integrity("small")},
	}))
	child := exec.Command(os.Args[0], "-test.run=^TestKilledFill$")
	child.Env = append(os.Environ(), killedEnv+"="+s.root, killedEnv+"_PROJECT="+project)
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	<-halfway
	small := filepath.Join(s.Folder(sandbox.CacheNPM), npmPlace("small"))
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(small); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the other package does not come")
		}
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	files, err := s.files(sandbox.CacheNPM)
	if err != nil || len(files) != 1 || files[0].size != onDisk(int64(len("small"))) {
		t.Errorf("the killed process left %+v, %v", files, err)
	}
	close(goOn)
	if res := fill(t, s, project, anything, sandbox.CacheNPM)[0]; res.Added != 1 || res.Left != 0 {
		t.Errorf("the next one: %+v", res)
	}
	if got := stored(t, s, sandbox.CacheNPM); got[npmPlace(string(big))] != string(big) || got[npmPlace("small")] != "small" {
		t.Error("the packages are not there")
	}
}

// TestInterruptedFill: an interruption ends a Fill, also one that waits for another, and leaves nothing
// half-made.
func TestInterruptedFill(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	interruption := errors.New("interrupted")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		_, _ = w.Write([]byte("part"))
		w.(http.Flusher).Flush()
		cancel(interruption)
		<-q.Context().Done()
	}))
	t.Cleanup(srv.Close)
	proxyenvtest.Set(t)
	t.Setenv("npm_config_registry", srv.URL)
	project, s := t.TempDir(), Open(t.TempDir())
	write(t, filepath.Join(project, "package-lock.json"), npmLockOf(t, map[string]npmEntry{
		"node_modules/a": {Version: "1.0.0", Resolved: srv.URL + "/a/-/a-1.0.0.tgz", Integrity: integrity("part")},
	}))
	request := Request{Project: project, Kinds: []sandbox.Cache{sandbox.CacheNPM}, Allowed: anything, Progress: progress.Silent}
	if _, err := lockAndFill(ctx, s, request); !errors.Is(err, interruption) {
		t.Errorf("interrupted: %v", err)
	}
	if got := stored(t, s, sandbox.CacheNPM); len(got) != 0 {
		t.Errorf("the store has %q", got)
	}
	// One that is interrupted makes room, too: else many of them would fill the disk.
	s.max = 0
	write(t, filepath.Join(s.Folder(sandbox.CacheNPM), npmPlace("old")), "old")
	if _, err := lockAndFill(ctx, s, request); !errors.Is(err, interruption) || len(stored(t, s, sandbox.CacheNPM)) != 0 {
		t.Errorf("interrupted with a store that is too large: %v, %q", err, stored(t, s, sandbox.CacheNPM))
	}
	l, err := s.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := lockAndFill(ctx, s, request); !errors.Is(err, interruption) && !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted while it waits: %v", err)
	}
}

// FuzzNPMLock: what a lock file can make the host ask for is at the registry, and what it can make
// the store write is in the kind's folder.
func FuzzNPMLock(f *testing.F) {
	const base = "https://registry.example/npm/"
	f.Add([]byte(`{"packages":{"node_modules/a":{"version":"1.0.0","resolved":"` + base + `a/-/a-1.0.0.tgz","integrity":"` + integrity("a") + `"}}}`))
	f.Add([]byte(`{"packages":{"node_modules/../a":{"version":"1.0.0","name":"@a/b","integrity":"sha512-` + strings.Repeat("A", 86) + `=="}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		wants, _ := npmWants(text, []string{base})
		checkWants(t, wants, base)
	})
}

// FuzzGoSum is FuzzNPMLock for go.sum.
func FuzzGoSum(f *testing.F) {
	const base = "https://proxy.example/"
	f.Add([]byte("example.org/M v1.0.0 h1:x\nexample.org/M v1.0.0/go.mod h1:y\n"))
	f.Add([]byte("../x v1.0.0 h1:x\nexample.org/x v1.0.0/../y h1:x\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		wants, _ := goWants(text, base, "")
		checkWants(t, wants, base)
	})
}

func checkWants(t *testing.T, wants []want, base string) {
	t.Helper()
	for _, w := range wants {
		if w.locate != nil {
			var err error
			if w.url, err = w.locate(t.Context(), standIn); err != nil {
				t.Errorf("%s: %v", w.name, err)
			}
		}
		u, err := http.NewRequest(http.MethodGet, w.url, http.NoBody)
		if err != nil || !strings.HasPrefix(u.URL.String(), base) || u.URL.RawQuery != "" || u.URL.Fragment != "" || strings.Contains(u.URL.Path, "..") && slices.Contains(strings.Split(u.URL.Path, "/"), "..") {
			t.Errorf("asks for %q: %v", w.url, err)
		}
		if !filepath.IsLocal(w.file) || filepath.Clean(w.file) != w.file || strings.ContainsAny(w.file, "\x00\\\n") {
			t.Errorf("writes %q", w.file)
		}
	}
}

func readGoSettings(t *testing.T) []byte {
	t.Helper()
	file, err := goSettings()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// TestAttackSettingsThatAGuestWrites: where the person's settings lie in a shared directory (dotfiles, say), a guest
// does not choose whom the host asks for packages.
func TestAttackSettingsThatAGuestWrites(t *testing.T) {
	shared := t.TempDir()
	for _, name := range []string{"npm_config_registry", "NPM_CONFIG_REGISTRY", "GOPROXY", "GONOPROXY", "GOPRIVATE", "PIP_INDEX_URL"} {
		t.Setenv(name, "")
	}
	for name, file := range map[string]string{"NPM_CONFIG_USERCONFIG": "npmrc", "GOENV": "env", "PIP_CONFIG_FILE": "pip.conf"} {
		t.Setenv(name, filepath.Join(shared, file))
	}
	t.Setenv("CARGO_HOME", shared)
	write(t, filepath.Join(shared, "npmrc"), "registry=https://evil.example/\n")
	write(t, filepath.Join(shared, "env"), "GOPROXY=https://evil.example\n")
	write(t, filepath.Join(shared, "pip.conf"), "[global]\nindex-url = https://evil.example/\n")
	write(t, filepath.Join(shared, "config.toml"), "[source.crates-io]\nreplace-with = \"evil\"\n[source.evil]\nregistry = \"sparse+https://evil.example/\"\n")
	sources := map[string]func() (*source, error){
		"npm": npmSource, "go": goSource, "cargo": cargoSource,
		"pip": func() (*source, error) { return pipSource([]int{13}) },
	}
	for name, open := range sources {
		if s, err := open(); err != nil || !strings.Contains(s.base, "evil") {
			t.Errorf("%s: the person's own settings do not count: %+v, %v", name, s, err)
		}
	}
	proctest.Share(t, shared)
	for name, open := range sources {
		if s, err := open(); err == nil || !strings.Contains(err.Error(), "is not used: ") {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
}
