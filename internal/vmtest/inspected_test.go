//go:build vm

package vmtest

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// inspectedServer is a server that wants a secret: as a bearer's token, or as a password. It has what
// streamHandler has, a registry of npm with one package, an index of Python with another, a Go module, a registry of
// cargo with one crate, and one of images with one image.
type inspectedServer struct {
	at            string // host:port
	roots         string // file with its certificate
	good, bad     atomic.Int64
	npm, wheel    []byte
	module, goMod []byte
	crate         []byte
	images        http.Handler
	streams       http.Handler
}

func newInspectedServer(t *testing.T) *inspectedServer {
	t.Helper()
	s := &inspectedServer{roots: filepath.Join(t.TempDir(), "roots.pem"), streams: streamHandler()}
	cert, text := certificate(t, "good.test")
	writeFile(t, s.roots, string(text))
	s.makePackages(t)
	s.pushImage(t)
	l, port := listen(t, serverAddr+":0")
	s.at = fmt.Sprintf("good.test:%d", port)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	web := &http.Server{
		Handler: s, Protocols: protocols, ReadHeaderTimeout: time.Minute,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
	}
	go func() { _ = web.ServeTLS(l, "", "") }()
	t.Cleanup(func() { web.Close() })
	return s
}

// ServeHTTP answers a request that has the secret, and counts the others.
func (s *inspectedServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, password, _ := r.BasicAuth()
	if password != secretValue && r.Header.Get("Authorization") != "Bearer "+secretValue {
		s.bad.Add(1)
		w.Header().Set("Www-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	s.good.Add(1)
	switch {
	case r.URL.Path == "/who":
		fmt.Fprintf(w, "%s %s\n", r.Proto, r.Header.Get("Authorization"))
	case strings.HasPrefix(r.URL.Path, "/npm/"), strings.HasPrefix(r.URL.Path, "/pip/"), strings.HasPrefix(r.URL.Path, "/go/"), strings.HasPrefix(r.URL.Path, "/cargo/"):
		s.registry(w, r)
	case strings.HasPrefix(r.URL.Path, "/v2/"):
		s.images.ServeHTTP(w, r)
	default:
		s.streams.ServeHTTP(w, r)
	}
}

// registry answers the package managers.
func (s *inspectedServer) registry(w http.ResponseWriter, r *http.Request) {
	const wheel = "bawn_hello-1.0-py3-none-any.whl"
	switch r.URL.Path {
	case "/npm/bawn-hello":
		sum := sha512.Sum512(s.npm)
		version := map[string]any{"name": "bawn-hello", "version": "1.0.0", "dist": map[string]string{
			"tarball": "https://" + s.at + "/npm/bawn-hello.tgz", "integrity": "sha512-" + base64.StdEncoding.EncodeToString(sum[:]),
		}}
		_ = json.NewEncoder(w).Encode(map[string]any{"name": "bawn-hello", "dist-tags": map[string]string{"latest": "1.0.0"}, "versions": map[string]any{"1.0.0": version}})
	case "/npm/bawn-hello.tgz":
		_, _ = w.Write(s.npm)
	case "/pip/bawn-hello/":
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, "<a href=%q>%s</a>", wheel, wheel)
	case "/pip/bawn-hello/" + wheel:
		_, _ = w.Write(s.wheel)
	case "/go/bawn.test/hello/@v/list":
		fmt.Fprintln(w, "v1.0.0")
	case "/go/bawn.test/hello/@v/v1.0.0.info":
		fmt.Fprint(w, `{"Version":"v1.0.0","Time":"2026-01-01T00:00:00Z"}`)
	case "/go/bawn.test/hello/@v/v1.0.0.mod":
		_, _ = w.Write(s.goMod)
	case "/go/bawn.test/hello/@v/v1.0.0.zip":
		_, _ = w.Write(s.module)
	case "/cargo/config.json":
		fmt.Fprintf(w, `{"dl":"https://%s/cargo/dl","auth-required":true}`, s.at)
	case "/cargo/ba/wn/bawn-hello":
		fmt.Fprintf(w, `{"name":"bawn-hello","vers":"1.0.0","deps":[],"cksum":"%x","features":{},"yanked":false}`+"\n", sha256.Sum256(s.crate))
	case "/cargo/dl/bawn-hello/1.0.0/download":
		_, _ = w.Write(s.crate)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// makePackages makes a small package of each kind, which says hello.
func (s *inspectedServer) makePackages(t *testing.T) {
	t.Helper()
	s.npm = tarred(t, [][2]string{{"package/package.json", `{"name":"bawn-hello","version":"1.0.0"}`}, {"package/index.js", `module.exports = "hello of npm"`}})
	const crate = "bawn-hello-1.0.0/"
	s.crate = tarred(t, [][2]string{{crate + "Cargo.toml", "[package]\nname = \"bawn-hello\"\nversion = \"1.0.0\"\nedition = \"2021\"\n"}, {crate + "src/lib.rs", "pub const WORD: &str = \"hello of cargo\";\n"}})
	const info = "bawn_hello-1.0.dist-info/"
	s.wheel = zipped(t, [][2]string{
		{"bawn_hello.py", "word = 'hello of pip'\n"},
		{info + "METADATA", "Metadata-Version: 2.1\nName: bawn-hello\nVersion: 1.0\n"},
		{info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"},
		{info + "RECORD", "bawn_hello.py,,\n" + info + "METADATA,,\n" + info + "WHEEL,,\n" + info + "RECORD,,\n"},
	})
	s.goMod = []byte("module bawn.test/hello\n\ngo 1.18\n")
	const module = "bawn.test/hello@v1.0.0/"
	s.module = zipped(t, [][2]string{{module + "go.mod", string(s.goMod)}, {module + "hello.go", "package hello\n\nconst Word = \"hello of go\"\n"}})
}

// pushImage makes the registry of images, which has the image hello:1.
func (s *inspectedServer) pushImage(t *testing.T) {
	t.Helper()
	s.images = registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	open := httptest.NewServer(s.images)
	defer open.Close()
	to, err := name.ParseReference(strings.TrimPrefix(open.URL, "http://") + "/hello:1")
	if err != nil {
		t.Fatal(err)
	}
	image, err := random.Image(1<<16, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(to, image); err != nil {
		t.Fatal(err)
	}
}

// tarred returns a tar archive, compressed by gzip, of files, each a name and its text.
func tarred(t *testing.T, files [][2]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	tw := tar.NewWriter(z)
	for _, f := range files {
		if err := tw.WriteHeader(&tar.Header{Name: f[0], Mode: 0o644, Size: int64(len(f[1]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(f[1])); err != nil {
			t.Fatal(err)
		}
	}
	if tw.Close() != nil || z.Close() != nil {
		t.Fatal("the tar archive is not written")
	}
	return b.Bytes()
}

// zipped returns a zip archive of files, each a name and its text.
func zipped(t *testing.T, files [][2]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, f := range files {
		w, err := z.Create(f[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestProgramsInspected: clients of many makers, in the guest and in its containers, speak with a server
// that is inspected, with a key that the guest does not have. The cases are as those of
// TestPrograms; in a script, $at is the server, host and port, and $EXAMPLE_KEY the placeholder.
func TestProgramsInspected(t *testing.T) {
	if os.Getenv(programsEnv) != "1" {
		t.Skip(programsEnv + "=1 runs it")
	}
	cases, err := parsePrograms(testdata(t, "inspected.sh"))
	if err != nil {
		t.Fatal(err)
	}
	s := newInspectedServer(t)
	dir := project(t, "inspected")
	forgetAuthority(t)
	if r := bawnAt(t.Context(), dir, strings.NewReader(secretValue+"\n"), nil, "secret", "set", "EXAMPLE_KEY", "--for", s.at); r.code != 0 {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { bawn(t, dir, "secret", "rm", "EXAMPLE_KEY") })
	b := &programsBox{
		dir: dir, env: []string{"SSL_CERT_FILE=" + s.roots},
		args: []string{"--add-host", "good.test:" + serverAddr, "--allow", s.at, "--allow", serverAddr + strings.TrimPrefix(s.at, "good.test")},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b.install(t, c.apt, c.npm)
			good := s.good.Load()
			c.script = "at=" + s.at + "\n" + c.script
			c.run(t, b.dir)
			if s.good.Load() == good {
				t.Error("the server got no request with the secret")
			}
		})
	}
	if n := searchMemory(t, inspect(t, dir).State.PID, secretValue); n != 0 {
		t.Errorf("the value is in the guest's memory %d times", n)
	}
	t.Logf("%d requests with the secret, %d without any", s.good.Load(), s.bad.Load())
}
