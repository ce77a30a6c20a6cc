//go:build vm

package vmtest

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// freePort is a TCP port of the loopback that nobody has now.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatal(l.Addr())
	}
	return a.Port
}

// background starts a command in the guest that goes on until the test ends.
func background(t *testing.T, dir string, args ...string) {
	t.Helper()
	c := command(t.Context(), dir, args...)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
}

func get(url string) (string, error) {
	r, err := http.Get(url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return string(b), err
}

func TestPorts(t *testing.T) {
	dir := temp(t)
	writeFile(t, filepath.Join(dir, "index.html"), "served")
	background(t, dir, "run", "--", "python3", "-m", "http.server", "--bind", "127.0.0.1", "8123")
	port := freePort(t)
	must(t, dir, "port", fmt.Sprintf("%d:8123", port))
	url := fmt.Sprintf("http://127.0.0.1:%d/", port)
	wait(t, "the server", func() bool { _, err := get(url); return err == nil })
	if got, err := get(url); got != "served" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got := must(t, dir, "port"); !strings.Contains(got, fmt.Sprint(port)) {
		t.Errorf("%s", got)
	}
	fails(t, dir, 125, "already published", "port", fmt.Sprintf("%d:99", port))
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, other, _ := net.SplitHostPort(taken.Addr().String())
	fails(t, dir, 125, "in use by another program", "port", other+":99")
	// On the loopback only.
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			if c, err := net.Dial("tcp", net.JoinHostPort(n.IP.String(), fmt.Sprint(port))); err == nil {
				c.Close()
				t.Errorf("published on %s", n.IP)
			}
		}
	}
	must(t, dir, "port", "--remove", fmt.Sprint(port))
	if _, err := get(url); err == nil {
		t.Error("still published")
	}
}

// TestSSH reaches the guest with the real ssh, sftp, rsync and git.
func TestSSH(t *testing.T) {
	dir := temp(t)
	config := filepath.Join(base, "ssh_config")
	writeFile(t, config, must(t, dir, "ssh-config"))
	run := func(args ...string) string {
		t.Helper()
		c := exec.CommandContext(t.Context(), args[0], args[1:]...)
		c.Dir = dir
		c.Env = environment()
		out, err := c.CombinedOutput()
		if err != nil {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if got := run("ssh", "-F", config, "bawn-shared", "echo $((6*7)); id -u"); got != fmt.Sprintf("42\n%d\n", os.Getuid()) {
		t.Errorf("ssh: %q", got)
	}
	writeFile(t, filepath.Join(dir, "batch"), "put batch /tmp/put\nget /tmp/put got\nls /tmp\n")
	run("sftp", "-F", config, "-b", "batch", "bawn-shared")
	if readFile(t, filepath.Join(dir, "got")) != readFile(t, filepath.Join(dir, "batch")) {
		t.Error("sftp changed the file")
	}
	tree := filepath.Join(dir, "tree")
	if err := os.MkdirAll(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		writeFile(t, filepath.Join(tree, fmt.Sprint(i)), strings.Repeat(fmt.Sprint(i), 1000))
	}
	run("rsync", "-a", "-e", "ssh -F "+config, tree+"/", "bawn-shared:/tmp/rsynced/")
	run("rsync", "-a", "-e", "ssh -F "+config, "bawn-shared:/tmp/rsynced/", filepath.Join(dir, "back")+"/")
	run("diff", "-r", tree, filepath.Join(dir, "back"))
	sh(t, dir, "git init -q /tmp/repo && cd /tmp/repo && git -c user.name=n -c user.email=e commit -q --allow-empty -m from-guest")
	run("git", "-c", "core.sshCommand=ssh -F "+config, "clone", "-q", "bawn-shared:/tmp/repo", "clone")
	if got := run("git", "-C", "clone", "-c", "safe.directory=*", "log", "--format=%s"); got != "from-guest\n" {
		t.Errorf("git: %q", got)
	}
	// Forwarding in both directions.
	port := freePort(t)
	background(t, dir, "run", "--", "python3", "-m", "http.server", "--bind", "127.0.0.1", "8124")
	c := exec.CommandContext(t.Context(), "ssh", "-F", config, "-N", "-o", "ExitOnForwardFailure=yes", "-L", fmt.Sprintf("127.0.0.1:%d:127.0.0.1:8124", port), "bawn-shared")
	c.Env = environment()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
	wait(t, "the forwarded port", func() bool {
		_, err := get(fmt.Sprintf("http://127.0.0.1:%d/", port))
		return err == nil
	})
}

// TestDocker uses the guest's own daemon, with an image made on the spot.
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
