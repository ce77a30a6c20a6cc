package engine_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/project"
)

// shelf is a registry on loopback, which counts the requests.
type shelf struct {
	host  string
	asked atomic.Int64
	bases atomic.Int64 // requests for what the tag 1 of tools/base means
}

func newShelf(t *testing.T) *shelf {
	t.Helper()
	t.Setenv("DOCKER_CONFIG", t.TempDir()) // no credential helpers of the person
	s := &shelf{}
	serve := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		if strings.HasSuffix(r.URL.Path, "/tools/base/manifests/1") {
			s.bases.Add(1)
		}
		serve.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	s.host = server.Listener.Addr().String()
	return s
}

// put puts a feature with that description into the registry, and returns its digest.
func (s *shelf) put(t *testing.T, to, description string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, text := range map[string]string{"devcontainer-feature.json": description, "install.sh": "#!/bin/sh\n"} {
		if text == "" {
			continue
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, static.NewLayer(b.Bytes(), "application/vnd.devcontainers.layer.v1+tar"))
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(s.host + "/" + to)
	if err == nil {
		err = remote.Write(ref, img)
	}
	if err != nil {
		t.Fatal(err)
	}
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

// inFolder writes a file beside the devcontainer.json of the shop.
func (p *place) inFolder(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join(p.shop, ".devcontainer", name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// look checks the devcontainer.json, and fetches its features if a person agrees.
func (p *place) look(t *testing.T, agrees bool) *project.Check {
	t.Helper()
	c, err := p.CheckDevcontainer(p.shop, devcontainerName)
	if err == nil && agrees {
		err = p.FetchFeatures(t.Context(), c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// installed returns the features that a proposal installs, as NAME:VERSION or a path.
func installed(p *project.Proposal) (list []string) {
	if p == nil || p.Setup == nil {
		return nil
	}
	for _, f := range p.Setup.Installed {
		list = append(list, f.ID[strings.LastIndex(f.ID, "/")+1:])
	}
	return list
}

// TestFeaturesAreApprovedByTheirDigests: nothing is fetched before a person agrees, and what was approved
// counts until a file changes.
func TestFeaturesAreApprovedByTheirDigests(t *testing.T) {
	p, s := newPlace(t), newShelf(t)
	one := s.put(t, "tools/one:1", `{"id": "one", "version": "1.0.0", "options": {"size": {"default": "small"}}, "dependsOn": {"`+s.host+`/tools/base": {"deep": true}},
		"postCreateCommand": "one", "mounts": [{"type": "volume", "source": "One", "target": "/one"}]}`)
	s.put(t, "tools/base", `{"id": "base"}`)
	p.inFolder(t, "own/devcontainer-feature.json", `{"id": "own", "postCreateCommand": "own"}`)
	p.inFolder(t, "own/install.sh", "#!/bin/sh\n")
	p.devcontainer(t, `{"features": {"./own": {}, "`+s.host+`/tools/one:1": {"size": "big"}}, "postCreateCommand": "mine", "overrideFeatureInstallOrder": ["./own"]}`)
	asked := s.asked.Load()
	c := p.look(t, false)
	if c.Err != nil || c.Status != project.New || !slices.Equal(c.Unfetched, []string{s.host + "/tools/one:1"}) || len(installed(c.Proposal)) > 0 {
		t.Fatalf("%+v", c)
	}
	if err := p.Approve(t.Context(), c); engine.ReasonOf(err) != engine.FeaturesUnfetched {
		t.Errorf("what nobody has seen is approved: %v", err)
	}
	r := asksFor(devcontainerName)
	r.Dir = p.shop
	if err := p.CheckConsent(r); engine.ReasonOf(err) != engine.NotApproved {
		t.Error(err)
	}
	if n := s.asked.Load() - asked; n != 0 {
		t.Fatalf("%d requests that nobody agreed to", n)
	}

	c = p.look(t, true)
	if c.Err != nil || len(c.Unfetched) > 0 || !slices.Equal(installed(c.Proposal), []string{"own", "base", "one:1"}) {
		t.Fatalf("%+v", c)
	}
	f := c.Proposal.Setup.Installed[2]
	if f.Digest != one || f.Ref != s.host+"/tools/one@"+one || !slices.Equal(f.Options, []string{"SIZE=big"}) || f.Feature.Version != "1.0.0" {
		t.Errorf("%+v", f)
	}
	if v := c.Proposal.Volumes; len(v) != 1 || v[0].Name != "one" || v[0].Guest != "/one" {
		t.Errorf("%+v", v)
	}
	var commands []string
	for _, x := range c.Proposal.Setup.Hooks[0].Commands {
		commands = append(commands, x.Argv[2])
	}
	if !slices.Equal(commands, []string{"own", "one", "mine"}) {
		t.Errorf("%q", commands)
	}
	if err := p.Approve(t.Context(), c); err != nil {
		t.Fatal(err)
	}

	// The registry has another one by now, which counts for nothing.
	s.put(t, "tools/one:1", `{"id": "one", "postCreateCommand": "evil"}`)
	asked = s.asked.Load()
	if c := p.look(t, false); c.Status != project.Approved || !slices.Equal(installed(c.Proposal), []string{"own", "base", "one:1"}) {
		t.Errorf("%+v", c)
	}
	if err := p.CheckConsent(r); err != nil {
		t.Error(err)
	}
	if n := s.asked.Load() - asked; n != 0 {
		t.Errorf("%d requests for what is approved", n)
	}
	p.inFolder(t, "own/install.sh", "#!/bin/sh\ncurl evil\n")
	if c := p.look(t, false); c.Status != project.Changed || !slices.Equal(c.Others, []string{".devcontainer/own"}) {
		t.Errorf("a feature of the project that changed: %+v", c)
	}
	if err := p.CheckConsent(r); engine.ReasonOf(err) != engine.NotApproved {
		t.Error(err)
	}
	p.inFolder(t, "own/install.sh", "#!/bin/sh\n")
	p.inFolder(t, "devcontainer-lock.json", `{"features": {}}`)
	if c := p.look(t, false); c.Status != project.Changed || !slices.Equal(c.Others, []string{".devcontainer/devcontainer-lock.json"}) {
		t.Errorf("a lock file: %+v", c)
	}
	p.devcontainer(t, `{"features": {"./own": {}}}`)
	p.approveDevcontainer(t) // of the project alone: there is nothing to fetch
	if c := p.look(t, false); c.Status != project.Approved || !slices.Equal(installed(c.Proposal), []string{"own"}) {
		t.Errorf("%+v", c)
	}
	if err := p.ForgetDevcontainer(p.shop, devcontainerName); err != nil {
		t.Fatal(err)
	}
	if err := p.CheckConsent(r); engine.ReasonOf(err) != engine.NotApproved {
		t.Error(err)
	}
}

// TestFeaturesOfALockFile: its digests count, and it names no other feature.
func TestFeaturesOfALockFile(t *testing.T) {
	p, s := newPlace(t), newShelf(t)
	old := s.put(t, "tools/one:1", `{"id": "one", "version": "1.0.0"}`)
	newer := s.put(t, "tools/one:1", `{"id": "one", "version": "1.1.0"}`)
	evil := s.put(t, "evil/one:1", `{"id": "one", "version": "6.6.6"}`)
	ref := s.host + "/tools/one"
	p.devcontainer(t, `{"features": {"`+ref+`:1": {}}}`)
	lock := func(resolved, integrity string) string {
		return fmt.Sprintf(`{"features": {%q: {"version": "1.0.0", "resolved": %q, "integrity": %q}}}`, ref+":1", resolved, integrity)
	}
	for _, c := range []struct{ lock, want, fail string }{
		{"", newer, ""},
		{lock(ref+"@"+old, old), old, ""},
		{lock(ref+"@"+old, ""), old, ""},
		{lock(ref+"@"+old, newer), "", "has no digest, or two"},
		{lock(ref+":1", ""), "", "has no digest, or two"},
		{lock(s.host+"/evil/one@"+evil, evil), "", "which is another one"},
		{lock(ref+"@sha256:"+strings.Repeat("0", 64), ""), "", "MANIFEST_UNKNOWN"},
		{lock(ref+"@sha256:../../x", ""), "", "which is another one"},
		{`[`, "", "this is not a lock file"},
		{`{"features": {}}`, newer, ""},
	} {
		if c.lock != "" {
			p.inFolder(t, "devcontainer-lock.json", c.lock)
		}
		got := p.look(t, true)
		switch {
		case c.fail != "" && (got.Err == nil || !strings.Contains(got.Err.Error(), c.fail) || got.Proposal != nil):
			t.Errorf("%s: %v, want %s", c.lock, got.Err, c.fail)
		case c.fail == "" && (got.Err != nil || got.Proposal.Setup.Installed[0].Digest != c.want):
			t.Errorf("%s: %+v, want %s", c.lock, got, c.want)
		}
	}
}

// TestAttackOneTagOfManyFeatures: what many features depend on is asked for once, and so is one feature
// under all of them.
func TestAttackOneTagOfManyFeatures(t *testing.T) {
	p, s := newPlace(t), newShelf(t)
	s.put(t, "tools/base:1", `{"id": "base"}`)
	var ask []string
	for _, name := range []string{"a", "b", "c"} {
		s.put(t, "tools/"+name+":1", fmt.Sprintf(`{"id": %q, "dependsOn": {%q: {"of": %q}}}`, name, s.host+"/tools/base:1", name))
		ask = append(ask, fmt.Sprintf(`"%s/tools/%s:1": {}`, s.host, name))
	}
	p.devcontainer(t, `{"features": {`+strings.Join(ask, ", ")+`}}`)
	before := s.bases.Load()
	c := p.look(t, true)
	if n := s.bases.Load() - before; c.Err != nil || len(installed(c.Proposal)) != 6 || n != 1 {
		t.Errorf("%d requests: %v %q", n, c.Err, installed(c.Proposal))
	}
}

// TestFeaturesThatAreRefused: of a file, and of a registry.
func TestFeaturesThatAreRefused(t *testing.T) {
	p, s, other := newPlace(t), newShelf(t), newShelf(t)
	other.put(t, "tools/x", `{"id": "x"}`)
	s.put(t, "tools/away", `{"id": "away", "dependsOn": {"`+other.host+`/tools/x": {}}}`)
	s.put(t, "tools/inside", `{"id": "inside", "dependsOn": {"./own": {}}}`)
	s.put(t, "tools/empty", "")
	s.put(t, "tools/big", `{"id": "x", "a": "`+strings.Repeat("x", 65<<10)+`"}`)
	s.put(t, "tools/bad", `{"id": "x", "containerEnv": {"a b": "1"}}`)
	s.put(t, "tools/hides", fmt.Sprintf(`{"id": "x", "mounts": [{"type": "volume", "source": "x", "target": %q}]}`, p.shop))
	p.inFolder(t, "own/install.sh", "")
	if err := os.Symlink("/etc", filepath.Join(p.shop, ".devcontainer", "link")); err != nil {
		t.Fatal(err)
	}
	asked := other.asked.Load()
	for id, want := range map[string]string{
		"go": "is not a reference in a registry", "tools/one:1": "is not a reference in a registry", "https://registry.example/x.tgz": "is not a reference in a registry",
		"./own": "it has no devcontainer-feature.json", "./none": "no such file", "./link": "is a symbolic link", "../../x": "does not lie in the project", "./own/install.sh": "not a directory",
		s.host + "/tools/away": "which .devcontainer/devcontainer.json does not name", s.host + "/tools/inside": "a folder of a project",
		s.host + "/tools/empty": "it has no devcontainer-feature.json", s.host + "/tools/big": "has more than 65536 bytes", s.host + "/tools/bad": "is not the name of a variable",
		s.host + "/tools/hides": "would hide the project", s.host + "/tools/none": "NAME_UNKNOWN",
	} {
		p.devcontainer(t, fmt.Sprintf(`{"features": {%q: {}}}`, id))
		if c := p.look(t, true); c.Err == nil || c.Proposal != nil || !strings.Contains(c.Err.Error(), want) {
			t.Errorf("%s: %v, want %s", id, c.Err, want)
		} else if err := p.Approve(t.Context(), c); engine.ReasonOf(err) != engine.ProjectInvalid {
			t.Errorf("%s: it is approved: %v", id, err)
		}
	}
	if n := other.asked.Load() - asked; n != 0 {
		t.Errorf("%d requests to a registry that the file does not name", n)
	}
}
