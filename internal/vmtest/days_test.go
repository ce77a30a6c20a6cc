//go:build vm

package vmtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The scenario suite: ordinary days of a person at a shell. Each file testdata/days/KIND.sh
// holds the cases of one kind, a few lines of bash each. A case runs once without bawn, and
// once with it; both must end with status 0 and print the same, so the right outcome is what
// a plain Linux shell gives. A case opens with
//
//	### its name, which is its subtest's as well
//	# why it is here, with the public report that it is from
//	# key: value
//
// The keys, which may also stand before the first case as the default of the file:
//
//	where: inside    the whole script runs in the sandbox, in an empty directory of the share (default)
//	where: outside   the script runs on the host; $R before a command runs it in the sandbox
//	user: root       inside as root; the reference is the same on the guest's own disk
//	needs: tool ...  without these programs on the host the case is skipped
//	want: text       the right outcome, where the host cannot give it; there is no reference
//	open: reason     it differs so far: the case is skipped, and fails once it passes
//	pending: reason  it differs so far, at times: the case does not run
//
// Outside, `guest` starts a shell in the sandbox that stays, and `inside` hands it commands (`now` without a wait)
// and prints what they say (testdata/days/lib/outside.sh).

// dayCase is one case of the suite.
type dayCase struct {
	kind, name, script             string
	where, user, needs, want, open string
	pending                        string
}

// dayOutcome is how a case ended.
type dayOutcome struct {
	out, err string
	code     string
}

const (
	// dayLimit bounds one case. Nearly all take less than a second; git takes minutes when the host is busy.
	dayLimit = 10 * time.Minute
	// daysAtOnce is how many cases run together.
	daysAtOnce = 4
)

// usesSandbox matches what runs something in the sandbox in a script of the host.
var usesSandbox = regexp.MustCompile(`\$R\b|\$\(R\)|(?m:^|; )guest\b`)

// parseDays reads the cases of one kind.
func parseDays(kind, text string) ([]dayCase, error) {
	defaults := dayCase{kind: kind, where: "inside"}
	parts := strings.Split("\n"+text, "\n### ")
	if _, err := defaults.header(strings.TrimSpace(parts[0])); err != nil {
		return nil, err
	}
	var cases []dayCase
	for _, part := range parts[1:] {
		c := defaults
		name, rest, _ := strings.Cut(part, "\n")
		c.name = strings.ReplaceAll(name, " ", "-")
		said, err := c.header(rest)
		if err != nil {
			return nil, err
		}
		if !said {
			return nil, fmt.Errorf("%s: case %q does not say why it is here", kind, name)
		}
		if uses := usesSandbox.MatchString(c.script); uses != (c.where == "outside") {
			return nil, fmt.Errorf("%s: case %q is %s, and its script runs in the sandbox: %v", kind, name, c.where, uses)
		}
		if slices.ContainsFunc(cases, func(o dayCase) bool { return o.name == c.name }) {
			return nil, fmt.Errorf("%s: two cases are called %q", kind, name)
		}
		cases = append(cases, c)
	}
	return cases, nil
}

// header takes the comment before a script, and the script. It reports whether the comment
// has a line that is not a key.
func (c *dayCase) header(text string) (said bool, err error) {
	fields := map[string]*string{"where": &c.where, "user": &c.user, "needs": &c.needs, "want": &c.want, "open": &c.open, "pending": &c.pending}
	c.script, said = cutHeader(text, fields)
	if c.where != "inside" && c.where != "outside" {
		return said, fmt.Errorf("%s: where: %q", c.kind, c.where)
	}
	return said, nil
}

// cutHeader reads the comment before a script into the fields of its keys, and returns the script. It
// reports whether the comment has a line that is not a key.
func cutHeader(text string, fields map[string]*string) (script string, said bool) {
	for line := range strings.Lines(text) {
		comment, ok := strings.CutPrefix(line, "# ")
		if !ok {
			break
		}
		text = text[len(line):]
		key, value, _ := strings.Cut(strings.TrimSpace(comment), ": ")
		if f := fields[key]; f != nil {
			*f = value
		} else {
			said = true
		}
	}
	return text, said
}

// onHost reports whether the reference of the case is a run on the host.
func (c *dayCase) onHost() bool { return c.want == "" && (c.where == "outside" || c.user != "root") }

// unable returns why the case cannot run here, or "".
func (c *dayCase) unable() string {
	if c.pending != "" {
		return "pending: " + c.pending
	}
	for tool := range strings.FieldsSeq(c.needs) {
		if _, err := exec.LookPath(tool); err != nil && (c.onHost() || c.where == "outside") {
			return "the host has no " + tool
		}
	}
	return ""
}

// daysEnv is the environment of the cases' scripts on the host; run is what $R stands for.
func daysEnv(t *testing.T, run string) []string {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(base, "bin")
	_ = os.MkdirAll(bin, 0o755)
	if err := os.Symlink(os.Getenv("BAWN"), filepath.Join(bin, "bawn")); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	return environment("PATH="+bin+":"+os.Getenv("PATH"), "R="+run, "USER="+me.Username, "LOGNAME="+me.Username, "SHELL=/bin/bash")
}

// runDay runs a script of bash in a directory of the host. What it leaves behind is ended.
func runDay(script, dir string, env []string) dayOutcome {
	ctx, cancel := context.WithTimeout(context.Background(), dayLimit)
	defer cancel()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return dayOutcome{err: err.Error()}
	}
	c := exec.CommandContext(ctx, "bash", "-c", script)
	c.Dir, c.Env = dir, append(slices.Clone(env), "PWD="+dir)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGTERM) }
	c.WaitDelay = 10 * time.Second
	var files [2]*os.File // not pipes: a child that stays behind would keep them open
	for i := range files {
		f, err := os.CreateTemp(base, "day-")
		if err != nil {
			return dayOutcome{err: err.Error()}
		}
		defer os.Remove(f.Name())
		defer f.Close()
		files[i] = f
	}
	c.Stdout, c.Stderr = files[0], files[1]
	err := c.Run()
	if c.Process != nil {
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
	}
	out, _ := os.ReadFile(files[0].Name())
	errs, _ := os.ReadFile(files[1].Name())
	o := dayOutcome{out: string(out), err: string(errs), code: "0"}
	if err != nil {
		o.code = err.Error()
	}
	return o
}

// insideDays runs cases in the sandbox by one command, and returns their outcomes. Scripts
// and outcomes are in the shared directory dir, the working directories below root.
func insideDays(t *testing.T, cases []dayCase, dir, root, who string) []dayOutcome {
	t.Helper()
	if len(cases) == 0 {
		return nil
	}
	args := []string{"run", "--user", who, "--", "bash", filepath.Join(dir, "inside.sh"), root, filepath.Base(root)}
	writeFile(t, filepath.Join(dir, "inside.sh"), testdata(t, "days/lib/inside.sh"))
	for _, c := range cases {
		writeFile(t, filepath.Join(dir, c.name+".sh"), c.script)
		args = append(args, c.name)
	}
	if r := bawn(t, dir, args...); r.code != 0 {
		t.Fatalf("the cases of %s: %+v", dir, r)
	}
	found := make([]dayOutcome, len(cases))
	for i, c := range cases {
		at := filepath.Join(dir, c.name+"."+filepath.Base(root))
		found[i] = dayOutcome{readFile(t, at+".out"), readFile(t, at+".err"), strings.TrimSpace(readFile(t, at+".code"))}
	}
	return found
}

// eachDay calls do for each case, daysAtOnce at a time.
func eachDay(cases []dayCase, do func(i int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range daysAtOnce {
		wg.Go(func() {
			for i := range next {
				do(i)
			}
		})
	}
	for i := range cases {
		next <- i
	}
	close(next)
	wg.Wait()
}

// TestDays runs the scenario suite.
func TestDays(t *testing.T) {
	files, err := filepath.Glob("testdata/days/*.sh")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, f := range files {
		kind := strings.TrimSuffix(filepath.Base(f), ".sh")
		cases, err := parseDays(kind, readFile(t, f))
		if err != nil {
			t.Fatal(err)
		}
		t.Run(kind, func(t *testing.T) { daysOfKind(t, kind, cases) })
	}
}

// daysOfKind runs all cases of one kind, and compares.
func daysOfKind(t *testing.T, kind string, cases []dayCase) {
	var ready []dayCase
	for _, c := range cases {
		if why := c.unable(); why != "" {
			t.Run(c.name, func(t *testing.T) { t.Skip(why) })
			continue
		}
		ready = append(ready, c)
	}
	dir := temp(t)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	want, got := make([]dayOutcome, len(ready)), make([]dayOutcome, len(ready))
	within := func(to []dayOutcome, root, who string, of func(*dayCase) bool) {
		var at []int
		var some []dayCase
		for i := range ready {
			if ready[i].where == "inside" && of(&ready[i]) {
				at, some = append(at, i), append(some, ready[i])
			}
		}
		for i, o := range insideDays(t, some, dir, root, who) {
			to[at[i]] = o
		}
	}
	isRoot := func(c *dayCase) bool { return c.user == "root" }
	within(got, filepath.Join(dir, "share"), me.Username, func(c *dayCase) bool { return !isRoot(c) })
	within(got, filepath.Join(dir, "rootshare"), "root", isRoot)
	within(want, "/var/tmp/days/disk", "root", func(c *dayCase) bool { return isRoot(c) && c.want == "" })
	lib := testdata(t, "days/lib/outside.sh")
	plain, boxed := daysEnv(t, ""), daysEnv(t, "bawn run --")
	eachDay(ready, func(i int) {
		c := &ready[i]
		script := c.script
		if c.where == "outside" {
			script = lib + script
			got[i] = runDay(script, filepath.Join(dir, c.name), boxed)
		}
		if c.want != "" {
			want[i] = dayOutcome{out: c.want + "\n", code: "0"}
		} else if c.onHost() {
			want[i] = runDay(script, filepath.Join(base, "plain", kind, c.name), plain)
		}
	})
	for i := range ready {
		t.Run(ready[i].name, func(t *testing.T) { ready[i].judge(t, want[i], got[i]) })
	}
}

// judge compares the two outcomes of a case.
func (c *dayCase) judge(t *testing.T, want, got dayOutcome) {
	if want.code != "0" || want.out == "" {
		t.Fatalf("the case is wrong: without the sandbox it ends with %q and prints %q\n%s", want.code, want.out, want.err)
	}
	same := got.code == want.code && got.out == want.out
	switch {
	case same && c.open != "":
		t.Errorf("it passes: remove its line `open: %s`", c.open)
	case same:
	case c.open != "":
		t.Skip("open: " + c.open)
	default:
		t.Errorf("in the sandbox it ends with %q and prints\n%s\nnot with %q and\n%s\nstandard error:\n%s", got.code, got.out, want.code, want.out, got.err)
	}
}
