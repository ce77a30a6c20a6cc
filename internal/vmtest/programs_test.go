//go:build vm

package vmtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Real programs on a shared directory. Each file testdata/programs/KIND.sh holds the cases of one
// kind, a few lines of bash each, which run in the sandbox, in a directory of the share, and end
// with status 0 if what they looked at is right. A case opens with
//
//	### its name, which is its subtest's as well
//	# why it is here, with the public report that it is from
//	# key: value
//
// The keys, which may also stand before the first case as the default of the file:
//
//	dir: name      the case works in this directory, with the other cases that name it
//	host: script   runs on the host before
//	edit: script   runs on the host at each `edited` of the case; $N counts from 1
//	where: host    the whole script runs on the host; ssh and its like use the file $SSH_CONFIG, and $HOST;
//	               $PORT is a port that is free there
//	apt: package ...  is installed in the sandbox before, beyond what the default image has
//	npm: package ...  likewise, with --global
//	needs: tool ...   without these programs on the host the case is skipped
//
// The functions that a script may call are in testdata/programs/lib/lib.sh.

// programsEnv is the variable that, set to 1, lets TestPrograms run. All cases together fetch some 700 MB of
// packages and take the better part of two hours under software emulation.
const programsEnv = "BAWN_TEST_PROGRAMS"

const (
	// programLimit bounds one case. The longest makes an image of Docker from some 120 packages of Debian.
	programLimit = 45 * time.Minute
	// installLimit bounds the installation of what one case needs.
	installLimit = 30 * time.Minute
)

// programPresets are the rules that the programs are fetched under, as a user would allow them.
var programPresets = []string{"preset:debian", "preset:npm", "preset:go"}

// programCase is a real program at work.
type programCase struct {
	name, script           string
	dir, host, edit, where string
	apt, npm, needs        string
}

// parsePrograms reads the cases of a file.
func parsePrograms(text string) ([]programCase, error) {
	parts := strings.Split("\n"+text, "\n### ")
	var defaults programCase
	if err := defaults.header(strings.TrimSpace(parts[0])); err != nil {
		return nil, err
	}
	var cases []programCase
	for _, part := range parts[1:] {
		c := defaults
		name, rest, _ := strings.Cut(part, "\n")
		c.name = strings.ReplaceAll(name, " ", "-")
		if err := c.header(rest); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		cases = append(cases, c)
	}
	return cases, nil
}

// header takes the comment before a script, and the script.
func (c *programCase) header(text string) error {
	fields := map[string]*string{"dir": &c.dir, "host": &c.host, "edit": &c.edit, "where": &c.where, "apt": &c.apt, "npm": &c.npm, "needs": &c.needs}
	c.script, _ = cutHeader(text, fields)
	if c.where != "" && c.where != "host" {
		return errors.New("where: " + c.where)
	}
	return nil
}

// TestPrograms runs real programs, which it installs as a user would, on a shared directory.
func TestPrograms(t *testing.T) {
	if os.Getenv(programsEnv) != "1" {
		t.Skip(programsEnv + "=1 runs it")
	}
	files, err := filepath.Glob("testdata/programs/*.sh")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	b := &programsBox{dir: project(t, "programs")}
	for _, f := range files {
		cases, err := parsePrograms(readFile(t, f))
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimSuffix(filepath.Base(f), ".sh"), func(t *testing.T) {
			for _, c := range cases {
				t.Run(c.name, func(t *testing.T) {
					c.require(t)
					b.install(t, c.apt, c.npm)
					c.run(t, b.dir)
				})
			}
		})
	}
	t.Run("screen", func(t *testing.T) {
		b.install(t, "htop vim", "")
		programsOnScreen(t, b.dir)
	})
}

// require skips the test where the host lacks a program.
func (c *programCase) require(t *testing.T) {
	for tool := range strings.FieldsSeq(c.needs) {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("the host has no %s: install it", tool)
		}
	}
}

// programsBox is the sandbox of the suite.
type programsBox struct {
	dir  string          // its project
	args []string        // more arguments for its first run
	env  []string        // likewise variables
	has  map[string]bool // what was installed; nil before the sandbox is there
}

// installScript installs the packages of apt in $0 and those of npm in $1.
const installScript = `export DEBIAN_FRONTEND=noninteractive
[ -z "$0" ] || sudo -E apt-get -qq install --no-install-recommends $0 >/tmp/apt.log 2>&1 || { tail -n 50 /tmp/apt.log; exit 1; }
[ -z "$1" ] || sudo npm install --silent --global --no-audit --no-fund $1`

// install makes the sandbox, if it is not there yet, and installs the packages of apt and npm that it lacks.
func (b *programsBox) install(t *testing.T, apt, npm string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), installLimit)
	defer cancel()
	began := time.Now()
	if b.has == nil {
		args := append([]string{"run", "--memory", "3G"}, b.args...)
		for _, p := range programPresets {
			args = append(args, "--allow", p)
		}
		if r := bawnAt(ctx, b.dir, nil, b.env, append(args, "-n", "--", "sudo", "apt-get", "-qq", "update")...); r.code != 0 {
			t.Fatalf("there is no sandbox with lists of packages: %+v", r)
		}
		b.has = map[string]bool{}
	}
	apt, npm = b.lacks(apt), b.lacks(npm)
	if apt == "" && npm == "" {
		return
	}
	if r := bawnAt(ctx, b.dir, nil, nil, "run", "-n", "--", "bash", "-euc", installScript, apt, npm); r.code != 0 {
		t.Fatalf("%s %s: not installed: %+v", apt, npm, r)
	}
	for p := range strings.FieldsSeq(apt + " " + npm) {
		b.has[p] = true
	}
	t.Logf("%s %s: installed in %v", apt, npm, time.Since(began).Round(time.Second))
}

// lacks returns those of the packages that are not installed yet.
func (b *programsBox) lacks(packages string) string {
	return strings.Join(slices.DeleteFunc(strings.Fields(packages), func(p string) bool { return b.has[p] }), " ")
}

// run runs the case in the project. One that fails in the sandbox runs again on the guest's own
// disk, if it takes no edits, which tells a fault of the share from one of the case.
func (c *programCase) run(t *testing.T, project string) {
	dir := filepath.Join(project, c.dir)
	if c.dir == "" {
		dir = filepath.Join(project, c.name)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"package.json", "package-lock.json"} {
		if c.dir != "" {
			writeFile(t, filepath.Join(dir, f), testdata(t, "programs/lib/"+f))
		}
	}
	config := filepath.Join(base, "programs.ssh")
	if c.where == "host" {
		writeFile(t, config, must(t, dir, "ssh-config"))
	}
	env := append(daysEnv(t, ""), "SSH_CONFIG="+config, "HOST=bawn-"+filepath.Base(project), fmt.Sprint("PORT=", freePort(t)))
	if o := runDay("set -eu\n"+c.host, dir, env); o.code != "0" {
		t.Fatalf("the host's part: %+v", o)
	}
	stop := c.edits(t, dir, env)
	began := time.Now()
	code, out := c.at(t, dir, env, testdata(t, "programs/lib/lib.sh")+c.script)
	stop()
	t.Logf("%v\n%s", time.Since(began).Round(100*time.Millisecond), out)
	if code == "0" {
		return
	}
	t.Errorf("it ends with %s", code)
	if c.edit == "" && c.where == "" {
		there := fmt.Sprintf("sudo rm -rf /var/tmp/%[1]s; mkdir -p /var/tmp/%[1]s; cd /var/tmp/%[1]s; cp %[2]q/package*.json . 2>/dev/null || true\n", filepath.Base(dir), dir)
		code, out := c.at(t, dir, env, there+testdata(t, "programs/lib/lib.sh")+c.script)
		t.Logf("on the guest's own disk it ends with %s\n%s", code, out)
	}
}

// at runs a script of the case, and returns how it ended and what it printed.
func (c *programCase) at(t *testing.T, dir string, env []string, script string) (code, out string) {
	ctx, cancel := context.WithTimeout(t.Context(), programLimit)
	defer cancel()
	args := []string{os.Getenv("BAWN"), "run", "-n", "--", "bash", "-c", script}
	if c.where == "host" {
		args = []string{"bash", "-c", script}
	}
	x := exec.CommandContext(ctx, args[0], args[1:]...)
	x.Dir, x.Env = dir, slices.Concat(env, []string{"PWD=" + dir})
	b, err := x.CombinedOutput()
	if err != nil {
		return err.Error(), string(b)
	}
	return "0", string(b)
}

// edits makes the edits of the host that the case asks for, until the function that it returns is
// called, which waits for the last.
func (c *programCase) edits(t *testing.T, dir string, env []string) (stop func()) {
	ready := filepath.Join(dir, "ready")
	_ = os.Remove(ready)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 1; ; n++ {
			if !poll(programLimit, func() bool { _, err := os.Lstat(ready); return err == nil || ctx.Err() != nil }) || ctx.Err() != nil {
				return
			}
			if o := runDay("set -eu\n"+c.edit, dir, append(env, fmt.Sprint("N=", n))); o.code != "0" {
				t.Errorf("the host's edit %d: %+v", n, o)
			}
			if err := os.Remove(ready); err != nil {
				t.Errorf("the mark of an edit: %v", err)
				return
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}
