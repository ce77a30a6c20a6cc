//go:build vm

package vmtest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestComposeDevcontainer: the services beside the one that is worked in run in the sandbox's Docker. Commands
// reach them by name and, where they share its network, at localhost; they reach it, and the host one of
// their ports. So it is after a stop, too.
func TestComposeDevcontainer(t *testing.T) {
	if os.Getenv(buildTestsEnv) == "" {
		t.Skipf("it takes minutes under emulation: %s=1 runs it", buildTestsEnv)
	}
	dir := project(t, "composed")
	free, port := listen(t, "127.0.0.1:0")
	free.Close()
	at := func(name string) string { return filepath.Join(dir, ".devcontainer", name) }
	if err := os.MkdirAll(at("parts"), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "tiny.sh"), testdata(t, "tiny.sh"))
	sh(t, dir, "bash -eu tiny.sh") // services need their image when they start
	must(t, dir, "stop")
	if err := os.Mkdir(filepath.Join(dir, "seed"), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, at("serve.py"), testdata(t, "serve.py"))
	for from, to := range map[string]string{"devcompose": "docker-compose.yml", "devcompose-seed": "parts/seed.yaml", "devcompose-health": "parts/health.yaml"} {
		writeFile(t, at(to), strings.ReplaceAll(testdata(t, from+".yaml"), "PORT", fmt.Sprint(port)))
	}
	writeFile(t, at(".env"), "STAGE=composed\nUNUSED=secret\n") // it is hidden
	writeFile(t, at("devcontainer.json"), fmt.Sprintf(`{
		"dockerComposeFile": "docker-compose.yml", "service": "app", "workspaceFolder": "/workspaces/${localWorkspaceFolderBasename}",
		"forwardPorts": ["cache:%d"], "shutdownAction": "stopCompose",
		"postStartCommand": "cat seed/runs; setsid python3 .devcontainer/serve.py 8000 worker >/tmp/worker 2>&1 </dev/null &"
	}`, port))
	fails(t, dir, 125, "bawn trust --devcontainer", "run", "--devcontainer", "--", "true")
	said := must(t, dir, "trust", "--yes", "--devcontainer", "--env-file", ".devcontainer/.env")
	for _, want := range []string{"the sandbox is the service app of .devcontainer/docker-compose.yml", "runs the service db at each start, from the image tiny", "GET the values of these variables, from a file that the sandbox does not see otherwise: .devcontainer/.env: STAGE\n", "the guest reaches the project at /workspaces/composed, too"} {
		if !strings.Contains(said, want) {
			t.Errorf("trust does not say %q: %s", want, said)
		}
	}
	fetch := func(url string) string {
		return fmt.Sprintf("until curl -sf --retry 100 --retry-connrefused --retry-delay 1 '%s'; do sleep 1; done; echo", url)
	}
	script := strings.Join([]string{"set -eu", "echo $STAGE; cat /workspaces/composed/seed/runs",
		fetch("http://localhost:5432/"), fetch("http://db:5432/"), fetch(fmt.Sprintf("http://cache:%d/", port)), fetch(fmt.Sprintf("http://redis:%d/", port)),
		fetch(fmt.Sprintf("http://db:5432/get?http://redis:%d/", port)),  // from the network of the machine to the others
		fetch(fmt.Sprintf("http://cache:%d/get?http://app:8000/", port)), // and from these to the machine
		fetch(fmt.Sprintf("http://cache:%d/get?http://db:5432/", port)), "docker ps -q | wc -l"}, "\n")
	want := "database\ndatabase\ncache\ncache\ncache\nworker\ndatabase\n2\n"
	for i, args := range [][]string{{"run", "--devcontainer"}, {"run"}} {
		r := bawn(t, dir, append(args, "--", "bash", "-c", script)...)
		if runs := "composed\n" + strings.Repeat("x", i+1) + "\n"; r.code != 0 || r.out != runs+want {
			t.Fatalf("start %d: %+v, want %q", i, r, runs+want)
		}
		wait(t, "the forwarded port", func() bool {
			c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				return false
			}
			c.Close()
			got, err := get(fmt.Sprintf("http://127.0.0.1:%d/", port))
			return err == nil && got == "cache"
		})
		if got := must(t, dir, "run", "--", "grep", "-c", "service of devcontainer.json", "/etc/hosts"); got != "3\n" {
			t.Errorf("the hosts file has %s lines of services", got)
		}
		must(t, dir, "stop")
	}
}
