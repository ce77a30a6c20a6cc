package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/creack/pty"
	"github.com/hinshun/vt10x"

	"bawn.dev/bawn/internal/sys/proc"
)

// command is a line that a person types.
type command struct {
	text  string
	fails bool // it must fail
}

// parse reads commands, one in each line that is not empty.
func parse(in io.Reader) (list []command, err error) {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		text, fails := strings.CutPrefix(strings.TrimSpace(lines.Text()), "! ")
		if text != "" {
			list = append(list, command{text, fails})
		}
	}
	if len(list) == 0 && lines.Err() == nil {
		return nil, errors.New("there are no commands on standard input")
	}
	return list, lines.Err()
}

// record runs commands one after the other and returns the screen behind the last one.
func record(ctx context.Context, cols, rows int, commands []command) (*screen, error) {
	term := vt10x.New(vt10x.WithSize(cols, rows))
	first := ""
	for i, c := range commands {
		prompt := "$ " + c.text
		if i > 0 {
			prompt = "\r\n" + prompt
		}
		if _, err := fmt.Fprintf(term, "%s%s%s\r\n", bold, prompt, plain); err != nil {
			return nil, err
		}
		if i == 0 {
			first = screenOf(term).line(0)
		}
		if err := play(ctx, term, cols, rows, c); err != nil {
			return nil, fmt.Errorf("%s: %w\n%s", c.text, err, screenOf(term).text())
		}
	}
	s := screenOf(term)
	if s.line(0) != first {
		return nil, fmt.Errorf("the session has more than %d rows, or has cleared the screen", rows)
	}
	return s, nil
}

// SGR of ECMA-48, 8.3.117.
const (
	bold  = "\x1b[1m"
	plain = "\x1b[0m"
)

// play runs a command in a terminal of its own and shows its output on term.
func play(ctx context.Context, term io.Writer, cols, rows int, c command) error {
	cmd := proc.Command(ctx, "sh", "-c", c.text)
	cmd.Env = append(os.Environ(), "TERM=xterm-256color") // the commands are those of whoever makes the picture
	f, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: uint16(cols), Rows: uint16(rows)})
	if err != nil {
		return err
	}
	defer f.Close()
	_, copyErr := io.Copy(term, f)
	f.Close() // ends a command that still runs
	err = cmd.Wait()
	if copyErr != nil && !errors.Is(copyErr, syscall.EIO) { // EIO: nobody has the terminal open any more (pty(7))
		return copyErr
	}
	if status := new(exec.ExitError); c.fails && errors.As(err, &status) {
		return nil
	}
	if c.fails && err == nil {
		return errors.New("it was to fail, and did not")
	}
	return err
}
