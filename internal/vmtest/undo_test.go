//go:build vm

package vmtest

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestUndo changes a project with real programs in a machine, by root and by the user, and
// takes that back on the host.
func TestUndo(t *testing.T) {
	dir := temp(t)
	for name, text := range map[string]string{"a": "a\n", "src/b": "b\n", "src/deep/c": "c\n", "tool.sh": "#!/bin/sh\n", "old/d": "d\n"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, name), text)
	}
	before := listTree(t, dir)
	sh(t, dir, `set -e
git init -q . && git -c user.name=x -c user.email=x@x.test add -A && git -c user.name=x -c user.email=x@x.test commit -qm x
echo more >>a
sed -i s/b/B/ src/b
mv src/deep moved && echo new >moved/new && rm moved/c
chmod 4755 tool.sh
ln -sf /etc/passwd src/link
python3 -c 'import os, mmap
f = open("old/d", "r+b"); m = mmap.mmap(f.fileno(), 0); m[0:1] = b"X"; m.close()'
rm -rf src/b
dd if=/dev/zero of=large bs=1M count=3 status=none`)
	must(t, dir, "run", "--user", "root", "--", "sh", "-c", "chown 1234 a && echo root >byroot && rm tool.sh")
	if listTree(t, dir) == before {
		t.Fatal("nothing was changed")
	}
	var points []struct{ Number int }
	if err := json.Unmarshal([]byte(must(t, dir, "undo", "--list", "--json")), &points); err != nil || len(points) < 2 {
		t.Fatalf("%v, %v", points, err)
	}
	fails(t, dir, 125, "no terminal", "undo", ".") // it asks
	first := points[len(points)-2].Number
	must(t, dir, "undo", "--yes", "--to", strconv.Itoa(first), ".")
	if after := listTree(t, dir); after != before {
		t.Errorf("after the undo:\n%s\nand not\n%s", after, before)
	}

	// The guest goes on, and what the person writes after it stays.
	sh(t, dir, "echo guest >a; echo guest >src/b")
	writeFile(t, filepath.Join(dir, "a"), "mine\n")
	plan := must(t, dir, "undo", "--dry-run")
	rel := filepath.Base(dir)
	if !strings.Contains(plan, rel+"/src/b") || !strings.Contains(plan, rel+"/a: it was changed on the host") {
		t.Errorf("the plan is\n%s", plan)
	}
	must(t, dir, "undo", "--yes", "src")
	if got := sh(t, dir, "cat a src/b"); got != "mine\nb\n" {
		t.Errorf("the guest reads %q", got)
	}
}

// listTree describes a directory as find(1) sees it, with checksums.
func listTree(t *testing.T, dir string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), "sh", "-c", `find . -printf '%p %y %m %l\n' | sort; find . -type f -exec sha256sum {} + | sort; find . -type f -printf '%p %T@\n' | sort`)
	c.Dir = dir
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestLinksThatLeadOut changes files that a store outside of the project has too, by hard links.
func TestLinksThatLeadOut(t *testing.T) {
	dir := temp(t)
	outside, err := os.MkdirTemp(filepath.Join(base, "home"), "store")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(outside) })
	names := []string{"written", "truncated", "mapped", "chmod", "open", "touched"}
	for _, name := range names {
		writeFile(t, filepath.Join(outside, name), "of the store: "+name+"\n")
		if err := os.Link(filepath.Join(outside, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	before := listTree(t, outside)
	must(t, dir, "run", "--user", "root", "--", "sh", "-ec", `
echo guest >>written; : >truncated; chmod 777 chmod; touch -d 1990-01-01 touched
python3 -c 'import mmap
f = open("mapped", "r+b"); m = mmap.mmap(f.fileno(), 0); m[0:1] = b"X"; m.flush(); m.close()
r, w = open("open"), open("open", "r+"); w.write("guest"); w.flush()
assert r.read(5) == "guest"'
ln written again; echo more >>again; cmp written again; test $(stat -c %h written) = 2`)
	if after := listTree(t, outside); after != before {
		t.Errorf("the store was\n%s\nand is\n%s", before, after)
	}
	if got := readFile(t, filepath.Join(dir, "written")); got != "of the store: written\nguest\nmore\n" {
		t.Errorf("the project has %q", got)
	}
}
