//go:build vm

package vmtest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// watcherInside is a program in a sandbox that watches a directory by inotify(7).
type watcherInside struct {
	watched string // the directory, on the host
	seen    string // the file that it writes events to, on the host
}

// watchInside starts the program for a directory of the host, which it makes, and waits until the
// program sees a change of the host. dir is the project, in which it works; the watcher goes on when
// the command has ended. run are the arguments of bawn that run a command in the sandbox.
func watchInside(t *testing.T, dir, watched string, run ...string) watcherInside {
	t.Helper()
	w := watcherInside{watched, filepath.Join(dir, "seen-"+filepath.Base(watched))}
	if err := os.MkdirAll(watched, 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "watcher.sh"), testdata(t, "days/lib/outside.sh"))
	must(t, dir, append(run, "--", "bash", "-euc", `. ./watcher.sh; watcher; tail -f /dev/null | python3 w.py "$1" >>"$2" 2>&1 & until grep -qs watching "$2"; do sleep 0.1; done`,
		"watcher", watched, w.seen)...)
	w.sees(t, "first")
	return w
}

// in is the watcher's fork, whose project is another directory.
func (w watcherInside) in(dir string) watcherInside {
	return watcherInside{filepath.Join(dir, filepath.Base(w.watched)), filepath.Join(dir, filepath.Base(w.seen))}
}

// sees makes a file of the name on the host, and waits until the program reports it.
func (w watcherInside) sees(t *testing.T, name string) {
	t.Helper()
	writeFile(t, filepath.Join(w.watched, name), "x\n")
	w.saw(t, name)
}

// saw waits until the program has reported that a file of the name was made.
func (w watcherInside) saw(t *testing.T, name string) {
	t.Helper()
	wait(t, "the watcher to see "+name, func() bool {
		b, err := os.ReadFile(w.seen)
		return err == nil && slices.Contains(strings.Split(string(b), "\n"), "create "+name)
	})
}
