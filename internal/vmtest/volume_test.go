//go:build vm

package vmtest

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestVolumes: a volume outlasts the sandbox that wrote to it, and one sandbox at a time writes to
// it, also while that one is suspended.
func TestVolumes(t *testing.T) {
	writer, reader := project(t, "vol-writer"), project(t, "vol-reader")
	t.Cleanup(func() {
		for _, name := range []string{"vol-writer", "vol-reader"} { // before the volume, whose sandboxes they are
			bawnAt(context.Background(), base, nil, nil, "rm", "--force", name)
		}
		if r := bawnAt(context.Background(), base, nil, nil, "volume", "rm", "vol-test"); r.code != 0 {
			t.Errorf("bawn volume rm: %+v", r)
		}
	})
	must(t, base, "volume", "create", "vol-test", "--size", "64M")
	// The user can write, root's files keep their owner, a database's sort of file works, and so
	// do links; the volume is what was named, at the place that was named.
	const volume = "vol-test:/srv/in/data"
	if out := must(t, writer, "run", "--volume", volume, "--", "sh", "-euc", `cd /srv/in/data; echo kept > file; ln file hard; ln -s file soft
sudo sh -c 'echo private > root; chmod 600 root'; sudo chown daemon root; mkfifo fifo
python3 -c 'import sqlite3; c = sqlite3.connect("db"); c.execute("pragma journal_mode=wal"); c.execute("create table t(x)"); c.execute("insert into t values(7)"); c.commit()'
! dd if=/dev/zero of=big bs=1M count=80 2>err; grep -o 'No space left on device' err; rm big; dd if=/dev/zero of=fits bs=1M count=40 2>/dev/null; rm fits
findmnt -no FSTYPE .; stat -c %U . root`); out != "No space left on device\nvirtiofs\n"+lastLine(sh(t, writer, "id -un"))+"\ndaemon\n" {
		t.Errorf("in the volume: %q", out)
	}
	fails(t, reader, 125, "sandbox vol-writer writes to volume vol-test", "run", "--volume", volume, "--", "true")
	fails(t, base, 125, "belongs to sandbox vol-writer", "volume", "rm", "vol-test")
	fails(t, writer, 125, "cannot fork", "fork", "vol-writer")
	must(t, writer, "exec", "vol-writer", "--", "sh", "-c", "exec 3>>/srv/in/data/log; (while sleep 1; do echo x >&3; done) </dev/null >/dev/null 2>&1 &")
	must(t, writer, "suspend", "--force")
	fails(t, reader, 125, "bawn stop vol-writer", "run", "--volume", volume, "--", "true")
	grows := func() bool {
		const size = "stat -c %s /srv/in/data/log"
		before := sh(t, writer, size)
		return poll(waitLimit, func() bool { return sh(t, writer, size) != before })
	}
	if !grows() {
		t.Error("a file that was open in the suspended sandbox is not written any more")
	}
	// The host reads and writes beside them.
	src := filepath.Join(base, "home", "from-host")
	writeFile(t, src, "of the host\n")
	t.Cleanup(func() { os.Remove(src); os.Remove(src + "-back") })
	must(t, base, "volume", "cp", src, "vol-test:host")
	must(t, base, "volume", "cp", "vol-test:file", src+"-back")
	if got := readFile(t, src+"-back") + sh(t, writer, "cat /srv/in/data/host"); got != "kept\nof the host\n" {
		t.Errorf("copied: %q", got)
	}
	// A sandbox that only reads does so while the other one writes.
	const look = `cd "$0"; cat file soft; sudo cat root; stat -c %h file; stat -c %U root; ! touch x 2>/dev/null; ! sudo sh -c 'echo x > file' 2>/dev/null`
	if got := must(t, reader, "run", "--volume", "vol-test:/mnt/vol:ro", "--", "sh", "-euc", look, "/mnt/vol"); got != "kept\nkept\nprivate\n2\ndaemon\n" {
		t.Errorf("a reader sees %q", got)
	}
	must(t, writer, "rm", "--force")
	if !strings.Contains(must(t, base, "volume", "ls"), "vol-reader") {
		t.Error("the volume is gone with its sandbox")
	}
	must(t, reader, "stop")
	if got := must(t, reader, "run", "--volume", "vol-test:/mnt/vol", "--", "sh", "-euc", `cd /mnt/vol; echo new >> file; cat file
python3 -c 'import sqlite3; print(sqlite3.connect("db").execute("select x from t").fetchall())'`); got != "kept\nnew\n[(7,)]\n" {
		t.Errorf("the next writer sees %q", got)
	}
}

// lastLine is the last line of a text, without its end.
func lastLine(text string) string {
	text = strings.TrimSuffix(text, "\n")
	return text[strings.LastIndexByte(text, '\n')+1:]
}
