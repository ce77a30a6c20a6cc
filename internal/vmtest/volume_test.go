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
// it, also while that one is suspended. Local directories (localDirs) last as long as the sandbox.
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
	if got := must(t, reader, "run", "--volume", "vol-test:/mnt/vol:ro", "--local-dir", "node_modules", "--local-dir", "a/target", "--", "sh", "-euc", look, "/mnt/vol"); got != "kept\nkept\nprivate\n2\ndaemon\n" {
		t.Errorf("a reader sees %q", got)
	}
	localDirs(t, reader)
	must(t, writer, "rm", "--force")
	if !strings.Contains(must(t, base, "volume", "ls"), "vol-reader") {
		t.Error("the volume is gone with its sandbox")
	}
	must(t, reader, "stop")
	if got := must(t, reader, "run", "--volume", "vol-test:/mnt/vol", "--", "sh", "-euc", `cat node_modules/f a/target/f; cd /mnt/vol; echo new >> file; cat file
python3 -c 'import sqlite3; print(sqlite3.connect("db").execute("select x from t").fetchall())'`); got != "module\ntarget\nkept\nnew\n[(7,)]\n" {
		t.Errorf("the next writer, after a stop, sees %q", got)
	}
}

// localDirs tests the local directories node_modules and a/target of a sandbox that has just
// started for the first time.
func localDirs(t *testing.T, dir string) {
	t.Helper()
	hostSees := func(sub string) int {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil {
			return -1
		}
		return len(entries)
	}
	out := sh(t, dir, `echo module > node_modules/f; echo target > a/target/f; findmnt -no FSTYPE node_modules; findmnt -no FSTYPE a/target
stat -c %U node_modules/f a/target | uniq; [ "$(id -un)" = "$(stat -c %U node_modules)" ]; git init -q; echo node_modules > .gitignore; git add .gitignore; git status --porcelain`)
	if user := lastLine(sh(t, dir, "id -un")); out != "ext4\next4\n"+user+"\nA  .gitignore\n?? a/\n" {
		t.Errorf("in the guest: %q", out)
	}
	if n, m := hostSees("node_modules"), hostSees("a/target"); n != 0 || m != 0 {
		t.Errorf("the host sees %d and %d files", n, m)
	}
	// The host removes the directory, as git clean does: it is put back, each time.
	place := filepath.Join(dir, "node_modules")
	putBack := func() {
		t.Helper()
		wait(t, "node_modules to be put back", func() bool {
			return sh(t, dir, "cat node_modules/f 2>/dev/null || true") == "module\n" && hostSees("node_modules") == 0
		})
	}
	for range 4 {
		if err := os.Remove(place); err != nil {
			t.Fatal(err)
		}
		putBack()
	}
	// A file of the host stands there for a while: it stays as it is until the host removes it.
	writeFile(t, filepath.Join(dir, "file"), "of the host\n")
	wait(t, "the file to take the place of the directory, which may be put back between the calls", func() bool {
		_ = os.Remove(place)
		return os.Rename(filepath.Join(dir, "file"), place) == nil
	})
	wait(t, "the guest to see the file", func() bool {
		return sh(t, dir, "cat node_modules 2>/dev/null || true") == "of the host\n"
	})
	if err := os.Remove(place); err != nil {
		t.Fatal(err)
	}
	putBack()
	// Programs remove what is in it, but not the directory, which is a mount.
	if out := sh(t, dir, "rm -rf a/target 2>/dev/null || ls -A a/target; echo target > a/target/f"); out != "" {
		t.Errorf("left: %q", out)
	}
	// Others take effect when the sandbox is resumed. What the ones that are gone had stays on the disk.
	must(t, dir, "suspend", "--force")
	if got := must(t, dir, "run", "--local-dir", "node_modules", "--local-dir", "b", "--", "sh", "-c", "cat node_modules/f; ls -A a/target; findmnt -no FSTYPE b"); got != "module\next4\n" {
		t.Errorf("after a suspension: %q", got)
	}
	t.Cleanup(func() { bawnAt(context.Background(), dir, nil, nil, "rm", "--force", "vol-fork") })
	must(t, dir, "fork", "vol-reader", "vol-fork")
	if got := must(t, dir, "exec", "vol-fork", "--", "sh", "-c", "cat node_modules/f; echo fork > node_modules/f"); got != "module\n" {
		t.Errorf("in a fork: %q", got)
	}
	if got := must(t, dir, "exec", "vol-reader", "--", "cat", "node_modules/f"); got != "module\n" {
		t.Errorf("after a fork has written: %q", got)
	}
	must(t, dir, "rm", "--force", "vol-fork")
	must(t, dir, "stop")
	writeFile(t, filepath.Join(dir, "c"), "")
	fails(t, dir, 125, "is not a directory, or is a link", "run", "--local-dir", "c", "--", "true")
	if got := must(t, dir, "run", "--local-dir", "node_modules", "--local-dir", "a/target", "--", "cat", "node_modules/f", "a/target/f"); got != "module\ntarget\n" {
		t.Errorf("after a stop and a start that failed: %q", got)
	}
}

// lastLine is the last line of a text, without its end.
func lastLine(text string) string {
	text = strings.TrimSuffix(text, "\n")
	return text[strings.LastIndexByte(text, '\n')+1:]
}
