//go:build vm

package vmtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// buildTestsEnv runs the tests that build images: under software emulation they take minutes.
const buildTestsEnv = "BAWN_TEST_BUILD"

const builtDockerfile = `
FROM scratch AS first
ADD root.tar /
ARG WORD
COPY . /ctx/
RUN --mount=type=secret,id=token echo "$WORD" >/word; cat /run/secrets/token >/token
FROM scratch
COPY --from=first / /
ENV GREETING=hello
`

// TestImageBuild builds an image of two stages, without a registry, and runs it.
func TestImageBuild(t *testing.T) {
	if os.Getenv(buildTestsEnv) == "" {
		t.Skipf("it takes minutes under emulation: %s=1 runs it", buildTestsEnv)
	}
	t.Setenv(templatesEnv, "off") // each would be of use once
	dir, elsewhere := project(t, "built"), t.TempDir()
	tag := fmt.Sprintf("built:%d", os.Getpid())
	t.Cleanup(func() {
		bawnAt(context.Background(), dir, nil, nil, "rm", "--force", "build-built")
		bawnAt(context.Background(), dir, nil, nil, "image", "rm", tag)
	})
	at := func(name string) string { return filepath.Join(dir, name) }
	made := temp(t)
	sh(t, made, tinyRoot)
	if err := os.Rename(filepath.Join(made, "root.tar"), at("root.tar")); err != nil {
		t.Fatal(err)
	}
	writeFile(t, at(".dockerignore"), "ignored\n")
	for _, name := range []string{"ignored", "kept", ".env"} {
		writeFile(t, at(name), name+"\n")
	}
	writeFile(t, filepath.Join(elsewhere, "token"), "s3cret\n")
	writeFile(t, filepath.Join(elsewhere, "Dockerfile"), builtDockerfile)
	if err := os.Symlink(dir, filepath.Join(elsewhere, "link")); err != nil {
		t.Fatal(err)
	}
	argv := []string{"image", "build", "-t", tag, "--build-arg", "WORD=blue", "--secret", "id=token,src=" + filepath.Join(elsewhere, "token")}

	writeFile(t, at("Dockerfile"), builtDockerfile+"RUN exit 3\n")
	if r := bawn(t, dir, append(argv, ".")...); r.code != 1 || !strings.Contains(r.err, "exit code: 3") || !strings.Contains(r.err, ".env") {
		t.Fatalf("a build that fails: %+v", r)
	}
	if r := bawn(t, dir, "run", "--image", "local:"+tag, "--", "true"); r.code != 125 || !strings.Contains(r.err, "there is no image local:"+tag) {
		t.Errorf("it made an image: %+v", r)
	}
	// The Dockerfile of another place, the context by a symbolic link, and the cache of the failed build.
	r := bawn(t, dir, append(argv, "--progress", "plain", "-f", filepath.Join(elsewhere, "Dockerfile"), filepath.Join(elsewhere, "link"))...)
	if r.code != 0 || !strings.HasPrefix(r.out, "local:"+tag+"\tsha256:") || !strings.Contains(r.err, "CACHED") {
		t.Fatalf("%+v", r)
	}
	_, line, _ := strings.Cut(must(t, dir, "ls"), "build-built")
	if line, _, _ = strings.Cut(line, "\n"); !strings.Contains(line, "stopped") {
		t.Errorf("the builder: %q", line)
	}
	got := must(t, dir, "run", "--image", tag, "--memory", "1G", "--user", "root", "--", "sh", "-euc",
		`echo $GREETING; cat /word /token /ctx/kept; ! test -e /ctx/ignored; ! test -e /ctx/.env; ! test -e /run/secrets/token`)
	if got != "hello\nblue\ns3cret\nkept\n" {
		t.Errorf("%q", got)
	}
	if spec := must(t, dir, "inspect", "build-built"); !strings.Contains(spec, `"mode": "read-only"`) {
		t.Errorf("the context is not read-only: %s", spec)
	}
	if got := must(t, dir, "image", "prune", "--build-cache"); !strings.Contains(got, "build-built") {
		t.Errorf("%s", got)
	}
}

// TestImageBuildOfAProject: bawn.yaml describes the image. It is built for the first sandbox, again
// after a change, and not otherwise.
func TestImageBuildOfAProject(t *testing.T) {
	if os.Getenv(buildTestsEnv) == "" {
		t.Skipf("it takes minutes under emulation: %s=1 runs it", buildTestsEnv)
	}
	t.Setenv(templatesEnv, "off")
	dir, made := project(t, "described"), temp(t)
	t.Cleanup(func() {
		bawnAt(context.Background(), dir, nil, nil, "rm", "--force", "build-described")
		list := bawnAt(context.Background(), dir, nil, nil, "image", "ls")
		for line := range strings.Lines(list.out) {
			if ref, _, _ := strings.Cut(line, " "); strings.HasPrefix(ref, "local:project/described-") {
				bawnAt(context.Background(), dir, nil, nil, "image", "rm", ref)
			}
		}
	})
	at := func(name string) string { return filepath.Join(dir, name) }
	sh(t, made, tinyRoot)
	if err := os.Mkdir(at("web"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(made, "root.tar"), at("web/root.tar")); err != nil {
		t.Fatal(err)
	}
	writeFile(t, at("web/.env"), "secret\n")
	dockerfile := func(more string) {
		writeFile(t, at("web/Dockerfile.dev"), "FROM scratch\nADD root.tar /\nARG WORD\nCOPY . /ctx/\nRUN echo $WORD >/word\n"+more)
	}
	dockerfile("RUN exit 3\n")
	writeFile(t, at("bawn.yaml"), "memory: 1g\nbuild: {context: web, file: web/Dockerfile.dev, args: {WORD: blue}}\n")
	run := func(script string) result {
		return bawn(t, dir, "run", "--rm", "--user", "root", "--", "sh", "-euc", script)
	}
	if r := run("true"); r.code != 125 || !strings.Contains(r.err, "not approved") {
		t.Fatalf("it is not approved: %+v", r)
	}
	must(t, dir, "trust", "--yes")
	if r := run("true"); r.code != 125 || !strings.Contains(r.err, "exit code: 3") {
		t.Fatalf("a build that fails: %+v", r)
	}
	dockerfile("")
	if r := run("cat /word; test -e /ctx/root.tar; ! test -e /ctx/.env"); r.code != 0 || r.out != "blue\n" {
		t.Fatalf("%+v", r)
	}
	before := must(t, dir, "inspect", "build-described")
	if r := run("cat /word"); r.code != 0 || r.out != "blue\n" {
		t.Fatalf("%+v", r)
	}
	if after := must(t, dir, "inspect", "build-described"); after != before {
		t.Errorf("it was built again: %s, then %s", before, after)
	}
}

// TestImageBuildFromDefault extends the default image.
func TestImageBuildFromDefault(t *testing.T) {
	if os.Getenv(buildTestsEnv) == "" {
		t.Skipf("it takes minutes under emulation: %s=1 runs it", buildTestsEnv)
	}
	dir := project(t, "extended")
	t.Cleanup(func() {
		bawnAt(context.Background(), dir, nil, nil, "rm", "--force", "build-extended")
		bawnAt(context.Background(), dir, nil, nil, "image", "rm", "build/extended")
	})
	writeFile(t, filepath.Join(dir, "Dockerfile"), "FROM bawn/default\nRUN git --version >/version\n")
	must(t, dir, "image", "build", ".")
	if got := must(t, dir, "run", "--image", "build/extended", "--", "cat", "/version"); !strings.HasPrefix(got, "git version") {
		t.Errorf("%q", got)
	}
}
