package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestMain lets scripts run this program as bawn.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"bawn": main})
}

// TestScripts runs the command line where no machine is needed. Each script has
// a home of its own and stands in a project directory below it.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			project := filepath.Join(e.WorkDir, "home", "project")
			e.Setenv("HOME", filepath.Join(e.WorkDir, "home"))
			e.Setenv("PROJECT", project)
			e.Setenv("BAWNS", filepath.SplitList(e.Getenv("PATH"))[0]) // where the program is
			for _, v := range []string{"XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "BAWN_ACCEL", "BAWN_DEBUG"} {
				e.Setenv(v, "")
			}
			e.Cd = project
			return os.MkdirAll(project, 0o700)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"exits": exits},
	})
}

// exits STATUS PROGRAM ARGUMENT... runs a program and compares its exit status.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS PROGRAM ARGUMENT...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "exit status 0"
	if err != nil {
		got = err.Error()
	}
	if want := "exit status " + args[0]; got != want {
		ts.Fatalf("%q ended with %s, want %s", args[1:], got, want)
	}
}

// commands are all that a person can type, hidden ones left out.
func commands(c *cobra.Command) []*cobra.Command {
	if c.Hidden {
		return nil
	}
	list := []*cobra.Command{c}
	for _, sub := range c.Commands() {
		list = append(list, commands(sub)...)
	}
	return list
}

func TestEveryCommandHasHelp(t *testing.T) {
	root := rootCommand()
	all := commands(root)
	if len(all) < 25 {
		t.Fatalf("only %d commands", len(all))
	}
	for _, c := range all {
		if len(c.Short) < 10 || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short help %q", c.CommandPath(), c.Short)
		}
		if c.RunE == nil {
			t.Errorf("%s does nothing that can fail: its errors would get lost", c.CommandPath())
		}
		if c.Parent() == root && c.GroupID == "" {
			t.Errorf("%s is in no group", c.CommandPath())
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s --%s has no help", c.CommandPath(), f.Name)
			}
		})
		if strings.HasPrefix(c.CommandPath(), "bawn completion") {
			continue
		}
		root := rootCommand()
		var out strings.Builder
		root.SetOut(&out)
		root.SetErr(io.Discard)
		args := slices.Concat(strings.Fields(c.CommandPath())[1:], []string{"--help"})
		if c.DisableFlagParsing { // an agent's word: --help is for the agent, which this would start
			args = []string{"help", c.Name()}
		}
		root.SetArgs(args)
		if err := root.Execute(); err != nil || !strings.Contains(out.String(), "Usage:\n  "+c.CommandPath()) {
			t.Errorf("%s --help: %v\n%s", c.CommandPath(), err, out.String())
		}
	}
}

// TestReport: 125 is bawn's own failure, whatever else is the command's.
func TestReport(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		says   string
	}{
		{nil, 0, ""},
		{exitStatus(1), 1, ""},
		{exitStatus(126), 126, ""},
		{exitStatus(127), 127, ""},
		{fmt.Errorf("wrapped: %w", exitStatus(130)), 130, ""},
		{errors.New("no"), 125, "bawn: no\n"},
		{hint(errors.New("no"), "bawn %s", "yes"), 125, "bawn: no\n  try: bawn yes\n"},
		{fmt.Errorf("outer: %w", hint(errors.New("no"), "yes")), 125, "bawn: outer: no\n  try: yes\n"},
		{errors.New("a\x1b]0;b\u009bc\nd"), 125, "bawn: a\\x1b]0;b\\u009bc\nd\n"},
		{fmt.Errorf("x: %w", context.Canceled), 125, "bawn: interrupted\n"},
		{fmt.Errorf("x: %w", interruption{syscall.SIGINT}), 130, "bawn: interrupted\n"},
		{interruption{syscall.SIGTERM}, 143, "bawn: interrupted\n"},
		{hint(fmt.Errorf("f: %w", syscall.ENOSPC), "yes"), 125, "bawn: f: no space left on device\n  try: df -h shows which disk is full; free space there, or remove sandboxes (bawn ls, bawn rm) or images (bawn image ls, bawn image prune)\n"},
	} {
		var out strings.Builder
		if got := report(&out, c.err); got != c.status || out.String() != c.says {
			t.Errorf("%v: %d, %q", c.err, got, out.String())
		}
	}
}

// TestUntilSignal: what a signal cancels is told apart from what fails meanwhile.
func TestUntilSignal(t *testing.T) {
	ctx, stop := untilSignal(t.Context())
	defer stop()
	if err := interruptedBy(ctx, context.Canceled); report(io.Discard, err) != exitFailed {
		t.Errorf("without a signal: %v", err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	for err, want := range map[error]int{
		fmt.Errorf("wait: %w", ctx.Err()):          143,
		fmt.Errorf("wait: %w", context.Cause(ctx)): 143,
		errors.New("no"):                           exitFailed,
		exitStatus(3):                              3,
	} {
		if got := report(io.Discard, interruptedBy(ctx, err)); got != want {
			t.Errorf("%v: %d, not %d", err, got, want)
		}
	}
}
