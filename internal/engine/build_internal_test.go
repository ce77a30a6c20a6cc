package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"bawn.dev/bawn/internal/engine/enginetest"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/sys/lockfile"
	"bawn.dev/bawn/internal/transfer"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestABuilderIsNotTheSandboxOfItsDirectory: it is found by builds only, one for a directory, and
// sees the directory read-only.
func TestABuilderIsNotTheSandboxOfItsDirectory(t *testing.T) {
	home := enginetest.TempHome(t)
	sandboxes, err := store.Open()
	if err != nil {
		t.Fatal(err)
	}
	e := New(sandboxes, Options{})
	dir := filepath.Join(home, "web")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	yes := true
	r := Request{Dir: dir, Builder: true, Change: SpecChange{NoProject: &yes}}
	in, err := e.resolve(t.Context(), &r)
	if err != nil || !in.made || in.spec.Name != "build-web" || !in.spec.Project.ReadOnly() || !in.spec.NoProject {
		t.Fatalf("%+v, %v", in.spec, err)
	}
	if again, err := e.resolve(t.Context(), &r); err != nil || again.made || again.spec.ID != in.spec.ID {
		t.Errorf("a second one: %+v, %v", again.spec, err)
	}
	if spec, err := e.Find(dir); ReasonOf(err) != NotFound {
		t.Errorf("bawn run finds %+v, %v", spec, err)
	}
	if places, err := sandboxes.Changeable(); err != nil || len(places) != 0 {
		t.Errorf("its guest could write to %v, %v", places, err)
	}

	d := sandboxes.Dir("build-web")
	held, err := lockfile.TryAcquire(d.File(builderLock))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, _, err := e.startFound(ctx, in, &r, &Image{Digest: "sha256:new"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a build beside another: %v", err)
	}
	if removed, err := e.RemoveBuilders(t.Context()); err == nil || len(removed) != 0 || !strings.Contains(err.Error(), "a build runs in it") {
		t.Errorf("%v, %v", removed, err)
	}
	held.Close()

	// A builder of an older default image goes.
	spec, err := d.Spec()
	if err != nil {
		t.Fatal(err)
	}
	spec.Boot.ImageDigest = "sha256:old"
	if err := d.WriteSpec(spec); err != nil {
		t.Fatal(err)
	}
	if s, l, err := e.startFound(t.Context(), in, &r, &Image{Digest: "sha256:new"}); s != nil || l != nil || err != nil {
		t.Errorf("%v, %v, %v", s, l, err)
	}
	if _, err := e.builderOf(dir, false); ReasonOf(err) != NotFound {
		t.Errorf("it is still there: %v", err)
	}

	if _, err := e.resolve(t.Context(), &r); err != nil {
		t.Fatal(err)
	}
	if removed, err := e.RemoveBuilders(t.Context()); err != nil || !slices.Equal(removed, []string{"build-web"}) {
		t.Errorf("%v, %v", removed, err)
	}
}

// openHere opens a file where no guest can change anything.
func openHere(path string) (*os.File, error) { return transfer.OpenSource(nil, path) }

// TestFindDockerfile: what lies in the context is left to the guest, whatever it is a link to.
func TestFindDockerfile(t *testing.T) {
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(top, name) }
	for _, d := range []string{"ctx", "ctx/sub", "else", "bare"} {
		if err := os.Mkdir(at(d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(t, at("ctx/Dockerfile"), "in")
	write(t, at("ctx/sub/D"), "sub")
	write(t, at("else/Dockerfile"), "out")
	write(t, at("else/Dockerfile.dockerignore"), "x")
	write(t, at("else/large"), strings.Repeat("#", maxDockerfile+1))
	for from, to := range map[string]string{"ctx/Leak": "else/Dockerfile", "link": "ctx", "named": "ctx/sub/D"} {
		if err := os.Symlink(at(to), at(from)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(at("else/pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(at("else"))
	for name, want := range map[string]dockerfile{
		"":                       {inContext: true, path: at("ctx/Dockerfile")},
		"../ctx/sub/D":           {inContext: true, path: at("ctx/sub/D")},
		at("link/Dockerfile"):    {inContext: true, path: at("ctx/Dockerfile")},
		"../ctx/Leak":            {inContext: true, path: at("ctx/Leak")},
		"Dockerfile":             {text: []byte("out"), ignore: []byte("x")},
		at("ctx/../named"):       {text: []byte("sub")},
		"-":                      {text: []byte("stdin")},
		"../ctx/sub/../sub/../x": {},
		"pipe":                   {},
		"large":                  {},
		".":                      {},
	} {
		got, err := findDockerfile(at("ctx"), name, strings.NewReader("stdin"), openHere)
		if bad := want.path == "" && want.text == nil; bad != (err != nil) || got.inContext != want.inContext || got.path != want.path ||
			string(got.text) != string(want.text) || string(got.ignore) != string(want.ignore) {
			t.Errorf("%q: %+v, %v", name, got, err)
		}
	}
	if _, err := findDockerfile(at("bare"), "", nil, openHere); ReasonOf(err) != NoDockerfile {
		t.Error(err)
	}
	for _, bad := range []string{at("none"), at("ctx/Dockerfile"), "/etc", "/"} {
		if got, err := buildContext(bad); ReasonOf(err) != BuildContext {
			t.Errorf("%s: %s, %v", bad, got, err)
		}
	}
	if got, err := buildContext(at("link")); err != nil || got != at("ctx") {
		t.Errorf("%s, %v", got, err)
	}
}

func TestBuildCommand(t *testing.T) {
	r := BuildRequest{Target: "--push", Args: []string{"A=b c"}, Secrets: []BuildSecret{{ID: "t", Value: []byte("hidden")}}, NoCache: true, Progress: "plain"}
	got := buildCommand(&r, dockerfile{text: []byte("x")}, "/home/me/-x")
	want := []string{"docker", "buildx", "build", "--tag", "bawn-build:result", "--file", "/run/bawn-build/Dockerfile", "--progress", "plain", "--no-cache",
		"--target", "--push", "--build-arg", "A=b c", "--secret", "id=t,src=/run/bawn-build/secret-0", "--", "/home/me/-x"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// TestBuildRulesAreRules: each is known.
func TestBuildRulesAreRules(t *testing.T) {
	for _, c := range (&SpecChange{Allow: BuildRules}).rules() {
		if err := c.Check(); err != nil {
			t.Error(err)
		}
	}
}
