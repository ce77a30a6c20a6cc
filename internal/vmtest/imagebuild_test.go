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

// TestImageBuildFromDefault extends the default image.
func TestImageBuildFromDefault(t *testing.T) {
	if os.Getenv(buildTestsEnv) == "" {
		t.Skipf("it takes minutes under emulation: %s=1 runs it", buildTestsEnv)
	}
	dir := project(t, "extended")
	t.Cleanup(func() {
		bawnAt(context.Background(), dir, nil, nil, "rm", "--force", "build-extended")
		bawnAt(context.Background(), dir, nil, nil, "image", "rm", "extended")
	})
	writeFile(t, filepath.Join(dir, "Dockerfile"), "FROM bawn/default\nRUN git --version >/version\n")
	must(t, dir, "image", "build", ".")
	if got := must(t, dir, "run", "--image", "extended", "--", "cat", "/version"); !strings.HasPrefix(got, "git version") {
		t.Errorf("%q", got)
	}
}
