//go:build vm

package vmtest

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestDocker uses the guest's own Docker daemon, with an image that it makes there.
func TestDocker(t *testing.T) {
	dir := temp(t)
	port := freePort(t)
	writeFile(t, filepath.Join(dir, "docker.sh"), testdata(t, "docker.sh"))
	writeFile(t, filepath.Join(dir, "compose.yaml"), testdata(t, "compose.yaml"))
	writeFile(t, filepath.Join(dir, "Dockerfile"), "FROM tiny\nRUN [\"/bin/sh\", \"-c\", \"echo built > /built\"]\n")
	writeFile(t, filepath.Join(dir, "from-host"), "host file\n")
	if r := bawn(t, dir, "run", "--", "pgrep", "dockerd"); r.code != 1 {
		t.Errorf("a daemon runs before it is used: %+v", r)
	}
	got := must(t, dir, "run", "--", "bash", "docker.sh")
	for _, want := range []string{"in a container", "read: host file", "built", "answer: pong from server"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in:\n%s", want, got)
		}
	}
	if got := readFile(t, filepath.Join(dir, "from-container")); got != "container file\n" {
		t.Errorf("%q", got)
	}
	must(t, dir, "port", fmt.Sprintf("%d:8125", port)) // a container's published port
	wait(t, "the container", func() bool {
		got, err := get(fmt.Sprintf("http://127.0.0.1:%d/", port))
		return err == nil && strings.Contains(got, "pong from server")
	})
	sh(t, dir, "docker compose down -t 1 2>&1")
}
