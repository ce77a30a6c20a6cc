//go:build vm

package vmtest

import (
	"archive/tar"
	"bytes"
	"context"
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

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// featurePlace is a project with a devcontainer.json, and a registry on loopback that counts requests.
type featurePlace struct {
	dir, registry string
	asked         atomic.Int64
}

func newFeaturePlace(t *testing.T) *featurePlace {
	t.Helper()
	t.Setenv(templatesEnv, "off") // each would be of use once
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	p := &featurePlace{dir: project(t, "featured")}
	serve := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		serve.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	p.registry = server.Listener.Addr().String()
	t.Cleanup(func() {
		bawnAt(context.Background(), p.dir, nil, nil, "rm", "--force", "featured")
		list := bawnAt(context.Background(), p.dir, nil, nil, "image", "ls")
		for line := range strings.Lines(list.out) {
			if ref, _, _ := strings.Cut(line, " "); strings.HasPrefix(ref, "local:project/featured-") || strings.HasPrefix(ref, p.registry) {
				bawnAt(context.Background(), p.dir, nil, nil, "image", "rm", ref)
			}
		}
	})
	return p
}

// push pushes an image to the registry.
func (p *featurePlace) push(t *testing.T, ref string, img v1.Image) {
	t.Helper()
	r, err := name.ParseReference(p.registry + "/" + ref)
	if err == nil {
		err = remote.Write(r, img)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// pushFeature pushes a feature with these files.
func (p *featurePlace) pushFeature(t *testing.T, ref string, files map[string]string) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for path, text := range files {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "./" + path, Mode: 0o644, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(mutate.ConfigMediaType(empty.Image, "application/vnd.devcontainers"), static.NewLayer(b.Bytes(), "application/vnd.devcontainers.layer.v1+tar"))
	if err != nil {
		t.Fatal(err)
	}
	p.push(t, ref, img)
}

// TestFeatures: one of a registry and one of the project, over an image of a registry. Nothing is fetched
// before a person agreed, they see nothing of the project, and what they ask for is in force.
func TestFeatures(t *testing.T) {
	if os.Getenv(buildTestsEnv) == "" {
		t.Skipf("it takes minutes under emulation: %s=1 runs it", buildTestsEnv)
	}
	p := newFeaturePlace(t)
	made := temp(t)
	sh(t, made, strings.Replace(tinyRoot, "sync id", "sync id rm mkdir chmod", 1))
	layer, err := tarball.LayerFromFile(filepath.Join(made, "root.tar"))
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	p.push(t, "tiny:1", img)
	p.pushFeature(t, "tools/greet:1", map[string]string{
		"devcontainer-feature.json": `{"id": "greet", "version": "1.0.2", "options": {"who": {"type": "string", "default": "you"}, "loud": {"type": "boolean", "default": true}},
			"containerEnv": {"GREET": "/opt/greet", "PATH": "/opt/greet/bin:${PATH}"}, "privileged": true, "postCreateCommand": "echo created of $GREET >/created"}`,
		"install.sh": "#!/bin/sh\nset -eu\nmkdir -p /opt/greet/bin\ncat words >/greeting\necho \"$WHO|$LOUD|$_REMOTE_USER|$_REMOTE_USER_HOME\" >>/greeting\n",
		"words":      "hello\n",
	})
	at := func(name string) string { return filepath.Join(p.dir, ".devcontainer", name) }
	for _, d := range []string{at("own"), filepath.Join(p.dir, "src")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, at("own/devcontainer-feature.json"), fmt.Sprintf(`{"id": "own", "installsAfter": [%q]}`, p.registry+"/tools/greet"))
	script := "#!/bin/sh\nset -eu\ncat /greeting >/copied\nfor f in " + p.dir + "/* " + p.dir + "/.[!.]*; do ! [ -e \"$f\" ] || echo saw $f >>/copied; done\necho path $PATH >>/copied\n"
	writeFile(t, at("own/install.sh"), script+"exit 3\n")
	hostile := `it's \"$(id)\"\n; touch /touched`
	writeFile(t, at("devcontainer.json"), fmt.Sprintf(`{"image": %q, "remoteUser": "root",
		"features": {"./own": {}, %q: {"who": "%s"}}}`, p.registry+"/tiny:1", p.registry+"/tools/greet:1", hostile))

	before := p.asked.Load()
	if r := bawn(t, p.dir, "run", "--devcontainer", "--", "true"); r.code != 125 || !strings.Contains(r.err, "not approved") {
		t.Fatalf("it is not approved: %+v", r)
	}
	if r := bawn(t, p.dir, "trust", "--show", "--devcontainer"); r.code != 1 || !strings.Contains(r.out, "tools/greet:1") {
		t.Fatalf("%+v", r)
	}
	if n := p.asked.Load() - before; n != 0 {
		t.Fatalf("%d requests before anybody agreed", n)
	}
	said := must(t, p.dir, "trust", "--yes", "--devcontainer")
	for _, want := range []string{"tools/greet:1 (sha256:", "version 1.0.2", "./own (sha256:", "of which is left out privileged", "created of $GREET"} {
		if !strings.Contains(said, want) {
			t.Errorf("trust does not say %q: %s", want, said)
		}
	}
	run := func(script string) result {
		return bawn(t, p.dir, "run", "--devcontainer", "--memory", "1G", "--", "sh", "-euc", script)
	}
	if r := run("true"); r.code != 125 || !strings.Contains(r.err, "the feature ./own was not installed (exit status 3)") {
		t.Fatalf("a script that fails: %+v", r)
	}
	writeFile(t, at("own/install.sh"), script)
	if r := run("true"); r.code != 125 || !strings.Contains(r.err, "this has changed: .devcontainer/own") {
		t.Fatalf("a script that changed: %+v", r)
	}
	must(t, p.dir, "trust", "--yes", "--devcontainer")
	r := run("cat /copied /created; echo $GREET; ! test -e /touched; ! test -e /var/tmp/bawn-feature-0")
	want := "hello\nit's \"$(id)\"\n; touch /touched|true|root|/root\npath /opt/greet/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\ncreated of /opt/greet\n/opt/greet\n"
	if r.code != 0 || r.out != want {
		t.Fatalf("%+v, want %q", r, want)
	}
	if list := must(t, p.dir, "ls"); strings.Contains(list, "build-featured") {
		t.Errorf("the machine is still there: %s", list)
	}
	before = p.asked.Load()
	must(t, p.dir, "rm", "--force", "featured")
	if r := run("cat /greeting >/dev/null; echo again"); r.code != 0 || r.out != "again\n" || strings.Contains(r.err, "Installing") {
		t.Errorf("%+v", r)
	}
	if n := p.asked.Load() - before; n != 0 {
		t.Errorf("%d requests for what is there", n)
	}
}
