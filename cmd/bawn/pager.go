package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"

	"bawn.dev/bawn/internal/sys/proc"
	"bawn.dev/bawn/internal/sys/settings"
	"bawn.dev/bawn/internal/sys/text"
)

// page calls show with a writer that leads to the person's pager, if standard output is a
// terminal and a pager is wanted, and else to out. The conventions are those of git: $GIT_PAGER,
// $PAGER or less, of which an empty one and "cat" mean none, and LESS=FRX where it is not set. A pager that a guest
// could have written is not used, and a warning says so.
func page(out io.Writer, wanted bool, show func(io.Writer) error) error {
	command := pagerCommand(os.LookupEnv)
	if !wanted || !isTerminal(os.Stdout) || command == "" || command == "cat" {
		return show(out)
	}
	cmd, err := pager(command)
	if err != nil {
		fmt.Fprintf(os.Stderr, "bawn: warning: the pager is not used: %s\n", text.Line(err.Error()))
		return show(out)
	}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		in.Close()
		return show(out)
	}
	err = show(in)
	in.Close()
	werr := cmd.Wait()
	var missing *exec.ExitError
	switch {
	case errors.As(werr, &missing) && missing.ExitCode() == notFound: // there is no such pager
		return show(out)
	case errors.Is(err, syscall.EPIPE): // the person has seen enough
		return nil
	}
	return err
}

// pagerCommand returns the shell command of the person's pager.
func pagerCommand(lookup func(string) (string, bool)) string {
	for _, name := range []string{"GIT_PAGER", "PAGER"} {
		if v, ok := lookup(name); ok {
			return v
		}
	}
	return "less"
}

// pagerVariables pass to a pager: how it is to show text. None names a file or a program.
var pagerVariables = []string{
	"LESS", "LESSCHARSET", "LESSUTFCHARDEF", "MORE", "LV", "MOOR", "BAT_THEME", "BAT_STYLE", "COLORTERM", "NO_COLOR", "LC_CTYPE", "LINES", "COLUMNS",
}

// pagerFolders pass to a pager too. It reads settings there.
var pagerFolders = []string{"TERMINFO", "XDG_CONFIG_HOME"}

// pager returns the process of a pager, by a shell command. It is found and runs as other programs of the host do
// (package proc), away from the project, as it shows text of the guest and may run what its settings name. less reads
// no settings, and runs no program (less(1), SECURITY). An error says why a pager is not to be run.
func pager(command string) (*exec.Cmd, error) {
	if err := settings.CheckCommand(command); err != nil {
		return nil, err
	}
	if err := settings.CheckFolders(pagerFolders...); err != nil {
		return nil, err
	}
	cmd := proc.Command(context.Background(), "/bin/sh", "-c", command) // it ends when the person leaves it
	cmd.Dir = "/"
	for _, k := range slices.Concat(pagerVariables, pagerFolders) {
		if v, ok := os.LookupEnv(k); ok {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
	}
	cmd.Env = append(cmd.Env, "LESSSECURE=1")
	if _, ok := os.LookupEnv("LESS"); !ok {
		cmd.Env = append(cmd.Env, "LESS=FRX")
	}
	return cmd, nil
}
