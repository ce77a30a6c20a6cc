//go:build vm

package vmtest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A step of a person at a terminal: wait until it shows something that was not there at the last
// step, then do something.
type step struct {
	shows string
	types string
	do    func()
}

// programsOnScreen runs programs that draw on a terminal.
func programsOnScreen(t *testing.T, project string) {
	dir := filepath.Join(project, "screen")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	writeFile(t, at("vimrc"), "set nocompatible undofile undodir=. directory=. backupcopy=no backup backupskip= updatecount=1\n")
	writeFile(t, at("text"), "one\n")
	writeFile(t, at("log"), strings.Repeat("line\n", 500)+"needle\n"+strings.Repeat("line\n", 500)+"last line\n")
	edit := []string{"vim", "-u", "vimrc", "text"}
	for _, c := range []struct {
		name  string
		args  []string
		steps []step
		then  func(t *testing.T)
	}{
		{"vim", edit, []step{
			{shows: "one", types: "otwo\x1b"},
			{shows: "two", do: func() {
				wait(t, "vim's swap file", func() bool { _, err := os.Stat(at(".text.swp")); return err == nil })
			}, types: ":w\r"},
			{shows: "written", types: ":q\r"},
		}, func(t *testing.T) {
			if got := readFile(t, at("text")) + readFile(t, at("text~")); got != "one\ntwo\none\n" {
				t.Errorf("text and its backup: %q", got)
			}
		}},
		{"vim undoes what an earlier vim did", edit, []step{
			{shows: "two", types: "u:wq\r"},
		}, func(t *testing.T) {
			if got := readFile(t, at("text")); got != "one\n" {
				t.Errorf("%q", got)
			}
		}},
		{"vim recovers", edit, []step{
			{shows: "one", types: "olost\x1b:pre\r"},
			{shows: "preserved", do: func() { sh(t, dir, "pkill -9 vim") }},
		}, func(t *testing.T) {
			sh(t, dir, "vim -u vimrc -es -r text -c 'w! recovered' -c 'q!' </dev/null || true; rm .text.swp")
			if got := readFile(t, at("recovered")); got != "one\nlost\n" {
				t.Errorf("%q", got)
			}
		}},
		{"less", []string{"less", "log"}, []step{
			{shows: "log", types: "/needle\r"},
			{shows: "needle", types: "G"},
			{shows: "last line", types: "F"},
			{shows: "Waiting for data", do: func() {
				f, err := os.OpenFile(at("log"), os.O_APPEND|os.O_WRONLY, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				fmt.Fprintln(f, "appended by the host")
			}},
			{shows: "appended by the host", types: "\x03q"},
		}, nil},
		{"htop", []string{"htop"}, []step{
			{shows: "Load average", types: "q"},
		}, nil},
		{"tmux", []string{"env", "TMUX_TMPDIR=" + dir, "tmux", "-f", "/dev/null", "new", "-s", "x"}, []step{
			{shows: "[x]", types: "echo a$((6*7))b\r"},
			{shows: "a42b", types: "\x02d"},
			{shows: "detached (from session x)"},
		}, nil},
		{"tmux is found again", []string{"env", "TMUX_TMPDIR=" + dir, "tmux", "attach", "-t", "x"}, []step{
			{shows: "a42b", types: "exit\r"},
			{shows: "[exited]"},
		}, nil},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			x := openTerminal(t, dir, append([]string{"run", "--"}, c.args...)...)
			for _, s := range c.steps {
				x.next(s.shows)
				if s.do != nil {
					s.do()
				}
				fmt.Fprint(x.f, s.types)
			}
			if err := x.wait(); err != nil && c.name != "vim recovers" {
				t.Errorf("it ends with %v", err)
			}
			if c.then != nil {
				c.then(t)
			}
		})
	}
}

// next waits until the terminal shows a text, and forgets all up to its end.
func (x *terminal) next(s string) {
	x.t.Helper()
	x.expect(s)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.seen.Next(bytes.Index(x.seen.Bytes(), []byte(s)) + len(s))
}
