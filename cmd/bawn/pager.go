package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// page calls show with a writer that leads to the person's pager, if standard output is a
// terminal and a pager is wanted, and else to out. The conventions are those of git: $GIT_PAGER,
// $PAGER or less, of which an empty one and "cat" mean none, and LESS=FRX where it is not set.
func page(out io.Writer, wanted bool, show func(io.Writer) error) error {
	command := pagerCommand(os.LookupEnv)
	if !wanted || !isTerminal(os.Stdout) || command == "" || command == "cat" {
		return show(out)
	}
	cmd := exec.Command("/bin/sh", "-c", command) //nolint:noctx // the person's own setting; it ends when they leave it
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = os.Environ()
	if _, ok := os.LookupEnv("LESS"); !ok {
		cmd.Env = append(cmd.Env, "LESS=FRX")
	}
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
