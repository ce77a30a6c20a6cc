//go:build vm

package vmtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// tinyRoot makes root.tar, a small root file system of the guest's own programs.
const tinyRoot = `
root=$(mktemp -d)
mkdir -p "$root/bin" "$root/etc"
for p in dash cat tar unshare mount mktemp rmdir grep sync id; do
	cp "$(command -v $p)" "$root/bin/"
	for l in $(ldd "$(command -v $p)" | grep -o '/[^ ]*'); do
		mkdir -p "$root$(dirname "$l")"
		cp -n "$l" "$root$l"
	done
done
ln -s dash "$root/bin/sh"
tar -C "$root" -cf root.tar .
rm -r "$root"`

// saveTiny writes an image of tinyRoot in the format of docker save.
func saveTiny(t *testing.T, to string) {
	t.Helper()
	dir := temp(t)
	sh(t, dir, tinyRoot)
	layer, err := tarball.LayerFromFile(filepath.Join(dir, "root.tar"))
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.Config.Env = []string{"GREETING=hello"}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag("tiny:tag")
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(to, tag, img); err != nil {
		t.Fatal(err)
	}
}

// TestImages: a sandbox of an OCI image, and one of an image that was made of the first.
func TestImages(t *testing.T) {
	t.Setenv(templatesEnv, "off") // each would be of use once
	archive := "docker-archive:" + filepath.Join(t.TempDir(), "tiny.tar")
	saveTiny(t, strings.TrimPrefix(archive, "docker-archive:"))
	first, second := project(t, "oci"), project(t, "oci-saved")
	ref := fmt.Sprintf("local:tiny-%d", os.Getpid())
	t.Cleanup(func() { // of the cache that is kept
		for _, r := range []string{archive, ref} {
			bawnAt(context.Background(), first, nil, nil, "image", "rm", r)
		}
	})
	fails(t, second, 125, "there is no image "+ref, "run", "--image", ref, "--", "true")
	run := func(dir, image string, want string, script string) {
		t.Helper()
		if got := must(t, dir, "run", "--image", image, "--memory", "1G", "--user", "root", "--", "sh", "-euc", script); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	writeFile(t, filepath.Join(first, "in-project"), "project\n")
	run(first, archive, "hello\nproject\n", `echo $GREETING; cat in-project; echo installed > /bin/installed; echo note > ~/note; echo lost > /tmp/lost`)
	must(t, first, "image", "commit", "oci", strings.TrimPrefix(ref, "local:"))
	run(second, ref, "hello\ninstalled\nnote\noci-saved\n", fmt.Sprintf(`echo $GREETING; cat /bin/installed ~/note /etc/hostname; ! test -e /tmp/lost; ! test -e %s`, first))
	fails(t, first, 125, "a sandbox uses the image", "image", "rm", ref)
	must(t, second, "rm", "--force")
	must(t, first, "image", "rm", ref)
	for script, say := range map[string]string{": >": "there are no files", "echo exit 3 >": "could not pack its files"} { // a guest that does not do its part
		run(first, archive, "", script+" /bin/unshare")
		fails(t, first, 125, say, "image", "commit", "oci", strings.TrimPrefix(ref, "local:"))
	}
	if got := must(t, first, "image", "ls"); strings.Contains(got, ref) {
		t.Errorf("it is still there:\n%s", got)
	}
}
