//go:build vm

package vmtest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// counted is a server of the host that counts its connections.
type counted struct {
	port int
	got  atomic.Int64
}

func startCounted(t *testing.T) *counted {
	t.Helper()
	c := &counted{}
	var l net.Listener
	l, c.port = listen(t, "127.0.0.1:0")
	go echo(l, &c.got)
	return c
}

// projectFileTest is a project with a bawn.yaml, and the servers that its rules are about.
type projectFileTest struct {
	dir, file       string
	approved, other *counted
	published       int // port of the host
}

// ask connects from the guest to a port of the host.
func (p *projectFileTest) ask(t *testing.T, port int) result {
	return bawn(t, p.dir, "exec", "projectfile", "--", "python3", "-c", fmt.Sprintf(
		"import socket; s=socket.create_connection(('host.bawn.internal',%d)); s.sendall(b'hello\\n'); print(s.recv(9).decode())", port))
}

// TestProjectFile: a bawn.yaml takes effect only with the contents that were approved.
func TestProjectFile(t *testing.T) {
	free, published := listen(t, "127.0.0.1:0")
	free.Close()
	p := &projectFileTest{approved: startCounted(t), other: startCounted(t), published: published}
	p.dir = project(t, "projectfile")
	p.file = filepath.Join(p.dir, "bawn.yaml")
	writeFile(t, p.file, fmt.Sprintf("memory: 1g\nports: ['%d:7000']\nallow:\n  - host:%d\n", p.published, p.approved.port))
	fails(t, p.dir, 125, "bawn trust", "run", "--", "true")
	if out := must(t, p.dir, "ls", "--quiet"); strings.Contains(out, "projectfile") {
		t.Errorf("a sandbox was made: %s", out)
	}
	must(t, p.dir, "trust", "--yes", "--allow-host")
	writeFile(t, filepath.Join(p.dir, ".devcontainer.json"), devcontainerFile)
	fails(t, p.dir, 125, "bawn trust --devcontainer", "run", "--devcontainer", "--", "true")
	must(t, p.dir, "trust", "--yes", "--devcontainer")
	p.inForce(t)
	p.devcontainer(t)
	p.changed(t)
	p.restarted(t)
	p.removed(t)
	must(t, p.dir, "trust", "--forget", "--devcontainer")
	fails(t, p.dir, 125, "bawn trust --devcontainer", "run", "--", "true")
}

// inForce tests that the approved file takes effect: rule, memory and port.
func (p *projectFileTest) inForce(t *testing.T) {
	must(t, p.dir, "run", "--devcontainer", "--", "true")
	if r := p.ask(t, p.approved.port); r.code != 0 || !strings.Contains(r.out, "hello") || p.approved.got.Load() != 1 {
		t.Errorf("the rule is not in force: %+v", r)
	}
	if !strings.Contains(must(t, p.dir, "inspect"), fmt.Sprint(1<<30)) {
		t.Error("the memory is not the file's")
	}
	sh(t, p.dir, `setsid python3 -c '
import socket
l = socket.create_server(("127.0.0.1", 7000))
print("ready", flush=True)
while True:
    c, _ = l.accept(); c.sendall(b"published\n"); c.close()
' > /tmp/ready 2>&1 < /dev/null & until grep -q ready /tmp/ready; do sleep 0.1; done`)
	var c net.Conn
	wait(t, "the published port", func() (open bool) { // it opens soon after the guest listens
		var err error
		c, err = net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", p.published))
		return err == nil
	})
	defer c.Close()
	b := make([]byte, 32)
	if n, err := c.Read(b); string(b[:n]) != "published\n" {
		t.Errorf("the port: %q, %v", b[:n], err)
	}
}

// devcontainerFile is the devcontainer.json that the sandbox is made from, beside its bawn.yaml.
const devcontainerFile = `{
	// the environment, and commands that note that they ran
	"containerEnv": { "STAGE": "dev" },
	"remoteEnv": { "PATH": "${containerEnv:PATH}:/opt/x" },
	"workspaceFolder": "/workspaces/${localWorkspaceFolderBasename}",
	"postStartCommand": ["sh", "-c", "echo start >>~/events"],
	"postCreateCommand": "echo create $STAGE $(pwd -P) >>~/events",
}`

// devcontainer tests that the approved devcontainer.json takes effect.
func (p *projectFileTest) devcontainer(t *testing.T) {
	got := must(t, p.dir, "exec", "projectfile", "--", "sh", "-euc", "cat ~/events; echo $PATH; cd /workspaces/projectfile; pwd -P")
	want := fmt.Sprintf("create dev %s\nstart\n", p.dir)
	rest, ok := strings.CutPrefix(got, want)
	path, place, _ := strings.Cut(rest, "\n")
	if !ok || !strings.HasPrefix(path, "/") || !strings.HasSuffix(path, ":/opt/x") || place != p.dir+"\n" {
		t.Errorf("%q", got)
	}
}

// restarted tests that another start has run its own command again, and no other.
func (p *projectFileTest) restarted(t *testing.T) {
	got := must(t, p.dir, "exec", "projectfile", "--", "sh", "-euc", "cat ~/events")
	if want := fmt.Sprintf("create dev %s\nstart\nstart\n", p.dir); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// changed: the guest adds a rule, which stays in the guest. On the host, the rule takes effect only
// after it was approved.
func (p *projectFileTest) changed(t *testing.T) {
	rule := fmt.Sprintf("  - host:%d\n", p.other.port)
	sh(t, p.dir, fmt.Sprintf("echo '%s' >> bawn.yaml; tail -n 1 bawn.yaml", strings.TrimSuffix(rule, "\n")))
	text, err := os.ReadFile(p.file)
	if err != nil || strings.Contains(string(text), rule) {
		t.Errorf("the guest has changed bawn.yaml on the host: %q, %v", text, err)
	}
	writeFile(t, p.file, string(text)+rule)
	if r := p.ask(t, p.other.port); r.code == 0 || p.other.got.Load() != 0 || !strings.Contains(r.err, "has no effect") {
		t.Errorf("the guest's rule is in force, or nobody says that it is not: %+v", r)
	}
	fails(t, p.dir, 125, "bawn trust", "run", "--", "true")
	if r := p.ask(t, p.approved.port); r.code != 0 {
		t.Errorf("what was approved is gone: %+v", r)
	}
	must(t, p.dir, "stop")
	fails(t, p.dir, 125, "bawn trust", "run", "--", "true")
	if r := p.ask(t, p.other.port); r.code == 0 || p.other.got.Load() != 0 { // exec starts it, as it was approved
		t.Errorf("after a start the guest's rule is in force: %+v", r)
	}

	show := bawn(t, p.dir, "trust", "--show")
	if show.code != 1 || !strings.Contains(show.out, fmt.Sprintf("+   - host:%d", p.other.port)) {
		t.Errorf("%+v", show)
	}
	must(t, p.dir, "trust", "--yes", "--allow-host")
	must(t, p.dir, "run", "--", "true")
	if r := p.ask(t, p.other.port); r.code != 0 || p.other.got.Load() != 1 {
		t.Errorf("the rule is approved and not in force: %+v", r)
	}
}

// removed: removing the file is a change as well, and a link in its place is refused.
func (p *projectFileTest) removed(t *testing.T) {
	if err := os.Remove(p.file); err != nil {
		t.Fatal(err)
	}
	fails(t, p.dir, 125, "was removed since you approved it", "run", "--", "true")
	if err := os.Symlink("/etc/passwd", p.file); err != nil {
		t.Fatal(err)
	}
	fails(t, p.dir, 125, "symbolic link", "run", "--", "true")
	if err := os.Remove(p.file); err != nil {
		t.Fatal(err)
	}
	must(t, p.dir, "trust", "--yes", "--allow-host")
	must(t, p.dir, "run", "--", "true")
	if r := p.ask(t, p.approved.port); r.code == 0 {
		t.Errorf("the rules of a file that is gone are in force: %+v", r)
	}
}
