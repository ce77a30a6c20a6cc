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

// TestProjectFile: a bawn.yaml takes effect only with the contents that were approved.
func TestProjectFile(t *testing.T) {
	allowed, other := &atomic.Int64{}, &atomic.Int64{}
	la, pa := listen(t, "127.0.0.1:0")
	lo, po := listen(t, "127.0.0.1:0")
	go echo(la, allowed)
	go echo(lo, other)
	free, published := listen(t, "127.0.0.1:0")
	free.Close()

	dir := project(t, "projectfile")
	file := filepath.Join(dir, "bawn.yaml")
	good := fmt.Sprintf("memory: 1g\nports: ['%d:7000']\nallow:\n  - host:%d\n", published, pa)
	writeFile(t, file, good)
	fails(t, dir, 125, "bawn trust", "run", "--", "true")
	if out := must(t, dir, "ls", "--quiet"); strings.Contains(out, "projectfile") {
		t.Errorf("a sandbox was made: %s", out)
	}

	must(t, dir, "trust", "--yes")
	ask := func(port int) result {
		return bawn(t, dir, "exec", "projectfile", "--", "python3", "-c", fmt.Sprintf(
			"import socket; s=socket.create_connection(('host.bawn.internal',%d)); s.sendall(b'hello\\n'); print(s.recv(9).decode())", port))
	}
	must(t, dir, "run", "--", "true")
	if r := ask(pa); r.code != 0 || !strings.Contains(r.out, "hello") || allowed.Load() != 1 {
		t.Errorf("the rule is not in force: %+v", r)
	}
	if !strings.Contains(must(t, dir, "inspect"), fmt.Sprint(1<<30)) {
		t.Error("the memory is not the file's")
	}
	sh(t, dir, `setsid python3 -c '
import socket
l = socket.create_server(("127.0.0.1", 7000))
print("ready", flush=True)
while True:
    c, _ = l.accept(); c.sendall(b"published\n"); c.close()
' > /tmp/ready 2>&1 < /dev/null & until grep -q ready /tmp/ready; do sleep 0.1; done`)
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", published))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, 32)
	if n, err := c.Read(b); string(b[:n]) != "published\n" {
		t.Errorf("the port: %q, %v", b[:n], err)
	}

	// The guest asks for more.
	sh(t, dir, fmt.Sprintf("echo '  - host:%d' >> bawn.yaml", po))
	if r := ask(po); r.code == 0 || other.Load() != 0 || !strings.Contains(r.err, "has no effect") {
		t.Errorf("the guest's rule is in force, or nobody says that it is not: %+v", r)
	}
	fails(t, dir, 125, "bawn trust", "run", "--", "true")
	if r := ask(pa); r.code != 0 {
		t.Errorf("what was approved is gone: %+v", r)
	}
	must(t, dir, "stop")
	fails(t, dir, 125, "bawn trust", "run", "--", "true")
	if r := ask(po); r.code == 0 || other.Load() != 0 { // exec starts it, as it was approved
		t.Errorf("after a start the guest's rule is in force: %+v", r)
	}

	show := bawn(t, dir, "trust", "--show")
	if show.code != 1 || !strings.Contains(show.out, fmt.Sprintf("+   - host:%d", po)) {
		t.Errorf("%+v", show)
	}
	must(t, dir, "trust", "--yes")
	must(t, dir, "run", "--", "true")
	if r := ask(po); r.code != 0 || other.Load() != 1 {
		t.Errorf("the rule is approved and not in force: %+v", r)
	}

	// Its removal is a change as well; and a link in its place is no file.
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	fails(t, dir, 125, "is gone", "run", "--", "true")
	sh2 := bawn(t, dir, "exec", "projectfile", "--", "ln", "-s", "/etc/passwd", filepath.Join(dir, "bawn.yaml"))
	if sh2.code != 0 {
		t.Errorf("%+v", sh2)
	}
	fails(t, dir, 125, "symbolic link", "run", "--", "true")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	must(t, dir, "trust", "--yes")
	must(t, dir, "run", "--", "true")
	if r := ask(pa); r.code == 0 {
		t.Errorf("the rules of a file that is gone are in force: %+v", r)
	}
}
