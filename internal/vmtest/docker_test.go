//go:build vm

package vmtest

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestDocker uses the guest's own Docker daemon, with an image that it makes there. Containers and
// builds use a secret of the host, and trust bawn's certificate for that.
func TestDocker(t *testing.T) {
	s := newKeyServer(t)
	dir := project(t, "docker")
	at := fmt.Sprintf("secret.test:%d", s.port)
	forgetAuthority(t)
	if r := bawnAt(t.Context(), dir, strings.NewReader(secretValue+"\n"), nil, "secret", "set", "EXAMPLE_KEY", "--for", at); r.code != 0 {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { bawn(t, dir, "secret", "rm", "EXAMPLE_KEY") })
	port := freePort(t)
	writeFile(t, filepath.Join(dir, "docker.sh"), testdata(t, "docker.sh"))
	writeFile(t, filepath.Join(dir, "tiny.sh"), testdata(t, "tiny.sh"))
	writeFile(t, filepath.Join(dir, "compose.yaml"), testdata(t, "compose.yaml"))
	writeFile(t, filepath.Join(dir, "Dockerfile"), "FROM tiny\nARG EXAMPLE_KEY\nCOPY ask.py /\nRUN [\"/bin/sh\", \"-c\", \"echo built > /built; python3 /ask.py >> /built\"]\n")
	writeFile(t, filepath.Join(dir, "ask.py"), fmt.Sprintf(`import os, urllib.request as u
print("asked:", u.urlopen(u.Request("https://%s/", headers={"Authorization": "Bearer " + os.environ["EXAMPLE_KEY"]}), timeout=60).read().decode(), end="")
`, at))
	writeFile(t, filepath.Join(dir, "from-host"), "host file\n")
	if r := bawnAt(t.Context(), dir, nil, []string{"SSL_CERT_FILE=" + s.roots}, "run", "--add-host", "secret.test:"+serverAddr, "--allow", at, "--allow", serverAddr+fmt.Sprintf(":%d", s.port), "--", "pgrep", "dockerd"); r.code != 1 {
		t.Errorf("a daemon runs before it is used: %+v", r)
	}
	got := must(t, dir, "run", "--", "bash", "docker.sh")
	for _, want := range []string{"in a container", "read: host file", "built", "answer: pong from server", "certificates: /dev/bawn-ca/", "nothing of bawn in the configurations", "nothing of bawn in the files", "docker exec: /dev/bawn-ca/"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in:\n%s", want, got)
		}
	}
	if n := strings.Count(got, "asked: HTTP/1.1 got Bearer sk-ant-api03-"); n != 2 || s.good.Load() != 2 || strings.Contains(got, secretValue) {
		t.Errorf("a container and a build got %d answers, the server %d requests with the key:\n%s", n, s.good.Load(), got)
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
	got = sh(t, dir, `sudo sh -c 'mkdir -p /etc/docker; echo "{" > /etc/docker/daemon.json; pkill -x dockerd; while pgrep -x dockerd; do sleep 0.1; done' >&2
docker ps 2>&1 || true; sudo rm /etc/docker/daemon.json; until docker ps; do sleep 1; done 2>/dev/null`)
	if !strings.Contains(got, "the Docker daemon of this sandbox ended with status 1: ") || !strings.Contains(got, "CONTAINER ID") {
		t.Errorf("a daemon that cannot start, then one that can: %q", got)
	}
}
