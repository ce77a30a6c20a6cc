//go:build vm

package vmtest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/agents/registry"
	"bawn.dev/bawn/internal/policy"
)

// npmPackage is a package that is made for a test, and is like no other.
type npmPackage struct {
	archive []byte
	hash    string // in hex
	lock    string // its entry in a package-lock.json
}

// newNPMPackage returns version 1.0.0 of a package, whose index.js exports a word.
func newNPMPackage(t *testing.T, name, word string) npmPackage {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for file, text := range map[string]string{
		"package.json": `{"name":"` + name + `","version":"1.0.0"}`, "index.js": `module.exports = "` + word + `"` + "\n// " + rand.Text(),
	} {
		err := w.WriteHeader(&tar.Header{Name: "package/" + file, Mode: 0o644, Size: int64(len(text))})
		if err == nil {
			_, err = io.WriteString(w, text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	sum := sha512.Sum512(b.Bytes())
	return npmPackage{b.Bytes(), hex.EncodeToString(sum[:]), fmt.Sprintf(`"node_modules/%s":{"version":"1.0.0","resolved":"https://%s/%s/-/%s-1.0.0.tgz","integrity":"sha512-%s"}`,
		name, registry.DefaultHost(), name, name, base64.StdEncoding.EncodeToString(sum[:]))}
}

// place is where npm's cache has the package's contents.
func (p npmPackage) place() string {
	return "_cacache/content-v2/sha512/" + p.hash[:2] + "/" + p.hash[2:4] + "/" + p.hash[4:]
}

// writeNPMProject makes a directory a project that needs a package good.
func writeNPMProject(t *testing.T, dir string, entries ...string) {
	t.Helper()
	const root = `"name":"p","version":"1.0.0","dependencies":{"good":"1.0.0"}`
	writeFile(t, filepath.Join(dir, "package.json"), "{"+root+"}")
	writeFile(t, filepath.Join(dir, "package-lock.json"), `{"name":"p","version":"1.0.0","lockfileVersion":3,"packages":{"":{`+root+`},`+strings.Join(entries, ",")+"}}")
}

// TestCaches: what the lock file of one sandbox names is there for the next one, which has no network.
// What root of the first one writes into its cache, and what it writes into the lock file that is not
// the registry's, reaches neither the host's store nor the next sandbox.
func TestCaches(t *testing.T) {
	good, evil, added := newNPMPackage(t, "good", "good"), newNPMPackage(t, "evil", "evil"), newNPMPackage(t, "added", "added")
	fresh := newNPMPackage(t, "fresh", "fresh")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/good/-/good-1.0.0.tgz":
			_, _ = w.Write(good.archive)
		case "/added/-/added-1.0.0.tgz":
			_, _ = w.Write(added.archive)
		case "/fresh/-/fresh-1.0.0.tgz":
			_, _ = w.Write(fresh.archive)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	port := srv.URL[strings.LastIndexByte(srv.URL, ':'):]
	first, second := project(t, "cache-first"), project(t, "cache-second")
	writeNPMProject(t, first, good.lock)
	writeNPMProject(t, second, good.lock)
	run := func(dir string, args ...string) string {
		t.Helper()
		r := bawnAt(t.Context(), dir, nil, []string{"npm_config_registry=" + srv.URL}, args...)
		if r.code != 0 {
			t.Fatalf("bawn %q: exit status %d\n%s%s%s", args, r.code, r.out, r.err, logs(dir))
		}
		return r.out
	}
	files := func() (n int) {
		var list []struct {
			Kind  string
			Files int
		}
		if err := json.Unmarshal([]byte(must(t, base, "cache", "ls", "--json")), &list); err != nil {
			t.Fatal(err)
		}
		for _, u := range list {
			n += u.Files
		}
		return n
	}
	must(t, base, "cache", "prune")
	t.Cleanup(func() { bawn(t, base, "cache", "prune") })
	fails(t, first, 125, "choose from cargo, go, npm, pip", "run", "--cache", "gems", "--", "true")
	fails(t, first, 125, "verify by itself", "run", "--cache", "npm,apt", "--", "true")

	// Without a rule nothing is fetched.
	run(first, "run", "--cache", "npm,go", "--", "true")
	if out := run(first, "cache", "fill"); !strings.Contains(out, "the sandbox's rules do not let it fetch packages") || files() != 0 {
		t.Errorf("without a rule: %s, %d files", out, files())
	}
	// With one, a start fills the cache, and the end of a command that has changed the lock file.
	must(t, first, "stop")
	run(first, "run", "--allow", "host"+port, "--", "true")
	wait(t, "the package of the lock file", func() bool { return files() == 1 })
	const cache = `c=$HOME/.npm; `
	// npm fetches and keeps what is not there, too, by hard links within its cache.
	run(first, "run", "--", "npm", "cache", "add", "http://host.bawn.internal"+port+"/fresh/-/fresh-1.0.0.tgz")
	run(first, "run", "--", "sh", "-euc", cache+"[ -e $c/$0 ]", fresh.place())
	entries := strings.Join([]string{good.lock, added.lock, evil.lock}, ",")
	run(first, "run", "--", "sh", "-euc", cache+`sed -i "s|$0|$1|" package-lock.json
sudo sh -euc "mkdir -p $c/$(dirname $2) $c/$(dirname $3); echo poison > $c/$2; echo poison > $c/$3"; ! sudo sh -c 'echo poison > /opt/bawn/caches/npm/x' 2>/dev/null; ! sudo rm -rf /opt/bawn/caches/npm/_cacache 2>/dev/null`,
		good.lock, entries, good.place(), evil.place())
	wait(t, "the package that was added to the lock file", func() bool { return files() == 2 })
	if out := run(first, "cache", "fill"); files() != 2 || !strings.Contains(out, "evil@1.0.0: the registry answered 404") {
		t.Errorf("%d files; %s", files(), out)
	}
	must(t, first, "rm", "--force")
	srv.Close()

	install := `npm ci --no-audit --no-fund --fetch-retries=0 >&2; node -p 'require("good")'`
	if out := run(second, "run", "--cache", "npm", "--", "sh", "-euc", cache+install+`; findmnt -no FSTYPE $c; [ "$(id -un)" = "$(stat -c %U $c)" ]; [ -e $c/$0 ]; ! [ -e $c/$1 ]`, good.place(), evil.place()); out != "good\noverlay\n" {
		t.Errorf("the next sandbox: %q", out)
	}
	// It writes to its cache as to any, also after it was suspended, and cleans it.
	must(t, second, "suspend", "--force")
	if out := run(second, "run", "--", "sh", "-euc", cache+install+"; echo own > $c/own; cat $c/own; npm cache clean --force; ! [ -e $c/_cacache ]"); out != "good\nown\n" {
		t.Errorf("after a suspension: %q", out)
	}
	// Another start without the cache has npm's own again.
	must(t, second, "stop")
	if out := run(second, "run", "--cache", "", "--", "sh", "-c", cache+"ls -AR $c 2>&1"); strings.Contains(out, "sha512") || strings.Contains(out, "own") {
		t.Errorf("without the cache: %q", out)
	}
}

// TestCacheOfCargoAndPip: the crates and wheels of one sandbox's lock files are in the next one, which has no
// network, where cargo and pip look for them, and what a guest writes there stays its own.
func TestCacheOfCargoAndPip(t *testing.T) {
	archive, wheel := []byte("a crate "+rand.Text()), []byte("a wheel "+rand.Text())
	sum, wheelSum := fmt.Sprintf("%x", sha256.Sum256(archive)), fmt.Sprintf("%x", sha256.Sum256(wheel))
	srv := httptest.NewUnstartedServer(nil)
	srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/index/config.json":
			fmt.Fprintf(w, `{"dl":"%s/dl"}`, srv.URL)
		case "/index/go/od/good":
			fmt.Fprintf(w, `{"name":"good","vers":"1.0.0","deps":[],"cksum":"%s","features":{},"yanked":false}`+"\n", sum)
		case "/dl/good/1.0.0/download":
			_, _ = w.Write(archive)
		case "/simple/good/":
			fmt.Fprintf(w, `<a href="/files/good-1.0-py3-none-any.whl#sha256=%s">good</a>`, wheelSum)
		case "/files/good-1.0-py3-none-any.whl":
			_, _ = w.Write(wheel)
		default:
			http.NotFound(w, r)
		}
	})
	srv.Start()
	t.Cleanup(srv.Close)
	home := t.TempDir()
	writeFile(t, filepath.Join(home, "config.toml"), "[source.crates-io]\nreplace-with = 'mirror'\n[source.mirror]\nregistry = 'sparse+"+srv.URL+"/index/'\n")
	var public string // as a Cargo.lock names the registry
	for _, p := range policy.Presets() {
		if p.Name == "crates" {
			public = "registry+https://github.com/rust-lang/" + strings.TrimPrefix(p.Rules[0], "static.") + "-index"
		}
	}
	first, second := project(t, "cargo-first"), project(t, "cargo-second")
	for _, dir := range []string{first, second} {
		writeFile(t, filepath.Join(dir, "Cargo.lock"), fmt.Sprintf("version = 4\n\n[[package]]\nname = \"good\"\nversion = \"1.0.0\"\nsource = %q\nchecksum = %q\n", public, sum))
		writeFile(t, filepath.Join(dir, "requirements.txt"), "good==1.0 --hash=sha256:"+wheelSum+"\n")
	}
	run := func(dir string, args ...string) string {
		t.Helper()
		r := bawnAt(t.Context(), dir, nil, []string{"CARGO_HOME=" + home, "PIP_INDEX_URL=" + srv.URL + "/simple"}, args...)
		if r.code != 0 {
			t.Fatalf("bawn %q: exit status %d\n%s%s%s", args, r.code, r.out, r.err, logs(dir))
		}
		return r.out
	}
	must(t, base, "cache", "prune")
	t.Cleanup(func() { bawn(t, base, "cache", "prune") })
	run(first, "run", "--cache", "cargo,pip", "--allow", "host"+srv.URL[strings.LastIndexByte(srv.URL, ':'):], "--", "true")
	if out := run(first, "cache", "fill"); !strings.Contains(out, "cargo: 2 files in 1 lock file") || !strings.Contains(out, "pip: 1 file in 1 lock file") || strings.Contains(out, "not") {
		t.Errorf("cache fill: %s", out)
	}
	const check = `cd $HOME/.cargo/registry
for d in cache/*; do sha256sum $d/good-1.0.0.crate | cut -d' ' -f1; done
for d in index/*; do [ -s $d/config.json ]; tr '\0' '\n' < $d/.cache/go/od/good | grep -o '"cksum":"[^"]*"'; done
[ "$(id -un)" = "$(stat -c %U .)" ]; [ "$(id -un)" = "$(stat -c %U cache/*/good-1.0.0.crate | sort -u)" ]
cd $HOME/.cache/pip; [ "$(id -un)" = "$(stat -c %U .)" ]; [ -w . ]
sha256sum wheels/good-1.0-py3-none-any.whl http-v2/*/*/*/*/*/*.body | cut -d' ' -f1; cd $HOME/.cargo/registry`
	want := strings.Repeat(sum+"\n", 2) + strings.Repeat(`"cksum":"`+sum+`"`+"\n", 2) + strings.Repeat(wheelSum+"\n", 2)
	// cargo locks files there, replaces entries of the index and unpacks crates beside the archives.
	const write = `; mkdir -p src/x; echo own > src/x/own; for d in cache/*; do flock $d/.lock true; echo poison > $d/new; mv $d/new $d/good-1.0.0.crate; done
! sudo sh -c 'echo poison > /opt/bawn/caches/cargo/x' 2>/dev/null; cat cache/*/good-1.0.0.crate`
	must(t, first, "stop")
	if out := run(first, "run", "--", "sh", "-euc", check+write); out != want+"poison\npoison\n" {
		t.Errorf("the first sandbox: %q", out)
	}
	must(t, first, "rm", "--force")
	srv.Close()
	if out := run(second, "run", "--cache", "cargo,pip", "--", "sh", "-euc", check+"; [ ! -e src/x ]"); out != want {
		t.Errorf("the next sandbox: %q, want %q", out, want)
	}
}
