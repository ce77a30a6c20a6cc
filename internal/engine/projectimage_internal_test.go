package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"bawn.dev/bawn/internal/engine/enginetest"
	"bawn.dev/bawn/internal/progress"
	"bawn.dev/bawn/internal/project"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/sys/atomicfile"
)

// buildPlace makes a project with a Dockerfile that takes its context.
func buildPlace(t *testing.T) *projectBuild {
	t.Helper()
	home := enginetest.TempHome(t)
	t.Setenv("PATH", t.TempDir()) // no QEMU: nothing starts
	sandboxes, err := store.Open()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(home, "shop")
	for _, d := range []string{"web/src", "web/node_modules"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"web/Dockerfile": "FROM scratch\nCOPY . /\n", "web/.dockerignore": "# made\n/node_modules\n**/*.log\n",
		"web/src/main": "1", "web/node_modules/x": "1", "other": "1", project.Name: "build: web\n",
	} {
		write(t, filepath.Join(dir, name), text)
	}
	spec := &sandbox.Spec{Dir: dir}
	return &projectBuild{
		builtImage: builtImage{e: New(sandboxes, Options{}), dir: dir, key: imageKey(spec), ref: projectImageRef(spec)},
		Build:      &project.Build{Context: "web"},
	}
}

// TestBuildInputs: the digest changes with all that the build could read, and with nothing else.
func TestBuildInputs(t *testing.T) {
	b := buildPlace(t)
	at := func(name string) string { return filepath.Join(b.dir, name) }
	outside := filepath.Join(filepath.Dir(b.dir), "outside")
	write(t, outside, "1")
	last, known := b.inputs()
	if !known {
		t.Fatal("not known")
	}
	for _, c := range []struct {
		name    string
		do      func() error
		changes bool
	}{
		{"nothing", func() error { return nil }, false},
		{"a file of the context", func() error { return os.WriteFile(at("web/src/main"), []byte("2"), 0o600) }, true},
		{"its mode", func() error { return os.Chmod(at("web/src/main"), 0o700) }, true},
		{"a new file", func() error { return os.WriteFile(at("web/src/new"), nil, 0o600) }, true},
		{"a new name", func() error { return os.Rename(at("web/src/new"), at("web/src/newer")) }, true},
		{"what is ignored", func() error { return os.WriteFile(at("web/node_modules/x"), []byte("2"), 0o600) }, false},
		{"what lies outside the context", func() error { return os.WriteFile(at("other"), []byte("2"), 0o600) }, false},
		{"a link out of the project", func() error { return os.Symlink(outside, at("web/src/link")) }, true},
		{"where that leads", func() error { return os.WriteFile(outside, []byte("2"), 0o600) }, false},
		{"a pipe", func() error { return syscall.Mkfifo(at("web/src/pipe"), 0o600) }, true},
		{"the Dockerfile", func() error { return os.WriteFile(at("web/Dockerfile"), []byte("FROM scratch\nadd a /\n"), 0o600) }, true},
		{"an argument", func() error { b.Args = []string{"A=1"}; return nil }, true},
		{"a hidden path", func() error { b.hide = []string{"a"}; return nil }, true},
		{"patterns that take paths back", func() error {
			return os.WriteFile(at("web/.dockerignore"), []byte("node_modules\n!node_modules/x\n"), 0o600)
		}, true},
		{"what could be taken back", func() error { return os.WriteFile(at("web/node_modules/x"), []byte("3"), 0o600) }, true},
		{"a Dockerfile without a context", func() error { return os.WriteFile(at("web/Dockerfile"), []byte("FROM scratch\n"), 0o600) }, true},
		{"the context that it does not use", func() error { return os.WriteFile(at("web/src/main"), []byte("3"), 0o600) }, false},
	} {
		if err := c.do(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		now, known := b.inputs()
		if !known || (now != last) != c.changes {
			t.Errorf("%s: changed %v, known %v", c.name, now != last, known)
		}
		last = now
	}
	for text, want := range map[string]bool{
		"FROM a\nRUN make\n": false, "FROM a\n COPY --from=b / /\n": true, "run --mount=target=/x make": true, "from a\nadd x /": true,
		"# syntax=x\nFROM a": true, "#escape=`\nFROM a": true, "ONBUILD RUN x": true,
	} {
		if takesContext.MatchString(text) != want {
			t.Errorf("%q takes the context: %v", text, !want)
		}
	}
}

// TestBuildInputsAreBounded: what is too much, or cannot be read, is not known.
func TestBuildInputsAreBounded(t *testing.T) {
	for name, make := range map[string]func(b *projectBuild) error{
		"many bytes": func(b *projectBuild) error {
			for i := range maxInputBytes/maxInputFile + 1 {
				if err := os.WriteFile(filepath.Join(b.dir, "web", fmt.Sprint(i)), bytes.Repeat([]byte("x"), maxInputFile), 0o600); err != nil {
					return err
				}
			}
			return nil
		},
		"many files": func(b *projectBuild) error {
			for i := range maxInputFiles {
				if err := os.Symlink("x", filepath.Join(b.dir, "web/src", fmt.Sprint(i))); err != nil {
					return err
				}
			}
			return nil
		},
		"deep directories": func(b *projectBuild) error {
			return os.MkdirAll(filepath.Join(b.dir, "web", strings.Repeat("d/", maxInputDepth+1)), 0o700)
		},
		"a Dockerfile that leads out": func(b *projectBuild) error {
			b.File = "Leak"
			return os.Symlink("/etc/passwd", filepath.Join(b.dir, "Leak"))
		},
		"a Dockerfile that is a pipe": func(b *projectBuild) error {
			b.File = "Pipe"
			return syscall.Mkfifo(filepath.Join(b.dir, "Pipe"), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := buildPlace(t)
			if err := make(b); err != nil {
				t.Fatal(err)
			}
			if _, known := b.inputs(); known {
				t.Error("known")
			}
		})
	}
}

// pretendBuilt puts an image of the project into the cache, with the note of a build.
func pretendBuilt(t *testing.T, b *projectBuild) *Image {
	t.Helper()
	var tree, archive bytes.Buffer
	w := tar.NewWriter(&tree)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755}), w.Close()); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(tree.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	built, err := mutate.AppendLayers(empty.Image, layer)
	if err == nil {
		built, err = mutate.ConfigFile(built, &v1.ConfigFile{OS: "linux", Architecture: runtime.GOARCH, RootFS: v1.RootFS{Type: "layers", DiffIDs: diffIDs(t, layer)}})
	}
	if err == nil {
		err = tarball.Write(name.MustParseReference("built:1"), built, &archive)
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := b.e.images()
	if err != nil {
		t.Fatal(err)
	}
	img, err := s.SaveArchive(t.Context(), b.ref, &archive, 1<<20, progress.Silent)
	if err != nil {
		t.Fatal(err)
	}
	file, err := b.noteFile()
	if err != nil {
		t.Fatal(err)
	}
	inputs, _ := b.inputs()
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), atomicfile.WriteJSON(file, builtNote{inputs, img.Digest})); err != nil {
		t.Fatal(err)
	}
	return img
}

func diffIDs(t *testing.T, layer v1.Layer) []v1.Hash {
	t.Helper()
	id, err := layer.DiffID()
	if err != nil {
		t.Fatal(err)
	}
	return []v1.Hash{id}
}

// TestAProjectsImageIsBuiltWhenItChanged: and only then. Here no builder can start, so that a build
// fails.
func TestAProjectsImageIsBuiltWhenItChanged(t *testing.T) {
	b := buildPlace(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // a build ends at once, before it fetches anything
	img := pretendBuilt(t, b)
	e := b.e
	if err := b.ensure(t.Context()); err != nil {
		t.Fatalf("it is built again: %v", err)
	}
	c, err := e.CheckProject(b.dir)
	if err == nil {
		err = e.Approve(t.Context(), c)
	}
	if err != nil {
		t.Fatal(err)
	}
	r := Request{Dir: b.dir}
	if err := e.withProjectImage(t.Context(), &r); err != nil {
		t.Errorf("a new sandbox: %v", err)
	}
	in, err := e.resolve(t.Context(), &r)
	if err != nil || in.spec.Image != img.Ref || in.spec.Added.Image != img.Ref {
		t.Fatalf("%+v, %v", in.spec, err)
	}

	write(t, filepath.Join(b.dir, "web/src/main"), "changed")
	if err := b.ensure(ctx); err == nil {
		t.Error("it is not built again")
	}
	other, yes := "default", true
	for name, r := range map[string]Request{
		"another image":  {Dir: b.dir, Change: SpecChange{Image: &other}},
		"the file aside": {Dir: b.dir, Change: SpecChange{NoProject: &yes}},
	} {
		if err := e.withProjectImage(ctx, &r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}

	// A sandbox that was started keeps its image.
	var notices []Notice
	e = New(e.Sandboxes(), Options{Events: func(ev Event) {
		if n, ok := ev.(Notice); ok {
			notices = append(notices, n)
		}
	}})
	in.spec.Boot.ImageDigest = img.Digest
	if err := e.sandboxes.Dir(in.spec.Name).WriteSpec(in.spec); err != nil {
		t.Fatal(err)
	}
	older := func(want bool) {
		t.Helper()
		notices = nil
		if err := e.withProjectImage(ctx, &r); err != nil {
			t.Error(err)
		}
		if got := slices.ContainsFunc(notices, func(n Notice) bool { return n.Reason == ImageOlder && n.Sandbox == in.spec.Name }); got != want {
			t.Errorf("older: %v, want %v", got, want)
		}
	}
	older(true)
	write(t, filepath.Join(b.dir, "web/src/main"), "1")
	older(false)
	deep := filepath.Join(b.dir, "web/deep")
	if err := os.MkdirAll(filepath.Join(deep, strings.Repeat("d/", maxInputDepth+1)), 0o700); err != nil {
		t.Fatal(err)
	}
	older(false) // it cannot be told
	if err := os.RemoveAll(deep); err != nil {
		t.Fatal(err)
	}

	os.Remove(filepath.Join(b.dir, "web/Dockerfile"))
	if err := b.ensure(t.Context()); ReasonOf(err) != BuildFailed || !strings.Contains(err.Error(), "web/Dockerfile does not exist") {
		t.Error(err)
	}
	if err := syscall.Mkfifo(filepath.Join(b.dir, "web/Dockerfile"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.ensure(ctx); ReasonOf(err) != BuildFailed || !strings.Contains(err.Error(), "web/Dockerfile is not a regular file") {
		t.Error(err)
	}
}

// TestABuildKnowsWhenItBegan: denials of earlier builds in the same builder are not reported as its own.
func TestABuildKnowsWhenItBegan(t *testing.T) {
	b := buildPlace(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	build := &Build{e: b.e}
	if err := build.open(ctx, &Request{Dir: b.dir, Builder: true}); err == nil || build.began.IsZero() {
		t.Errorf("%v, %v", err, build.began)
	}
}

// TestTheBuildersOfAProject: that of bawn image build and that of build: are two, with rules of
// their own, and the approved rules of a build go with the approval.
func TestTheBuildersOfAProject(t *testing.T) {
	b := buildPlace(t)
	write(t, filepath.Join(b.dir, project.Name), "build: {context: web, allow: [preset:npm]}\nallow: [own.example]\n")
	c, err := b.e.CheckProject(b.dir)
	if err == nil {
		err = b.e.Approve(t.Context(), c)
	}
	if err != nil {
		t.Fatal(err)
	}
	yes := true
	own, err := b.e.resolve(t.Context(), &Request{Dir: b.dir, Builder: true, Change: SpecChange{NoProject: &yes}})
	if err != nil {
		t.Fatal(err)
	}
	in, err := b.e.resolve(t.Context(), &Request{Dir: b.dir, Builder: true, ForProject: true})
	if err != nil || in.spec.Name == own.spec.Name || !in.spec.Builder || !in.spec.Project.ReadOnly() || in.spec.Image != "" {
		t.Fatalf("%+v, %v", in.spec, err)
	}
	rules := func(spec *sandbox.Spec) string {
		t.Helper()
		d := b.e.sandboxes.Dir(spec.Name)
		if err := b.e.syncRules(t.Context(), d, spec); err != nil {
			t.Fatal(err)
		}
		text, _ := os.ReadFile(d.File(store.ProjectPolicyFile))
		return string(text)
	}
	if got := rules(in.spec); got != "allow preset:npm\n" {
		t.Errorf("the build may reach %q", got)
	}
	if got := rules(own.spec); got != "" {
		t.Errorf("bawn image build may reach %q", got)
	}
	if add, err := approvedAdditions(b.e.sandboxes, in.spec); err != nil || add.Image != "" {
		t.Errorf("%+v, %v", add, err)
	}
	// A machine for one build beside them, which no other build finds.
	once, err := b.e.resolve(t.Context(), &Request{Dir: b.dir, Builder: true, Throwaway: true, ForProject: true})
	if err != nil || !once.made || !once.spec.Builder || !once.spec.Throwaway || !once.spec.Project.ReadOnly() || once.spec.Name == in.spec.Name {
		t.Fatalf("%+v, %v", once.spec, err)
	}
	defer once.owner.Close()
	if got := rules(once.spec); got != "allow preset:npm\n" {
		t.Errorf("it may reach %q", got)
	}
	if found, err := b.e.builderOf(b.dir, true); err != nil || found.Name != in.spec.Name {
		t.Errorf("%+v, %v", found, err)
	}
	if removed, err := b.e.RemoveBuilders(t.Context()); slices.Contains(removed, once.spec.Name) {
		t.Errorf("%q, %v", removed, err)
	}
	if in, err = b.e.resolve(t.Context(), &Request{Dir: b.dir, Builder: true, ForProject: true}); err != nil {
		t.Fatal(err)
	}
	// Where the project's file does not count, neither does what it allows a build.
	ignoring := *in.spec
	ignoring.NoProject = true
	if got := rules(&ignoring); got != "" {
		t.Errorf("a build may reach %q by a bawn.yaml that is ignored", got)
	}
	if got := rules(in.spec); got != "allow preset:npm\n" {
		t.Errorf("the build may reach %q", got)
	}
	if err := b.e.Forget(t.Context(), b.dir); err != nil {
		t.Fatal(err)
	}
	if got := rules(in.spec); got != "" {
		t.Errorf("after the approval was withdrawn: %q", got)
	}
}

// TestLastLines: what a failed build said is kept within limits.
func TestLastLines(t *testing.T) {
	l := newLastLines(nil)
	for i := range 3 * maxLastLines {
		fmt.Fprintf(l, "line %d\r\n\n", i)
	}
	fmt.Fprint(l, strings.Repeat("x", 3*maxLastLine))
	got := strings.Split(l.String(), "\n")
	if len(got) != maxLastLines || got[len(got)-2] != fmt.Sprintf("line %d", 3*maxLastLines-1) || len(got[len(got)-1]) != maxLastLine {
		t.Errorf("%d lines: %q", len(got), got)
	}
}
