package packages

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bawn.dev/bawn/internal/sandbox"
)

// wheelOf returns a wheel whose module says a word.
func wheelOf(t *testing.T, name, version, word string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	info := name + "-" + version + ".dist-info/"
	for _, f := range [][2]string{
		{name + ".py", "word = '" + word + "'\n"},
		{info + "METADATA", "Metadata-Version: 2.1\nName: " + name + "\nVersion: " + version + "\n"},
		{info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"},
		{info + "RECORD", ""},
	} {
		w, err := z.Create(f[0])
		if err == nil {
			_, err = io.WriteString(w, f[1])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// pipBlob is where the store has a file with that content, and the entry of pip's cache for a URL.
func pipBlob[T string | []byte](content T, url string) (blob, entry string) {
	w := pipWant("x.whl", url, sha256Of(content))
	return w.file, w.beside.file
}

// link is a link of a page in HTML.
func link(url, sum string) string {
	return fmt.Sprintf("<a data-x=\"&lt;\" href=\"%s#sha256=%s\">x</a><br>\n", url, sum)
}

// pip is the host's pip with a cache, an index and a certificate, without settings of its own.
type pip struct {
	python string
	minor  int // version 23.3 is 2303
}

func findPip(t *testing.T) pip {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed")
	}
	out, err := exec.Command(python, "-m", "pip", "--version").Output()
	m := regexp.MustCompile(`^pip (\d+)\.(\d+)`).FindStringSubmatch(string(out))
	if err != nil || m == nil {
		t.Skip("pip is not installed")
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	return pip{python, 100*major + minor}
}

// install installs requirements and returns what the module good says.
func (p pip) install(t *testing.T, env []string, args ...string) (word, says string) {
	t.Helper()
	target := t.TempDir()
	cmd := exec.Command(p.python, append([]string{"-m", "pip", "install", "--target", target, "--no-input", "--retries", "0"}, args...)...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "PIP_") && !strings.HasPrefix(v, "REQUESTS_") && !strings.HasPrefix(v, "CURL_") && !strings.HasPrefix(v, "SSL_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(append(cmd.Env, "PIP_CONFIG_FILE="+os.DevNull, "PIP_DISABLE_PIP_VERSION_CHECK=1"), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("pip install %q: %v\n%s", args, err, out)
		return "", string(out)
	}
	b, err := os.ReadFile(filepath.Join(target, "good.py"))
	if err != nil {
		t.Error(err)
	}
	return string(b), string(out)
}

// copyStore copies a kind of the store, with its links.
func copyStore(t *testing.T, s *Store, kind sandbox.Cache) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "cache")
	if out, err := exec.Command("cp", "-a", s.Folder(kind), to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return to
}

// TestPipUsesTheStore: pip takes files from a store below its cache: it asks the index where they are, and
// does not fetch them; and from its folder wheels, without a network, if it is told so.
func TestPipUsesTheStore(t *testing.T) {
	p := findPip(t)
	wheel := wheelOf(t, "good", "1.0.0", "good")
	var asked atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("/simple/good/", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, link("../../files/good-1.0.0-py3-none-any.whl", sha256Of(wheel)))
	})
	mux.HandleFunc("/files/good-1.0.0-py3-none-any.whl", func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = w.Write(wheel)
	})
	srv := httptest.NewUnstartedServer(mux)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	serve(t, nil)
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	transport := http.DefaultTransport.(*http.Transport)
	before := transport.TLSClientConfig
	transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	t.Cleanup(func() { transport.TLSClientConfig = before })
	cert := filepath.Join(t.TempDir(), "cert.pem")
	write(t, cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})))
	t.Setenv("PIP_INDEX_URL", srv.URL+"/simple")

	project := t.TempDir()
	requirements := filepath.Join(project, "requirements.txt")
	write(t, requirements, "good==1.0.0 \\\n    --hash=sha256:"+sha256Of(wheel)+"\n")
	s := Open(t.TempDir())
	if res := fill(t, s, project, anything, sandbox.CachePip)[0]; res.Named != 1 || res.Added != 1 || res.Left != 0 || asked.Load() != 1 {
		t.Fatalf("%+v, asked %d times", res, asked.Load())
	}
	if res := fill(t, s, project, anything, sandbox.CachePip)[0]; res.Added != 0 || res.Left != 0 || asked.Load() != 1 {
		t.Errorf("the second time: %+v, asked %d times", res, asked.Load())
	}
	cache := copyStore(t, s, sandbox.CachePip)
	if word, says := p.install(t, nil, "--no-index", "--find-links", filepath.Join(cache, "wheels"), "-r", requirements); word != "word = 'good'\n" {
		t.Errorf("without an index: %q\n%s", word, says)
	}
	if p.minor < 2303 {
		t.Log("pip is older than 23.3, whose cache has another format: not tried with an index")
		return
	}
	env := []string{}
	if p.minor >= 2402 { // else it cannot verify the certificate of an address
		env = append(env, "PIP_USE_DEPRECATED=legacy-certs")
	}
	word, says := p.install(t, append(env, "PIP_INDEX_URL="+srv.URL+"/simple", "PIP_CERT="+cert, "PIP_CACHE_DIR="+cache), "-r", requirements)
	if word != "word = 'good'\n" || !strings.Contains(says, "Using cached") {
		t.Errorf("with the index: %q\n%s", word, says)
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the index was asked for the file %d times", n)
	}
}

// TestPipCacheEntry: an entry is what pip 25.1 writes for such an answer.
func TestPipCacheEntry(t *testing.T) {
	const want = "cc=4,\x82\xa8response\x86\xa4body\xc4\x00\xa7headers\x83\xa4Date\xbdThu, 01 Jan 2026 00:00:00 GMT\xacContent-Type\xb8application/octet-stream" +
		"\xadCache-Control\xd9\x24max-age=365000000, immutable, public\xa6status\xcc\xc8\xa7version\x0b\xa6reason\xa2OK\xaedecode_content\xc2\xa4vary\x80"
	if pipEntry != want {
		t.Errorf("%q", pipEntry)
	}
	// The key that pip 25.1 gave to that address.
	_, entry := pipBlob("x", "https://localhost:18081/files/good-1.0.0-py3-none-any.whl")
	if entry != "http-v2/2/f/1/0/4/2f104fab8842e52d85f12a05a9c570b9351616f2e985e1b0fa2adcb2" {
		t.Error(entry)
	}
}

// TestPoisonedRequirements: whatever a requirements.txt says, the store gets only what the index has for
// that package, with a hash of the file, and what a guest can install.
func TestPoisonedRequirements(t *testing.T) {
	evil := serve(t, map[string][]byte{"/simple/good/": []byte("x"), "/evil-1.0-py3-none-any.whl": []byte("evil")})
	files := map[string][]byte{}
	r := serve(t, files)
	t.Setenv("PIP_INDEX_URL", r.URL+"/simple")
	add := func(pkg, file, content string) string {
		files["/f/"+file] = []byte(content)
		files["/simple/"+pkg+"/"] = append(files["/simple/"+pkg+"/"], link("/f/"+file, sha256Of(content))...)
		return " --hash=sha256:" + sha256Of(content)
	}
	machine := machines[runtime.GOARCH]
	good := add("good-one", "good_one-1.0-py3-none-any.whl", "good") + add("good-one", "good_one-1.0.tar.gz", "good source")
	native := add("native", "native-1.0-cp313-cp313-manylinux_2_28_"+machine+".whl", "right") + add("native", "native-1.0-cp39-abi3-manylinux2014_"+machine+".manylinux_2_17_"+machine+".whl", "stable") +
		add("native", "native-1.0-cp312-cp312-manylinux_2_28_"+machine+".whl", "another Python") + add("native", "native-1.0-cp313-cp313t-manylinux_2_28_"+machine+".whl", "free-threaded") +
		add("native", "native-1.0-cp313-cp313-musllinux_1_2_"+machine+".whl", "another libc") + add("native", "native-1.0-cp313-cp313-win_amd64.whl", "another system") +
		add("native", "native-1.0-cp313-cp313-manylinux_2_28_riscv64.whl", "another machine") + add("native", "native-1.0-cp314-abi3-manylinux_2_28_"+machine+".whl", "too new")
	source := add("source", "source-1.0.tar.gz", "source") + add("source", "source-1.0-cp312-cp312-win_amd64.whl", "windows")
	unnamed := add("victim", "victim-1.0-py3-none-any.whl", "victim")
	changed := add("changed", "changed-1.0-py3-none-any.whl", "as the lock file has it")
	files["/f/changed-1.0-py3-none-any.whl"] = []byte("what the registry serves now")
	files["/simple/outside/"] = []byte(link("../../f/..%2f..%2fx-1.0-py3-none-any.whl", sha256Of("x")) + link("/f/-x-1.0-py3-none-any.whl", sha256Of("x")) + link("/f/x.exe", sha256Of("x")) + link("ftp://x/x-1.0-py3-none-any.whl", sha256Of("x")) + link(":", sha256Of("x")))
	project := t.TempDir()
	write(t, filepath.Join(project, "requirements.txt"), strings.Join([]string{
		"--index-url " + evil.URL, "--extra-index-url=" + evil.URL, "--find-links " + evil.URL, "-r other.txt", "# a comment",
		"Good.One[extra] == 1.0 ; python_version > '3' \\", "  " + good + " # behind",
		"native==1.0" + native, "source===1.0" + source, "changed==1.0" + changed,
		"mixed==1.0" + unnamed, // another's hash
		"outside==1.0 --hash=sha256:" + sha256Of("x"),
		"evil @ " + evil.URL + "/evil-1.0-py3-none-any.whl --hash=sha256:" + sha256Of("evil"), evil.URL + "/evil-1.0-py3-none-any.whl --hash=sha256:" + sha256Of("evil"),
		"../evil==1.0 --hash=sha256:" + sha256Of("evil"), "a/b==1.0 --hash=sha256:" + sha256Of("evil"), "range>=1.0 --hash=sha256:" + sha256Of("x"), "star==1.* --hash=sha256:" + sha256Of("x"),
		"weak==1.0 --hash=md5:abc", "short==1.0 --hash=sha256:abc", "unhashed==1.0",
	}, "\n"))
	write(t, filepath.Join(project, "requirements-dev.txt"), "unhashed==1.0\n")
	write(t, filepath.Join(project, "requirements.txt.bak"), "unhashed==1.0"+good)
	s := Open(filepath.Join(t.TempDir(), "packages"))
	res := fill(t, s, project, anything, sandbox.CachePip)[0]
	want := map[string]string{}
	for _, c := range [][2]string{{"good_one-1.0-py3-none-any.whl", "good"}, {"native-1.0-cp313-cp313-manylinux_2_28_" + machine + ".whl", "right"},
		{"native-1.0-cp39-abi3-manylinux2014_" + machine + ".manylinux_2_17_" + machine + ".whl", "stable"}, {"source-1.0.tar.gz", "source"}} {
		blob, entry := pipBlob(c[1], r.URL+"/f/"+c[0])
		want[blob], want[entry] = c[1], pipEntry
		for _, l := range []string{entry + ".body", "wheels/" + c[0]} {
			if b, err := os.ReadFile(filepath.Join(s.Folder(sandbox.CachePip), l)); err != nil || string(b) != c[1] {
				t.Errorf("%s: %q, %v", l, b, err)
			}
		}
	}
	got := stored(t, s, sandbox.CachePip)
	maps.DeleteFunc(got, func(name, _ string) bool { return strings.HasPrefix(name, ".chosen/") })
	if !maps.Equal(got, want) {
		t.Errorf("the store has %q\nwant %q", got, want)
	}
	if res.Locks != 2 || res.Named != 6 || res.Added != 3 || res.Left != 3 || !strings.Contains(res.Why, "requirements-dev.txt: it has no SHA-256 hashes") {
		t.Errorf("result: %+v", res)
	}
	if n := evil.requests(); len(n) > 0 {
		t.Errorf("the other host was asked for %q", n)
	}
	for _, p := range r.requests() {
		if strings.Contains(p, "..") || strings.Contains(p, "victim") || strings.Contains(p, "exe") {
			t.Errorf("the index was asked for %s", p)
		}
	}
	// The project's Python counts, too.
	write(t, filepath.Join(project, ".python-version"), "3.12.4\n")
	fill(t, s, project, anything, sandbox.CachePip)
	if blob, _ := pipBlob("another Python", ""); stored(t, s, sandbox.CachePip)[blob] != "another Python" {
		t.Error("there is no wheel for the Python of .python-version")
	}
	// What is not named any more goes, with its links.
	if _, err := s.Prune(time.Now().Add(time.Hour)); err != nil || len(stored(t, s, sandbox.CachePip)) != 0 {
		t.Errorf("pruned: %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(s.Folder(sandbox.CachePip), "wheels")); err != nil || len(left) > 0 {
		t.Errorf("links that lead nowhere: %v, %v", left, err)
	}
}

// TestHostileIndex: what an index says leads nowhere where the guest may not go and leaves nothing behind.
func TestHostileIndex(t *testing.T) {
	const name = "good-1.0-py3-none-any.whl"
	other := serve(t, map[string][]byte{"/" + name: []byte("good")})
	sum := sha256Of("good")
	for title, c := range map[string]struct {
		page    string
		allowed string // prefix of what the guest may request, of the index if it is empty
		why     string
		kept    int
	}{
		"all is well":               {page: link("/f/"+name, sum)},
		"JSON":                      {page: `{"files":[{"filename":"` + name + `","url":"URL/f/` + name + `","hashes":{"sha256":"` + sum + `"}}]}`},
		"a query":                   {page: link("/f/"+name+"?x=y", sum)},
		"a file twice":              {page: link("/f/"+name, sum) + link("/nowhere/"+name, sum)},
		"of another system":         {page: link("/f/good-1.0-cp313-cp313-win_amd64.whl", sum), kept: 1},
		"a login":                   {page: link("http://user:secret@HOST/f/"+name, sum)},
		"no page":                   {why: "answered 404"},
		"no JSON":                   {page: `{"files":[`, why: "the index's page about it"},
		"JSON of other types":       {page: `{"files":{"a":1}}`, why: "the index's page about it"},
		"other hashes":              {page: link("/f/"+name, sha256Of("x")), why: "no file with a hash"},
		"large":                     {page: strings.Repeat(" ", maxPage+1), why: "larger than 16777216 bytes"},
		"files without end":         {page: strings.Repeat("<a href=x>", maxFiles+1), why: "more than 50000 files"},
		"a tag without end":         {page: "<a href='" + strings.Repeat("x", 2<<20), why: "no file with a hash"},
		"another content":           {page: link("/f/other/"+name, sum), why: errHash.Error()},
		"another host, not allowed": {page: link(other.URL+"/"+name, sum), why: "denied"},
		"another host, allowed":     {page: link(other.URL+"/"+name, sum), allowed: "http://"},
		"redirects elsewhere":       {page: link("/redirect/"+name, sum), allowed: "http://", why: "redirects to another host"},
		"nothing is allowed":        {page: link("/f/"+name, sum), allowed: "https://", why: "denied"},
		"many files": {page: func() (all string) {
			for i := range maxChosen + 1 {
				all += link(fmt.Sprintf("/f/good-1.0-%d-py3-none-any.whl", i), sha256Of(fmt.Sprint(i)))
			}
			return all
		}(), why: "more than 32 files"},
	} {
		var asked atomic.Int64
		srv := httptest.NewUnstartedServer(nil)
		srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			asked.Add(1)
			switch {
			case q.URL.Path == "/simple/good/" && c.page != "":
				_, _ = io.WriteString(w, strings.NewReplacer("URL", srv.URL, "HOST", strings.TrimPrefix(srv.URL, "http://")).Replace(c.page))
			case q.URL.Path == "/f/"+name:
				if q.Header.Get("Authorization") != "" {
					t.Errorf("%s: a login is sent", title)
				}
				_, _ = io.WriteString(w, "good")
			case q.URL.Path == "/f/other/"+name:
				_, _ = io.WriteString(w, "evil")
			case strings.HasPrefix(q.URL.Path, "/redirect/"):
				http.Redirect(w, q, other.URL+"/"+name, http.StatusFound)
			default:
				http.NotFound(w, q)
			}
		})
		srv.Start()
		t.Setenv("PIP_INDEX_URL", srv.URL+"/simple/")
		project, s := t.TempDir(), Open(t.TempDir())
		hashes := " --hash=sha256:" + sum
		for i := range maxChosen + 1 {
			hashes += " --hash=sha256:" + sha256Of(fmt.Sprint(i))
		}
		write(t, filepath.Join(project, "requirements.txt"), "good==1.0"+hashes)
		may := func(url string) error {
			if prefix := c.allowed; prefix == "" && strings.HasPrefix(url, srv.URL) || prefix != "" && strings.HasPrefix(url, prefix) {
				return nil
			}
			return errors.New("denied")
		}
		res := fill(t, s, project, may, sandbox.CachePip)[0]
		got := stored(t, s, sandbox.CachePip)
		if c.why == "" && c.kept == 0 {
			c.kept = 3
		}
		if len(got) != c.kept || !strings.Contains(res.Why, c.why) || (c.why == "") != (res.Why == "") || strings.Contains(res.Why, "secret") {
			t.Errorf("%s: %+v, the store has %q", title, res, slices.Sorted(maps.Keys(got)))
		}
		before := asked.Load()
		if res := fill(t, s, project, may, sandbox.CachePip)[0]; c.why == "" && (res.Left != 0 || asked.Load() != before) {
			t.Errorf("%s, the second time: %+v, %d requests", title, res, asked.Load()-before)
		}
		srv.Close()
	}
	if n := other.requests(); len(n) != 1 {
		t.Errorf("the other host was asked for %q", n)
	}
}

// TestPipSettings: the index is that of the person's settings, of which those in a project are none.
func TestPipSettings(t *testing.T) {
	home, project := t.TempDir(), t.TempDir()
	t.Chdir(project)
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("VIRTUAL_ENV", filepath.Join(project, ".venv"))
	for _, v := range []string{"PIP_INDEX_URL", "PIP_CONFIG_FILE"} {
		t.Setenv(v, "")
	}
	for _, file := range []string{"pip.conf", ".venv/pip.conf", ".pip/pip.conf", ".config/pip/pip.conf"} {
		write(t, filepath.Join(project, file), "[global]\nindex-url = https://evil.example/\n")
	}
	is := func(want string) {
		t.Helper()
		if got, err := pipIndex(); got != want || err != nil {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if _, err := os.Stat("/etc/pip.conf"); err != nil {
		if got, err := pipIndex(); err != nil || !strings.HasPrefix(got, "https://") || !strings.HasSuffix(got, ".org/simple/") || strings.Contains(got, "evil") {
			t.Errorf("the public index: %s", got)
		}
	}
	t.Setenv("PIP_CONFIG_FILE", "pip.conf") // which would depend on where the person is
	if got, err := pipIndex(); err != nil || strings.Contains(got, "evil") {
		t.Errorf("settings of the project: %s", got)
	}
	write(t, filepath.Join(home, ".pip/pip.conf"), "[global]\nindex_url: https://old.example/\n")
	is("https://old.example/")
	write(t, filepath.Join(home, ".config/pip/pip.conf"), "# index-url = https://no.example/\n[list]\nindex-url = https://no.example/\n[global]\nindex-url = https://own.example/\nextra-index-url = https://no.example/\n")
	is("https://own.example/")
	own := filepath.Join(home, "own.conf")
	write(t, own, "[install]\nIndex-URL=https://install.example/\n[global]\nindex-url = https://no.example/\n")
	t.Setenv("PIP_CONFIG_FILE", own)
	is("https://install.example/")
	t.Setenv("PIP_INDEX_URL", "https://env.example/")
	is("https://env.example/")
}

// FuzzRequirements is FuzzNPMLock for a requirements.txt and the index's page.
func FuzzRequirements(f *testing.F) {
	const base = "https://registry.example/simple/"
	f.Add([]byte("good==1.0 --hash=sha256:"+sha256Of("x")), []byte(link("../../good-1.0-py3-none-any.whl", sha256Of("x"))))
	f.Add([]byte("a==1\\\n --hash=sha256:"+sha256Of("x")), []byte(`{"files":[{"filename":"../x-1-py3-none-any.whl","url":"//x/","hashes":{"sha256":"`+sha256Of("x")+`"}}]}`))
	f.Fuzz(func(t *testing.T, text, page []byte) {
		i := &pythonIndex{base: base, minors: []int{13}}
		wants, _ := i.wants("requirements.txt", text)
		for _, w := range wants {
			if !filepath.IsLocal(w.file) {
				t.Errorf("writes %q", w.file)
			}
			files, _ := w.expand(t.Context(), func(_ context.Context, url, _ string, _ int64) ([]byte, error) {
				if !regexp.MustCompile(`^https://registry\.example/simple/[a-z0-9-]+/$`).MatchString(url) {
					t.Errorf("asks for %q", url)
				}
				return page, nil
			})
			for _, file := range files {
				if !strings.HasPrefix(file.url, "https://") || strings.Contains(file.url, "#") {
					t.Errorf("asks for %q", file.url)
				}
				for _, name := range append(file.links, file.file, file.beside.file) {
					if !filepath.IsLocal(name) || filepath.Clean(name) != name || strings.ContainsAny(name, "\x00\\\n") {
						t.Errorf("writes %q", name)
					}
				}
			}
		}
	})
}
